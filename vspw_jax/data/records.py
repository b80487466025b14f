"""The record schema, and random access to converted frames.

One record a frame, in video order: its image and mask files byte for byte, as the data set ships them. In an image data
set each image is a "video" of its own. The records are in ArrayRecord shards that TFDS describes. Its metadata.json
holds the data set's name, the numbering of its labels, the index from video to records and a fingerprint; beside it is
the file of `class_pixels.py`. Source values become train ids when read: VSPW's, or those of the data set's own classes,
which metadata.json then holds. `data_prep/` writes what is read here.
"""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

import cv2
import numpy as np
import scipy.sparse
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from jaxtyping import Bool, UInt8

from vspw_jax.buckets import addresses, fetched
from vspw_jax.buckets.answers import BucketError
from vspw_jax.classes import label_maps, vspw
from vspw_jax.console.errors import UserError
from vspw_jax.data import class_pixels
from vspw_jax.files import jpeg_scans, mask_png, pictures

INCOMPLETE_PREFIX = "incomplete."
"""How TFDS names the folder that it writes into; it is renamed when whole."""

CONVERT_COMMAND = "python -m data_prep.{dataset} --source={source} --output={records}"
OF_OWN_CLASSES = " --classes=FILE"
"""That a converter of data with its own classes needs too."""
PSEUDO_LABELS = "pseudo_labels"
"""In the metadata of records whose labels are predictions: by split, of which frames and by whom."""
METADATA_KEYS = ("dataset", "numbering", "videos", "max_classes", "fingerprint")


def predictions_note(mark: Mapping[str, Any], num_frames: int) -> str:
    """In words, which labels of a split are predictions; `mark` is what the metadata say of it (`PSEUDO_LABELS`)."""
    least = f", those of a share of {mark['threshold']:g} or more" if mark["threshold"] else ""
    return f"{mark['frames']} of {num_frames} labels are predictions of {mark['predictions']}{least}"


def convert_command(records: pathlib.Path | str, dataset: str = "vspw") -> str:
    """The command that converts a data set to `records`."""
    command = CONVERT_COMMAND.format(dataset=dataset, source=f"{dataset.upper()}_DIR", records=records)
    return command + (OF_OWN_CLASSES if dataset == "folder" else "")


def convert_again(records: pathlib.Path | str, dataset: str) -> str:
    """What the user is asked to do with damaged records. They do not know the options that they were made with."""
    return f"convert again, with the options that it had: {convert_command(records, dataset)}"


def features() -> tfds.features.FeaturesDict:
    """Fields of a record: names of video and frame, the frame's JPEG or other picture, its mask's PNG or no bytes."""
    return tfds.features.FeaturesDict(
        {
            "video": tfds.features.Text(),
            "frame": tfds.features.Text(),
            "image_jpeg": tfds.features.Tensor(shape=(), dtype=np.object_),
            "mask_png": tfds.features.Tensor(shape=(), dtype=np.object_),
        }
    )


class Record(TypedDict):
    """A frame as its record holds it; `mask_png` is empty where there is none."""

    video: str
    frame: str
    image_jpeg: bytes
    mask_png: bytes


@dataclasses.dataclass(frozen=True)
class Video:
    """A video's records: `count` of them from `start`, in frame order."""

    name: str
    start: int
    count: int


SHRINKING = {1: 0, 2: 16, 4: 32, 8: 64}
"""OpenCV's flag for each number by which a JPEG's sides can be divided in decoding."""


def decode_image(jpeg: bytes, shrink: int = 1) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a JPEG or another picture, RGB.

    Args:
      shrink: 1, 2, 4 or 8: sides are divided by it and rounded up. libjpeg then makes each pixel from the lower
        frequencies of a `shrink` x `shrink` block: close to its mean, in a fraction of the time. Other formats are
        decoded whole, then shrunk.
    """
    if shrink > 1 and not jpeg.startswith(jpeg_scans.START):
        whole = decode_image(jpeg)
        height, width = (-(-side // shrink) for side in whole.shape[:2])
        return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | SHRINKING[shrink]
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flags)
    if image is None:
        raise UserError(f"A JPEG of {len(jpeg)} bytes cannot be decoded; check its source file.")
    return image


def decode_mask(png: bytes, lookup: UInt8[np.ndarray, "256"] | None = None) -> UInt8[np.ndarray, "H W"]:
    """A mask's train ids, void 255; see `mask_png.decode`.

    Args:
      lookup: train ids by source value, as `LabelMap.lookup`; default VSPW's.
    """
    values = mask_png.decode(png)
    return vspw.from_raw(values) if lookup is None else cv2.LUT(values, lookup)


def fingerprint(frames: Iterable[Sequence[str]]) -> str:
    """SHA-256 (hex) of the frames of a split in order: it depends neither on shards nor on how they were written.

    Args:
      frames: of each (video, frame, SHA-256 of the JPEG's bytes, SHA-256 of the PNG's bytes), digests in hex; a frame
        without mask has the digest of no bytes.
    """
    digest = hashlib.sha256()
    for parts in frames:
        digest.update("\0".join(parts).encode() + b"\n")
    return digest.hexdigest()


def find(path: pathlib.Path | str) -> pathlib.Path:
    """The folder with dataset_info.json: `path` itself or the only one within two levels below it.

    Where `path` is in a bucket, it is the folder's copy on this disk; see buckets/fetched.py.
    """
    if addresses.is_address(path):
        copy = fetched.copy_of_records(addresses.plain(path))
        path = copy.bring(name for name in copy.names if ".array_record" not in name)  # Those come split by split.
    path = pathlib.Path(path)
    infos = [info for pattern in ("", "*/", "*/*/") for info in path.glob(f"{pattern}dataset_info.json")]
    found = sorted(info.parent for info in infos if not info.parent.name.startswith(INCOMPLETE_PREFIX))
    if len(found) != 1:
        state = f"{len(found)} converted data sets ({', '.join(map(str, found))})" if found else "no converted data"
        raise UserError(
            f"There is {state} at {path}: expected one folder with dataset_info.json.\n"
            f"Convert VSPW with: {convert_command(path)}\n"
            "or point to converted data with: --config.data.records=DIR"
        )
    return found[0]


def exist(path: pathlib.Path | str) -> bool:
    """Whether converted data is at `path`."""
    try:
        return bool(find(path))
    except BucketError:
        raise
    except UserError:
        return False


def split_videos(index: Sequence[tuple[str, int]], kept_N: Bool[np.ndarray, " N"] | None = None) -> tuple[Video, ...]:
    """Videos from the metadata's [[name, count], ...]; with `kept_N` the runs of kept frames alone."""
    starts = np.cumsum([0] + [count for _, count in index]).tolist()
    if kept_N is None:
        return tuple(Video(name, start, count) for (name, count), start in zip(index, starts, strict=False))
    videos = []
    for (name, count), start in zip(index, starts, strict=False):
        # Where frames within a video are left out, each run between them becomes a Video, so that no clip has a gap.
        edges = np.flatnonzero(np.diff(np.concatenate([[False], kept_N[start : start + count], [False]])))
        videos += [Video(name, start + int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return tuple(videos)


class Frames:
    """Random access to the records of a split; labels are train ids.

    Attributes:
      videos: frames that the filter leaves out are in none of them.
      max_classes: the most classes that one frame of `videos` holds.
      has_masks: whether any frame has a mask; one of void alone holds no class.
      pixels_K: how many pixels of each train id the frames of `videos` hold together.
      highest_class: the highest train id in `videos`, -1 if they hold none.
      dataset, numbering: which data set this is, and how its masks number their classes.
      classes: those that the train ids count: the data set's own, or VSPW's, to which those of some sets map.
      lookup: train ids (256,) by source value.
      fingerprint: SHA-256 of the split's content, in hex; of what its masks mean too, where its classes are its own.
      kept: how many frames pass the filter, by each denominator.
      labelled_N: which records keep their labels; None where none is withheld.
      predicted: what the records say of labels of this split that are predictions; empty where none is.
    """

    labelled_N: Bool[np.ndarray, " N"] | None = None

    def __init__(
        self,
        path: pathlib.Path | str,
        split: str,
        fits: Sequence[str] = label_maps.FITS,
        min_mapped: float = 0.0,
        denominator: str = "all",
        own_classes: bool = False,
    ) -> None:
        """Opens a split.

        Args:
          path: converted data.
          fits: those of `label_maps.FITS` that count.
          min_mapped: frames with a smaller share of their pixels mapped to classes are left out (0.8 in
            arXiv 2306.03508, section 2.2).
          denominator: the share is of "all" pixels or of the "labelled" ones.
          own_classes: whether labels that could be mapped to VSPW's stay those of their data set.

        Raises:
          UserError: no such data, split or fit; damaged shards; a filter that keeps nothing.
        """
        self.path, self.split = find(path), split
        metadata = read_metadata(self.path)
        builder = tfds.builder_from_directory(self.path)
        if split not in builder.info.splits:
            raise UserError(f"{self.path} has no split {split!r}; it has {', '.join(sorted(builder.info.splits))}.")
        fetched.bring(self.path, builder.info.splits[split].filenames)
        self.dataset, self.numbering = metadata["dataset"], metadata["numbering"]
        _check_shards(self.path, builder.info.splits[split], self.dataset)
        self._labels = labels_of(metadata, own_classes)
        self.predicted: dict[str, Any] = metadata.get(PSEUDO_LABELS, {}).get(split, {})
        self.fingerprint = metadata["fingerprint"][split]
        if self._labels.numbering == label_maps.OWN:  # The same masks may be converted with another list of classes.
            meaning = json.dumps(label_maps.to_metadata(self._labels))
            self.fingerprint = hashlib.sha256((self.fingerprint + meaning).encode()).hexdigest()
        self.classes, self.lookup = self._labels.classes, self._labels.lookup(fits)
        self._num_records = builder.info.splits[split].num_examples
        self._choose(metadata["videos"][split], min_mapped, denominator)

    def _choose(self, index: Sequence[tuple[str, int]], min_mapped: float, denominator: str) -> None:
        pixels_N256 = class_pixels.load(self.path, self.split, self._num_records)
        labelled = self._labels.labelled
        self.kept = class_pixels.count_kept(pixels_N256, self.lookup, labelled, min_mapped)
        if min_mapped:
            kept_N = class_pixels.mapped_share(pixels_N256, self.lookup, labelled, denominator) >= min_mapped
            if not kept_N.any():
                raise UserError(f"The filter leaves nothing of {self.path} ({self.split}): {self.kept}.")
            self.videos = split_videos(index, kept_N)
            pixels_N256 = pixels_N256[np.flatnonzero(kept_N)]
        else:
            self.videos = split_videos(index)
        self._count(pixels_N256)

    def _count(self, pixels_N256: scipy.sparse.csr_array) -> None:
        self.has_masks = pixels_N256.nnz > 0
        self.pixels_K = class_pixels.of_classes(pixels_N256, self.lookup)
        self.max_classes = class_pixels.most_classes(pixels_N256, self.lookup)
        self.highest_class = class_pixels.highest_class(pixels_N256, self.lookup)

    @property
    def note(self) -> str:
        """In words, what is unusual about the labels: whether some are withheld, or are predictions. Mostly empty."""
        said = []
        if self.labelled_N is not None:
            said.append(f"the labels of {self.labelled_N.sum()} of {len(self)} frames")
        if self.predicted:
            said.append(predictions_note(self.predicted, len(self)))
        return "; ".join(said)

    def check_truth(self) -> None:
        """Raises UserError where labels are predictions: nothing may be scored against them."""
        if self.predicted:
            raise UserError(
                f"{self.note}, in split {self.split!r} of {self.path}: expected labels to score against. Name the "
                "records that these were made from, or another split."
            )

    def has_mask_N(self) -> Bool[np.ndarray, " N"]:
        """Which records have a mask, withheld or not."""
        return np.diff(class_pixels.load(self.path, self.split, self._num_records).indptr) > 0

    def with_labels_of(self, labelled_N: Bool[np.ndarray, " N"]) -> "Frames":
        """The same without the masks of all other records. Nothing that it says or gives depends on these."""
        kept = copy.copy(self)
        kept.labelled_N = labelled_N
        pixels_N256 = class_pixels.load(self.path, self.split, self._num_records)[np.flatnonzero(labelled_N)]
        kept._count(pixels_N256)
        kept.kept = class_pixels.count_kept(pixels_N256, self.lookup, self._labels.labelled, 0.0)
        return kept

    @functools.cached_property
    def _source(self) -> Sequence[dict[str, bytes]]:
        return tfds.builder_from_directory(self.path).as_data_source(self.split)

    def __getstate__(self) -> dict[str, Any]:
        """What worker processes get: they open the shards themselves."""
        return {name: value for name, value in self.__dict__.items() if name != "_source"}

    def __len__(self) -> int:
        """The number of all records that `[number]` gives; the frames that count are those of `videos`."""
        return self._num_records

    def __getitem__(self, number: int) -> Record:
        """The record of that number."""
        try:
            found = self._source[number]
        except RuntimeError as error:
            raise UserError(
                f"Record {number} of split {self.split!r} in {self.path} is damaged: {str(error).splitlines()[0]}\n"
                f"Delete the folder and {convert_again(self.path, self.dataset)}"
            ) from error
        video, frame = found["video"].decode(), found["frame"].decode()
        is_withheld = self.labelled_N is not None and not self.labelled_N[number]
        mask = b"" if is_withheld else found["mask_png"]
        return Record(video=video, frame=frame, image_jpeg=found["image_jpeg"], mask_png=mask)

    def named_images(self, video: Video) -> Iterator[tuple[str, UInt8[np.ndarray, "H W 3"]]]:
        """Yields the names and pixels of a video's frames."""
        for number in range(video.start, video.start + video.count):
            record = self[number]
            yield record["frame"], decode_image(record["image_jpeg"])

    def label(self, record: Record) -> UInt8[np.ndarray, "H W"]:
        """The train ids of a record; all void where it has no mask."""
        with self._naming(record):
            if record["mask_png"]:
                return decode_mask(record["mask_png"], self.lookup)
            return np.full(pictures.size(record["image_jpeg"])[::-1], vspw.VOID, np.uint8)

    def image(self, record: Record, label_HW: UInt8[np.ndarray, "H W"], shrink: int = 1) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of a record, whose label must be of the same size; see `decode_image`."""
        with self._naming(record):
            image = decode_image(record["image_jpeg"], shrink)
            if image.shape[:2] != tuple(-(-side // shrink) for side in label_HW.shape):
                height, width = decode_image(record["image_jpeg"]).shape[:2]
                raise UserError(
                    f"the mask is {label_HW.shape[1]}x{label_HW.shape[0]} pixels, its frame {width}x{height}"
                )
        return image

    @contextlib.contextmanager
    def _naming(self, record: Record) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            raise UserError(
                f"Frame {record['frame']} of video {record['video']} in {self.path} cannot be read: {error}\n"
                f"Mend the source, delete this folder and {convert_again(self.path, self.dataset)}"
            ) from error

    def image_and_label(self, number: int) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
        """The frame's pixels and train ids; all void where it has no mask."""
        record = self[number]
        label = self.label(record)
        return self.image(record, label), label


def labels_of(metadata: Mapping[str, Any], own_classes: bool = False) -> label_maps.LabelMap:
    """What the masks of records mean, by their metadata; see `Frames`."""
    stated = label_maps.from_metadata(metadata)
    return label_maps.to_own_classes(stated) if own_classes else stated


def _check_shards(path: pathlib.Path, split: tfds.core.SplitInfo, dataset: str) -> None:
    """Raises UserError where a shard is missing, truncated, or holds another number of records than it should."""
    problems = []
    for filename, expected in zip(sorted(split.filenames), split.shard_lengths, strict=True):
        try:
            reader = array_record_module.ArrayRecordReader(str(path / filename))
            found = f"{reader.num_records()} records"
            reader.close()
        except Exception as error:
            found = "no such file" if not (path / filename).exists() else f"unreadable ({str(error).splitlines()[0]})"
        if found != f"{expected} records":
            problems.append(f"  {filename}: expected {expected} records, found {found}")
    if problems:
        raise UserError(
            f"Damaged shards in {path}:\n" + "\n".join(problems) + "\n"
            f"Delete the folder and {convert_again(path, dataset)}"
        )


def read_metadata(path: pathlib.Path | str) -> dict[str, Any]:
    """The metadata that the converter left: METADATA_KEYS; all but dataset and numbering are dicts by split.

    Raises:
      UserError: no converted data, or of an older layout.
    """
    folder = find(path)
    metadata = json.loads((folder / "metadata.json").read_text())
    missing = [key for key in METADATA_KEYS if key not in metadata]
    if missing:
        raise UserError(
            f"{folder}/metadata.json lacks {', '.join(missing)}: an older version wrote these records. "
            f"Delete the folder and {convert_again(path, metadata.get('dataset', 'vspw'))}"
        )
    return metadata
