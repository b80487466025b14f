"""Work units of a conversion: one ArrayRecord shard each.

A unit depends on nothing but its frames' files and the form of the records. So any worker may do it, in any order,
twice or again after a kill, and the bytes are the same. A worker writes the shard under another name and renames it,
then writes a result beside it: names, digests and pixel counts of the records, and the frames left out. A shard is
whole, and not done again, if its result is there and has the unit's key and the shard's size.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from array_record.python import array_record_module
from tensorflow_datasets.core import example_serializer

from data_prep.conversion import frames
from data_prep.conversion.frames import Form, Frame
from vspw_jax.classes import label_maps
from vspw_jax.console.errors import UserError, no_room
from vspw_jax.data import class_pixels, records
from vspw_jax.files import frame_names
from vspw_jax.files.sources import Source
from vspw_jax.files.whole_files import whole_file

SHARD_BYTES = 1 << 27
STOP = "stop"
"""A file that tells the other workers that the conversion has failed."""


@dataclasses.dataclass(frozen=True)
class Filter:
    """Which images to leave out at conversion; see `records.Frames`."""

    fits: tuple[str, ...] = label_maps.FITS
    min_mapped: float = 0.0
    denominator: str = "all"


@dataclasses.dataclass(frozen=True)
class Unit:
    """A shard to write.

    Attributes:
      shard: its file name.
      split: name of the split.
      frames: those of the shard, in order.
      before: the first frame of the video that an earlier shard begins and this one goes on with, or None.
      source: the source with these frames' files alone.
      form: of the records.
      filter: which images to leave out.
      max_bad: bad frames to leave out before giving up.
    """

    shard: str
    split: str
    frames: tuple[Frame, ...]
    before: Frame | None
    source: Source
    form: Form
    filter: Filter
    max_bad: int

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 (hex) of all that the shard depends on; of the files it takes their names and sizes."""
        parts: list[object] = [self.shard, self.form.identity(), dataclasses.astuple(self.filter)]
        sizes = self.source.sizes
        parts += [(*dataclasses.astuple(f), sizes.get(f.image), sizes.get(f.mask or "")) for f in self.frames]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Result:
    """What a unit left.

    Attributes:
      key: the unit's.
      size: bytes of the shard; None if the unit was given up.
      records: of each record [video, frame, SHA-256 of the JPEG, SHA-256 of the PNG, {source value: pixels}].
      bad: messages about bad frames.
      filtered: how many frames the filter left out.
      failure: why the unit was given up, if not for bad frames.
      no_room: whether a full disk was why.
    """

    key: str
    size: int | None = None
    records: list[list[Any]] = dataclasses.field(default_factory=list)
    bad: list[str] = dataclasses.field(default_factory=list)
    filtered: int = 0
    failure: str = ""
    no_room: bool = False


def plan(
    name: str,
    splits: Mapping[str, Sequence[Frame]],
    source: Source,
    form: Form,
    chosen: Filter,
    max_bad: int,
    shard_bytes: int = SHARD_BYTES,
) -> list[Unit]:
    """The units of a conversion: every split's frames in order, cut into shards of nearly equal numbers of frames.

    Args:
      name: the data set's, in the shards' file names.
      splits: frames by split.
      chosen: images that it does not pass are left out.
      shard_bytes: about the size of a shard.

    Raises:
      UserError: a video's name cannot be that of a result.
    """
    units = []
    for split, members in splits.items():
        first_of = {frame.video: frame for frame in reversed(members)}
        for video in first_of:
            frame_names.check_video(video, source.path)
        total = sum(source.sizes.get(file, 0) for frame in members for file in (frame.image, frame.mask) if file)
        num_shards = min(-(-total // shard_bytes), len(members)) or 1
        cuts = [len(members) * number // num_shards for number in range(num_shards + 1)]
        for number, (first, last) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
            shard = f"{name}-{split}.array_record-{number:05d}-of-{num_shards:05d}"
            part = tuple(members[first:last])
            begun = [first_of[frame.video] for frame in part[:1] if first_of[frame.video] is not frame]
            files = [file for frame in part for file in (frame.image, frame.mask) if file]
            own = source.only([*files, *(frame.image for frame in begun)])
            units.append(Unit(shard, split, part, begun[0] if begun else None, own, form, chosen, max_bad))
    return units


def result_name(unit: Unit) -> str:
    """The file name of a unit's result."""
    return f"{unit.shard}.json"


def result(folder: pathlib.Path, unit: Unit) -> Result | None:
    """The `Result` of a unit, or None if it has not been done."""
    try:
        found = Result(**json.loads((folder / result_name(unit)).read_text()))
        whole = found.size is None or found.size == (folder / unit.shard).stat().st_size
        return found if found.key == unit.key and whole else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def convert(unit: Unit, folder: pathlib.Path, moved: Callable[[], object] = lambda: None) -> None:
    """Does a unit, unless another worker has failed.

    Args:
      unit: what to do.
      folder: all workers see it; the shard and its result are written into it.
      moved: called after every frame.
    """
    partial = folder / f"partial-{uuid.uuid4().hex}-{unit.shard}"
    try:
        done = _write_shard(unit, folder, partial, moved)
    except _Stopped:
        return
    except Exception as error:
        if not isinstance(error, UserError) and not no_room(error):
            raise
        done = Result(unit.key, failure=str(error), no_room=no_room(error))
    finally:
        partial.unlink(missing_ok=True)
    if done.size is None:
        (folder / STOP).touch()
    with whole_file(folder / result_name(unit)) as path:
        path.write_text(json.dumps(dataclasses.asdict(done)))


class _Stopped(Exception):
    """Another worker has given up."""


def _write_shard(unit: Unit, folder: pathlib.Path, partial: pathlib.Path, moved: Callable[[], object]) -> Result:
    """The unit's `Result`; if that has a size, the shard is written."""
    serializer = example_serializer.ExampleSerializer(records.features().get_serialized_info())
    kept, bad, filtered = [], [], 0
    sizes = _first_sizes(unit)
    # JPEG and PNG are compressed already; one record a chunk, so that reading one reads no other.
    writer = array_record_module.ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
    try:
        for frame in unit.frames:
            if (folder / STOP).exists():
                raise _Stopped
            try:
                content = frames.read_frame(unit.source, frame, unit.form)
                _check_size(frame, content.size, unit, sizes)
            except UserError as error:
                bad.append(str(error))
                if len(bad) > unit.max_bad:
                    return Result(unit.key, bad=bad)
                continue
            finally:
                moved()
            if not _passes(content.pixels, unit):
                filtered += 1
                continue
            record = {"video": frame.video, "frame": frame.name, "image_jpeg": content.image, "mask_png": content.mask}
            # Without `deterministic` the order of a message's map is free, and so are the shard's bytes.
            writer.write(serializer.get_tf_example(record).SerializeToString(deterministic=True))
            digests = [hashlib.sha256(data).hexdigest() for data in (content.image, content.mask)]
            kept.append([frame.video, frame.name, *digests, content.pixels])
    finally:
        writer.close()
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    size = partial.stat().st_size
    partial.replace(folder / unit.shard)
    return Result(unit.key, size, kept, bad, filtered)


Sizes = dict[str, tuple[str, tuple[int, int]]]
"""(name of the first labelled frame, its width and height) by video."""


def _first_sizes(unit: Unit) -> Sizes:
    """The sizes that are known before the unit's first frame is read."""
    sizes: Sizes = {}
    if unit.before:
        # If it is damaged, the unit that has it says so.
        with contextlib.suppress(UserError, OSError):
            _check_size(unit.before, frames.size_by_header(unit.source, unit.before, unit.form), unit, sizes)
    return sizes


def _check_size(frame: Frame, size: tuple[int, int], unit: Unit, sizes: Sizes) -> None:
    """Raises UserError where a labelled frame has another size than its video's first: the video has no VC then."""
    if frame.mask is None:
        return
    first, expected = sizes.setdefault(frame.video, (frame.name, size))
    if size != expected:
        found, wanted = ("x".join(map(str, pair)) for pair in (size, expected))
        raise UserError(
            f"{unit.source.where(frame.image)} (video {frame.video}): is {found} pixels, frame {first} of its video "
            f"{wanted}"
        )


def _passes(pixels: dict[int, int], unit: Unit) -> bool:
    if not unit.filter.min_mapped:
        return True
    labels, counts = unit.form.labels, class_pixels.from_counts([pixels])
    share = class_pixels.mapped_share(counts, labels.lookup(unit.filter.fits), labels.labelled, unit.filter.denominator)
    return share[0] >= unit.filter.min_mapped
