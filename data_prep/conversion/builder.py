"""Converts a data set: a TFDS builder whose shards are written by work units, in this process or on Beam's workers.

TFDS's own Beam writer was tried, with file_format="array_record" and without TensorFlow (TFDS 4.9.10, Beam 2.77).
With integers as keys it keeps the order of records. But it cannot restart (a failed conversion's folder is deleted),
the bytes of its shards change with the number of workers, and it takes every record through a GroupByKey, which
DirectRunner holds in memory. So a shard here is a unit of work of its own (`units.py`). Beam hands the units to
workers, and TFDS describes the shards, so that `tfds.builder_from_directory` reads them.

While a conversion is under way, its shards are in <output>/<data set>/incomplete.<version>. That folder is renamed to
the version when all is whole. The same command goes on where it was stopped; while it runs, another one to the same
place waits. Workers of other machines must see --source and --output under the same paths, on a file system that all
of them mount.
"""

import contextlib
import errno
import hashlib
import itertools
import logging
import os
import pathlib
import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder, naming
from tqdm import tqdm

from data_prep.conversion import runners, units
from data_prep.conversion.frames import Form, Frame
from data_prep.conversion.units import Result, Unit
from vspw_jax.buckets import mirrors
from vspw_jax.classes import label_maps
from vspw_jax.console.errors import UserError, counted
from vspw_jax.console.progress import progress
from vspw_jax.data import class_pixels, records
from vspw_jax.files import ownership
from vspw_jax.files.sources import Source

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions  # Its import takes two seconds.

Results = dict[str, Result | None]
"""By the shard's name; None where the unit has not been done."""


class Builder(dataset_builder.FileReaderBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS has no types.
    """A TFDS builder over the frames of a source; subclasses name the data set.

    Attributes:
      bad: messages about frames left out.
      filtered: how many images the filter left out at conversion.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        splits: Mapping[str, Sequence[Frame]],
        source: Source,
        form: Form,
        chosen: units.Filter | None = None,
        max_bad: int = 0,
        shard_bytes: int = units.SHARD_BYTES,
        **options: Any,
    ) -> None:
        """A builder.

        Args:
          splits: frames by split, in order.
          source: has the frames' files.
          form: of the records.
          chosen: images that it does not pass are left out; None keeps all.
          max_bad: bad frames to leave out before giving up.
          shard_bytes: about the size of a shard.
          options: of TFDS's builders.
        """
        self.splits, self.source, self.form, self.max_bad = splits, source, form, max_bad
        self.chosen, self.shard_bytes = chosen or units.Filter(), shard_bytes
        self.bad: list[str] = []
        self.filtered = 0
        super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=records.features(),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                **label_maps.to_metadata(self.form.labels), videos={}, max_classes={}, fingerprint={}
            ),
        )

    def download_and_prepare(
        self,
        *,
        download_dir: object = None,
        download_config: tfds.download.DownloadConfig | None = None,
        file_format: object = None,
    ) -> None:
        """Does the units that have not been done. When all are done, it gives the folder its name.

        If the folder has its name already, nothing is done.

        Args:
          download_config: if it has `beam_options`, the units go to Beam's workers.
          download_dir, file_format: TFDS passes them; they are not used.

        Raises:
          UserError: bad frames beyond max_bad, no room, other data at the output.
        """
        planned = units.plan(
            self.name, self.splits, self.source, self.form, self.chosen, self.max_bad, self.shard_bytes
        )
        digest = hashlib.sha256("".join(unit.key for unit in planned).encode()).hexdigest()
        final = pathlib.Path(self.data_dir).absolute()
        if final.exists():
            _check_same(final, digest)
            _forget_results(planned, final)
            return
        with _alone(final.parent) as held:
            if final.exists():  # Another program has made it meanwhile.
                _check_same(final, digest)
                return
            folder = self._made(planned, final, digest, getattr(download_config, "beam_options", None))
            if held:
                held.check()
            folder.rename(final)
            _forget_results(planned, final)

    def _made(
        self, planned: Sequence[Unit], final: pathlib.Path, digest: str, beam_options: "PipelineOptions | None"
    ) -> pathlib.Path:
        """The whole folder, under the name that it has while it is made; this program alone makes it."""
        folder = final.with_name(records.INCOMPLETE_PREFIX + final.name)
        _tidy(folder, planned)
        results = {unit.shard: _earlier_result(unit, folder) for unit in planned}
        self._check(results)
        if not self.form.short_side:
            check_room([unit for unit in planned if not results[unit.shard]], folder)
        self._download_and_prepare(planned, results, folder, beam_options)
        _tidy(folder, planned)  # A worker that was killed leaves what it was writing.
        self._describe(planned, results, folder, digest)
        return folder

    def _download_and_prepare(
        self,
        planned: Sequence[Unit],
        results: Results,
        folder: pathlib.Path,
        beam_options: "PipelineOptions | None",
    ) -> None:
        """Does the units without a result, and enters their results."""
        waiting = [unit for unit in planned if not results[unit.shard]]
        total = sum(len(unit.frames) for unit in planned)
        done = total - sum(len(unit.frames) for unit in waiting)
        with progress(None, f"converting {self.name}", "frame", total, initial=done) as bar:
            if beam_options is not None:
                with _following(waiting, folder, bar):
                    _run_on_beam(waiting, folder, beam_options)
                results.update({unit.shard: units.result(folder, unit) for unit in waiting})
                self._check(results)
                return
            for unit in waiting:
                units.convert(unit, folder, bar.update)
                results[unit.shard] = units.result(folder, unit)
                self._check(results)

    def _check(self, results: Results) -> None:
        """Raises an error where a unit failed, or where all units together have too many bad frames."""
        done = [result for result in results.values() if result]
        for result in done:
            if result.no_room:
                raise OSError(errno.ENOSPC, result.failure)
            if result.failure:
                raise UserError(result.failure)
        self.bad = [message for result in done for message in result.bad]
        self.filtered = sum(result.filtered for result in done)
        if len(self.bad) > self.max_bad:
            listed = "\n".join(f"  {line}" for line in self.bad)
            raise UserError(
                f"{counted(len(self.bad), 'bad frame')}, {self.max_bad} allowed:\n{listed}\n"
                "Mend them, or leave bad frames out with --max-bad=N; the same command goes on from here."
            )

    def _describe(self, planned: Sequence[Unit], results: Results, folder: pathlib.Path, digest: str) -> None:
        """Writes all that TFDS and `records` need to read the shards."""
        written = {shard: result for shard, result in results.items() if result}
        missing = [shard for shard in results if shard not in written]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(results)} shards were not written, for example {missing[0]}. See what Beam's "
                f"runner reported, and whether its workers see {folder}. The same command goes on from here."
            )
        lookup = self.form.labels.lookup(self.chosen.fits)
        metadata, infos = self.info.metadata, []
        for split in self.splits:
            done = [written[unit.shard] for unit in planned if unit.split == split]
            entries = [entry for result in done for entry in result.records]
            if not entries:
                raise UserError(f"Nothing of split {split} is left: the filter left out {self.filtered} images.")
            videos = [[video, len(list(group))] for video, group in itertools.groupby(entry[0] for entry in entries)]
            pixels_N256 = class_pixels.from_counts([entry[4] for entry in entries])
            class_pixels.save(folder / class_pixels.file_name(split), pixels_N256)
            metadata["videos"][split] = videos
            metadata["max_classes"][split] = class_pixels.most_classes(pixels_N256, lookup)
            metadata["fingerprint"][split] = records.fingerprint(entry[:4] for entry in entries)
            template = naming.ShardedFileTemplate(
                data_dir=folder, dataset_name=self.name, split=split, filetype_suffix="array_record"
            )
            lengths = [len(result.records) for result in done]
            infos.append(tfds.core.SplitInfo(split, lengths, sum(result.size or 0 for result in done), template))
        metadata["conversion"] = digest
        self.info.set_splits(tfds.core.SplitDict(infos))
        self.info.write_to_directory(folder)


def _alone(folder: pathlib.Path) -> contextlib.AbstractContextManager[Any]:
    """Within the block no other program makes records there; one that does is waited for."""
    if mirrors.of(folder):  # Which is this program's already, see buckets/cache.py.
        return contextlib.nullcontext()
    return ownership.owned(folder, "--output=DIR", waits=True)


def _check_same(final: pathlib.Path, digest: str) -> None:
    if records.read_metadata(final).get("conversion") != digest:
        raise UserError(
            f"{final} holds records of another source, or made with other options. "
            "Choose another --output, or delete that folder."
        )


def _forget_results(planned: Iterable[Unit], final: pathlib.Path) -> None:
    for unit in planned:
        (final / units.result_name(unit)).unlink(missing_ok=True)


def _tidy(folder: pathlib.Path, planned: Iterable[Unit]) -> None:
    """Deletes what earlier conversions left, but for what this one can use: shards of its plan, and their results."""
    for other in folder.parent.glob(f"{records.INCOMPLETE_PREFIX}*"):
        if other != folder:
            shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True)
    known = {name for unit in planned for name in (unit.shard, units.result_name(unit))}
    for path in folder.iterdir():
        if path.name not in known:
            path.unlink(missing_ok=True)


def _earlier_result(unit: Unit, folder: pathlib.Path) -> Result | None:
    """The result of a unit that was done before. A failed unit's result is deleted, so that the unit is tried again."""
    result = units.result(folder, unit)
    if result is not None and result.size is not None:
        return result
    (folder / units.result_name(unit)).unlink(missing_ok=True)
    return None


def check_room(waiting: Iterable[Unit], folder: pathlib.Path) -> None:
    """Raises UserError where the disk has no room for what the units' records will hold."""
    needed = sum(sum(unit.source.sizes.values()) for unit in waiting)
    free = shutil.disk_usage(folder).free
    if needed * 1.05 > free:
        raise UserError(
            f"No room at {folder.parent}: the records need {needed / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free. "
            "Free some space or choose another --output."
        )


@contextlib.contextmanager
def _following(waiting: Iterable[Unit], folder: pathlib.Path, bar: tqdm) -> Iterator[None]:
    """Moves the bar by the results that other processes leave."""
    left, ended = {units.result_name(unit): len(unit.frames) for unit in waiting}, threading.Event()

    def follow() -> None:
        while not ended.wait(0.5):
            for name in left.keys() & set(os.listdir(folder)):
                bar.update(left.pop(name))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _kill_children(process: int) -> None:
    """Ends the processes that a process started, and those that they started, if the system lists them in /proc."""
    for file in pathlib.Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            _kill_children(child)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


@contextlib.contextmanager
def _ending_with_workers() -> Iterator[None]:
    """Ends the program if one of its worker processes was killed; Beam would wait for it for ever, even to clean up."""
    hook = threading.excepthook

    def notice(args: threading.ExceptHookArgs) -> None:
        if "Worker subprocess exited" not in str(args.exc_value):
            hook(args)
            return
        print(
            "Error: A process of the conversion was ended from outside, perhaps for lack of memory. The same command "
            "goes on from here; --workers=N sets how many processes share the memory.",
            file=sys.stderr,
            flush=True,
        )
        _kill_children(os.getpid())
        os._exit(2)

    threading.excepthook = notice
    try:
        yield
    finally:
        threading.excepthook = hook


def _run_on_beam(waiting: Iterable[Unit], folder: pathlib.Path, options: "PipelineOptions") -> None:
    import apache_beam as beam  # Takes two seconds, which a small set does not need to wait.

    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    with _ending_with_workers(), runners.pipeline(options) as pipeline:
        _ = pipeline | beam.Create(waiting) | beam.Reshuffle() | beam.Map(units.convert, folder)
