"""The record schema, and random access to converted frames.

One record a frame, in video order: the JPEG and PNG files byte for byte, as the dataset ships them. TFDS holds them in
ArrayRecord shards; its metadata holds the index from video to records. `data_prep/` writes what this module reads.
"""

import dataclasses
import functools
import io
import json
import pathlib

import cv2
import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image

from vspw_jax import classes
from vspw_jax.errors import UserError

INCOMPLETE_PREFIX = "incomplete."
"""How TFDS names the folder that it writes into; it is renamed when whole."""

CONVERT_COMMAND = "python -m data_prep.vspw --source=VSPW_DIR --output={records}"


def features():
    """Fields of a record: names of video and frame, the frame's JPEG, its mask's PNG (empty where there is none)."""
    return tfds.features.FeaturesDict(
        {
            "video": tfds.features.Text(),
            "frame": tfds.features.Text(),
            "image_jpeg": tfds.features.Tensor(shape=(), dtype=np.object_),
            "mask_png": tfds.features.Tensor(shape=(), dtype=np.object_),
        }
    )


@dataclasses.dataclass(frozen=True)
class Video:
    """A video's records: `count` of them from `start`, in frame order."""

    name: str
    start: int
    count: int


def decode_image(jpeg):
    """A JPEG's pixels, (H, W, 3) uint8 RGB."""
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise UserError(f"A JPEG of {len(jpeg)} bytes cannot be decoded; check its source file.")
    return image


def decode_mask(png):
    """A mask's train ids, (H, W) uint8, void 255. A palette image is read by its indices, never by its colours.

    Raises:
      UserError: the image has colours instead of ids.
    """
    mask = Image.open(io.BytesIO(png))
    if mask.mode not in ("L", "P"):
        channels = np.asarray(mask.convert("RGB"))
        if (channels != channels[..., :1]).any():
            raise UserError(f"a mask of mode {mask.mode} holds colours; expected one channel of ids (mode L or P)")
        return classes.from_raw(channels[..., 0])
    return classes.from_raw(np.asarray(mask))


def find(path):
    """The folder with dataset_info.json: `path` itself or the only one some levels below it."""
    path = pathlib.Path(path)
    infos = [info for pattern in ("", "*/", "*/*/") for info in path.glob(f"{pattern}dataset_info.json")]
    found = sorted(info.parent for info in infos if not info.parent.name.startswith(INCOMPLETE_PREFIX))
    if len(found) != 1:
        state = f"{len(found)} converted data sets ({', '.join(map(str, found))})" if found else "no converted data"
        raise UserError(
            f"There is {state} at {path}: expected one folder with dataset_info.json.\n"
            f"Convert VSPW with: {CONVERT_COMMAND.format(records=path)}\n"
            "or point to converted data with: --config.data.records=DIR"
        )
    return found[0]


def exist(path):
    """Whether converted data is at `path`."""
    try:
        return bool(find(path))
    except UserError:
        return False


class Frames:
    """Random access to the records of a split.

    Attributes:
      videos: tuple of `Video`.
      max_classes: the most classes that one frame of the split holds.
    """

    def __init__(self, path, split):
        self.path, self.split = find(path), split
        builder = tfds.builder_from_directory(self.path)
        if split not in builder.info.splits:
            raise UserError(f"{self.path} has no split {split!r}; it has {', '.join(sorted(builder.info.splits))}.")
        _check_shards(self.path, builder.info.splits[split])
        counts = builder.info.metadata["videos"][split]
        starts = np.cumsum([0] + [count for _, count in counts]).tolist()
        self.videos = tuple(Video(name, start, count) for (name, count), start in zip(counts, starts, strict=False))
        self.max_classes = builder.info.metadata["max_classes"][split]

    @functools.cached_property
    def _source(self):
        return tfds.builder_from_directory(self.path).as_data_source(self.split)

    def __getstate__(self):
        """What worker processes get: they open the shards themselves."""
        return {name: value for name, value in self.__dict__.items() if name != "_source"}

    def __len__(self):
        return sum(video.count for video in self.videos)

    def __getitem__(self, number):
        """A record as a dict: video and frame are str, image_jpeg and mask_png bytes."""
        try:
            record = self._source[number]
        except RuntimeError as error:
            raise UserError(
                f"Record {number} of split {self.split!r} in {self.path} is damaged: {str(error).splitlines()[0]}\n"
                f"Delete the folder and convert again: {CONVERT_COMMAND.format(records=self.path)}"
            ) from error
        return {name: value.decode() if name in ("video", "frame") else value for name, value in record.items()}

    def named_images(self, video):
        """Yields (frame name, (H, W, 3) uint8) of a video."""
        for number in range(video.start, video.start + video.count):
            record = self[number]
            yield record["frame"], decode_image(record["image_jpeg"])

    def image_and_label(self, number):
        """The frame's pixels (H, W, 3) uint8 and train ids (H, W) uint8; all void where it has no mask."""
        record = self[number]
        image, mask = decode_image(record["image_jpeg"]), record["mask_png"]
        label = decode_mask(mask) if mask else np.full(image.shape[:2], classes.VOID, np.uint8)
        if label.shape != image.shape[:2]:
            raise UserError(
                f"Frame {record['frame']} of video {record['video']} in {self.path}: the mask is {label.shape[1]}x"
                f"{label.shape[0]} pixels, its frame {image.shape[1]}x{image.shape[0]}. Mend the source, delete this "
                f"folder and convert again: {CONVERT_COMMAND.format(records=self.path)}"
            )
        return image, label


def _check_shards(path, split):
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
            f"Delete the folder and convert again: {CONVERT_COMMAND.format(records=path)}"
        )


def read_metadata(path):
    """The metadata that the converter left: `videos` and `max_classes` by split."""
    return json.loads((find(path) / "metadata.json").read_text())
