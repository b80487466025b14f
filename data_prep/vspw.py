"""Converts VSPW, or any data in its layout, to ArrayRecord shards.

    python -m data_prep.vspw --source=VSPW_480p --output=data/vspw/records

The source holds {train,val,test}.txt (one video name a line) and data/<video>/{origin/*.jpg,mask/*.png}; videos of a
test split need no masks. Files whose names start with a dot are passed over. JPEG and PNG bytes are kept as they are.
A frame without its mask, a mask without its frame, an empty or cut-off file, a mask in colours or of another size than
its frame stops the conversion; with --max-bad=N up to N of them are left out and listed.
"""

import argparse
import contextlib
import hashlib
import io
import pathlib
import shutil

import tensorflow_datasets as tfds
from PIL import Image

from vspw_jax.data import class_pixels, label_maps, records
from vspw_jax.errors import UserError, run_program
from vspw_jax.progress import progress

SPLITS = ("train", "val", "test")
"""Whether a split's videos must have masks: all but test."""


def read_splits(source):
    """Video names by split, from the lists that are there."""
    lists = {split: source / f"{split}.txt" for split in SPLITS}
    splits = {split: path.read_text().split() for split, path in lists.items() if path.is_file()}
    if not splits:
        found = sorted(path.name for path in source.iterdir())[:8] if source.is_dir() else "no such folder"
        raise UserError(
            f"{source} does not look like VSPW: expected at least one of {', '.join(f'{s}.txt' for s in SPLITS)} and "
            f"data/<video>/origin/*.jpg, found {found}."
        )
    return splits


def _files(folder, suffix):
    return {path.stem: path for path in folder.glob(f"*{suffix}") if not path.name.startswith(".")}


def list_frames(source, video, needs_masks):
    """Frames of a video in order, as (name, image path, mask path or None); the paths may not exist."""
    folder = source / "data" / video
    images, masks = _files(folder / "origin", ".jpg"), _files(folder / "mask", ".png")
    if not images:
        raise UserError(f"Video {video} has no frames: expected {folder}/origin/*.jpg.")
    names = sorted(images.keys() | masks.keys())
    labelled = needs_masks or masks
    return [
        (
            name,
            images.get(name, folder / "origin" / f"{name}.jpg"),
            folder / "mask" / f"{name}.png" if labelled else None,
        )
        for name in names
    ]


def _read(path):
    if not path.is_file():
        raise UserError("is missing")
    data = path.read_bytes()
    if not data:
        raise UserError("is empty")
    return data


def read_frame(image_path, mask_path):
    """(JPEG bytes, PNG bytes, pixels by source value), checked.

    Raises:
      UserError: naming the file and what is wrong with it.
    """
    path = image_path
    try:
        jpeg = _read(image_path)
        size = Image.open(io.BytesIO(jpeg)).size
        if not jpeg.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise UserError("is cut off: a JPEG ends with the bytes ff d9")
        if mask_path is None:
            return jpeg, b"", {}
        path = mask_path
        png = _read(mask_path)
        values = records.mask_values(png)
        if values.shape != size[::-1]:
            raise UserError(f"is {values.shape[1]}x{values.shape[0]} pixels, its frame {size[0]}x{size[1]}")
        return jpeg, png, class_pixels.count(values)
    except (UserError, OSError, SyntaxError) as error:
        raise UserError(f"{path}: {error}") from error


class Vspw(tfds.core.GeneratorBasedBuilder):
    """VSPW in its own layout; see the module."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, source, max_bad=0, **options):
        self.source, self.max_bad, self.bad, self.pixels = pathlib.Path(source), max_bad, [], {}
        super().__init__(file_format="array_record", **options)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=records.features(),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                dataset="vspw", numbering="raw_1_124", videos={}, max_classes={}, fingerprint={}
            ),
        )

    def _split_generators(self, _):
        return {split: self._generate_examples(split, videos) for split, videos in read_splits(self.source).items()}

    def _generate_examples(self, split, videos):
        index, counts, digests, number = [], [], [], 0
        for video in progress(videos, f"converting {split}", "video"):
            first = number
            for name, image_path, mask_path in list_frames(self.source, video, needs_masks=split != "test"):
                try:
                    jpeg, png, pixels = read_frame(image_path, mask_path)
                except UserError as error:
                    self._reject(error)
                    continue
                yield number, {"video": video, "frame": name, "image_jpeg": jpeg, "mask_png": png}
                number += 1
                counts.append(pixels)
                digests.append((video, name, *(hashlib.sha256(data).hexdigest() for data in (jpeg, png))))
            index.append([video, number - first])
        self.info.metadata["videos"][split] = [entry for entry in index if entry[1]]
        self.info.metadata["max_classes"][split] = class_pixels.most_classes(
            class_pixels.from_counts(counts), label_maps.lookup("vspw", "raw_1_124")
        )
        self.info.metadata["fingerprint"][split] = records.fingerprint(digests)
        self.pixels[split] = class_pixels.from_counts(counts)

    def _reject(self, error):
        self.bad.append(str(error))
        if len(self.bad) > self.max_bad:
            listed = "\n".join(f"  {line}" for line in self.bad)
            raise UserError(
                f"{len(self.bad)} bad frames, {self.max_bad} allowed:\n{listed}\n"
                "Mend them, or leave bad frames out with --max-bad=N."
            ) from error


def _check_room(source, splits, output):
    """Raises UserError where the disk has no room for what the records will hold."""
    folders = [source / "data" / video for videos in splits.values() for video in videos]
    needed = sum(path.stat().st_size for folder in folders for path in folder.glob("*/*"))
    free = shutil.disk_usage(output).free
    if needed * 1.05 > free:
        raise UserError(
            f"No room at {output}: the records need {needed / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free. "
            "Free some space or choose another --output."
        )


def _already_converted(splits, output):
    """Whether `output` holds these videos; raises UserError where it holds others."""
    if not records.exist(output):
        return False
    index = records.read_metadata(output)["videos"]
    converted = {split: {name for name, _ in videos} for split, videos in index.items()}
    if (
        any(not converted.get(split, set()) <= set(videos) for split, videos in splits.items())
        or converted.keys() - splits
    ):
        raise UserError(f"{output} holds other videos than the source. Choose another --output, or delete that folder.")
    return True


def convert(source, output, max_bad=0):
    """Converts a VSPW folder, unless `output` holds it already.

    Args:
      source: folder with the split lists and data/.
      output: where the records go; written aside and renamed when whole.
      max_bad: how many bad frames may be left out.

    Returns:
      The messages about frames left out.

    Raises:
      UserError: no such layout, bad frames beyond max_bad, no room, or other data at `output`.
    """
    source, output = pathlib.Path(source), pathlib.Path(output)
    splits = read_splits(source)
    if _already_converted(splits, output):
        return []
    output.mkdir(parents=True, exist_ok=True)
    for leftover in output.glob(f"*/{records.INCOMPLETE_PREFIX}*"):
        shutil.rmtree(leftover)
    _check_room(source, splits, output)
    builder = Vspw(source=source, max_bad=max_bad, data_dir=output)
    tfds.disable_progress_bar()
    # TFDS prints that it is "downloading"; nothing is, and the progress above it says what goes on.
    with contextlib.redirect_stdout(None):
        builder.download_and_prepare()
    for split, pixels in builder.pixels.items():
        class_pixels.save(records.find(output) / class_pixels.file_name(split), pixels)
    return builder.bad


def main(argv=None):
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.vspw", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", required=True, help="folder in VSPW's layout")
    parser.add_argument("--output", required=True, help="folder for the records; give it to --config.data.records")
    parser.add_argument("--max-bad", type=int, default=0, help="bad frames to leave out before giving up (default 0)")
    options = parser.parse_args(argv)
    bad = convert(options.source, options.output, options.max_bad)
    for message in bad:
        print(f"left out: {message}")
    for split, videos in records.read_metadata(options.output)["videos"].items():
        print(f"{split}: {len(videos)} videos, {sum(count for _, count in videos)} frames")
    print(f"records: {records.find(options.output)}")


if __name__ == "__main__":
    run_program(main)
