"""Work units of a conversion: one ArrayRecord shard each.

A unit depends on nothing but its frames' files and the form of the records, so any worker may do it, in any order,
twice or again after a kill, and leaves the same bytes. It writes the shard aside and renames it, then a result beside
it: names, digests and pixel counts of its records, and the frames left out. A shard whose result is there, with the
unit's key and the shard's size, is whole and not done again.
"""

import dataclasses
import functools
import hashlib
import json
import os
import uuid

from array_record.python import array_record_module
from tensorflow_datasets.core import example_serializer

from data_prep.conversion import frames
from vspw_jax.classes import label_maps
from vspw_jax.console.errors import UserError, no_room
from vspw_jax.data import class_pixels, records
from vspw_jax.files.whole_files import whole_file

SHARD_BYTES = 1 << 27
STOP = "stop"
"""A file that tells the other workers that the conversion has failed."""


@dataclasses.dataclass(frozen=True)
class Filter:
    """Which images to leave out at conversion; see `records.Frames`."""

    fits: tuple = label_maps.FITS
    min_mapped: float = 0.0
    denominator: str = "all"


@dataclasses.dataclass(frozen=True)
class Unit:
    """A shard to write.

    Attributes:
      shard: its file name.
      split: the split that it is of.
      frames: tuple of `frames.Frame`.
      source: the source with these frames' files.
      form: `frames.Form`.
      filter: `Filter`.
      max_bad: bad frames to leave out before giving up.
    """

    shard: str
    split: str
    frames: tuple
    source: object
    form: frames.Form
    filter: Filter
    max_bad: int

    @functools.cached_property
    def key(self):
        """SHA-256 (hex) of all that the shard depends on; of the files their names and sizes."""
        parts = [self.shard, dataclasses.astuple(self.form), dataclasses.astuple(self.filter)]
        sizes = self.source.sizes
        parts += [(*dataclasses.astuple(f), sizes.get(f.image), sizes.get(f.mask)) for f in self.frames]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Result:
    """What a unit left.

    Attributes:
      key: the unit's.
      size: bytes of the shard; None where it was given up.
      records: one [video, frame, SHA-256 of the JPEG, of the PNG, {source value: pixels}] a record.
      bad: messages about bad frames.
      filtered: how many frames the filter left out.
      failure: why the unit was given up for another reason.
      no_room: that reason was a full disk.
    """

    key: str
    size: int | None = None
    records: list = dataclasses.field(default_factory=list)
    bad: list = dataclasses.field(default_factory=list)
    filtered: int = 0
    failure: str = ""
    no_room: bool = False


def plan(name, splits, source, form, chosen, max_bad, shard_bytes=SHARD_BYTES):
    """The units of a conversion: every split's frames in order, cut into shards of about as many frames each.

    Args:
      name: the data set's, in the shards' file names.
      splits: {split: frames}.
      chosen: `Filter`.
    """
    units = []
    for split, members in splits.items():
        total = sum(source.sizes.get(file, 0) for frame in members for file in (frame.image, frame.mask) if file)
        num_shards = min(-(-total // shard_bytes), len(members)) or 1
        cuts = [len(members) * number // num_shards for number in range(num_shards + 1)]
        for number, (first, last) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
            shard = f"{name}-{split}.array_record-{number:05d}-of-{num_shards:05d}"
            part = tuple(members[first:last])
            own = source.only(file for frame in part for file in (frame.image, frame.mask) if file)
            units.append(Unit(shard, split, part, own, form, chosen, max_bad))
    return units


def result_name(unit):
    """The file name of a unit's result."""
    return f"{unit.shard}.json"


def result(folder, unit):
    """The `Result` of a unit, or None if it has not been done."""
    try:
        found = Result(**json.loads((folder / result_name(unit)).read_text()))
        whole = found.size is None or found.size == (folder / unit.shard).stat().st_size
        return found if found.key == unit.key and whole else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def convert(unit, folder, moved=lambda: None):
    """Does a unit, unless another worker has failed.

    Args:
      unit: `Unit`.
      folder: `pathlib.Path` that all workers see; gets the shard and its result.
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


def _write_shard(unit, folder, partial, moved):
    """The unit's `Result`; the shard is there where it has a size."""
    serializer = example_serializer.ExampleSerializer(records.features().get_serialized_info())
    kept, bad, filtered = [], [], 0
    # JPEG and PNG are compressed already; one record a chunk, so that reading one reads no other.
    writer = array_record_module.ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
    try:
        for frame in unit.frames:
            if (folder / STOP).exists():
                raise _Stopped
            try:
                jpeg, png, pixels = frames.read_frame(unit.source, frame, unit.form)
            except UserError as error:
                bad.append(str(error))
                if len(bad) > unit.max_bad:
                    return Result(unit.key, bad=bad)
                continue
            finally:
                moved()
            if not _passes(pixels, unit):
                filtered += 1
                continue
            record = {"video": frame.video, "frame": frame.name, "image_jpeg": jpeg, "mask_png": png}
            # The order of a message's map is free otherwise, and the shard's bytes with it.
            writer.write(serializer.get_tf_example(record).SerializeToString(deterministic=True))
            digests = [hashlib.sha256(data).hexdigest() for data in (jpeg, png)]
            kept.append([frame.video, frame.name, *digests, pixels])
    finally:
        writer.close()
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    size = partial.stat().st_size
    partial.replace(folder / unit.shard)
    return Result(unit.key, size, kept, bad, filtered)


def _passes(pixels, unit):
    if not unit.filter.min_mapped:
        return True
    names = (unit.form.dataset, unit.form.numbering)
    lookup, labelled = label_maps.lookup(*names, unit.filter.fits), label_maps.labelled(*names)
    share = class_pixels.mapped_share(class_pixels.from_counts([pixels]), lookup, labelled, unit.filter.denominator)
    return share[0] >= unit.filter.min_mapped
