"""Checkpoints of a workdir (Orbax).

The state's step is also the position in the data: batch n of the stream is a function of (seed, n) alone.
A checkpoint is written beside its place and renamed when it is whole, its manifest in it (manifest.py); what is read
is compared with that, and where it differs the one before serves. Of a workdir in a bucket this is done on this disk,
and the checkpoint is sent there, its manifest last; see bucket_copies.py.
"""

import logging
import math
import pathlib
import shutil
import traceback
from collections.abc import Callable

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from vspw_jax.buckets.answers import Changed
from vspw_jax.checkpoints import manifest
from vspw_jax.checkpoints.bucket_copies import BucketCopies
from vspw_jax.console.errors import UserError, no_room, warn
from vspw_jax.files.writable import check_folder

FOLDER = "checkpoints"
"""Of a workdir."""

PARTS = {"weights": ("params", "model_state"), "training": ("opt_state", "step", "bad_steps"), "ema": ("ema",)}
"""What of the state is stored together; a state without an average of the weights has no part `ema`."""


def _is_news(record: logging.LogRecord) -> bool:
    """Filters what Orbax's threads and event loops log, with tracebacks, of a full disk: the save raises the same."""
    if not record.exc_info or not no_room(record.exc_info[1]):
        return True
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(record.exc_info[2])]
    return not any(pathlib.Path(ocp.__file__).parent in pathlib.Path(file).parents for file in files)


class Checkpoints:
    """The checkpoints under workdir/checkpoints, one folder a step.

    Args:
      keep: so many of the newest stay.
      trains: the run that writes here, of which there is one: what a killed one left half-written is removed.
      in_background: whether saving returns before the checkpoint is whole.
      check_owner: raises UserError where the workdir is no longer this run's; called before every save.

    Raises:
      UserError: training cannot write there.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        keep: int,
        trains: bool = False,
        in_background: bool = True,
        check_owner: Callable[[], None] = lambda: None,
    ) -> None:
        for logger in ("absl", "asyncio"):
            logging.getLogger(logger).addFilter(_is_news)
        self._folder, self._keep = (pathlib.Path(workdir) / FOLDER).resolve(), keep
        self._check_owner, self._trains, self._copies = check_owner, trains, BucketCopies(self._folder)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=False,  # Orbax does so only where all processes work together.
            cleanup_tmp_directories=trains,
            enable_async_checkpointing=in_background,
            temporary_path_class=manifest.FolderWithManifest,
            multiprocessing_options=self._copies.processes(),
        )
        if trains:
            check_folder(self._folder, "--workdir=DIR")
            self._copies.delete_half_written()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._intact: set[int] = set()

    def latest_step(self) -> int | None:
        """The newest checkpoint's step, or None."""
        return max(self._all_steps(), default=None)

    def _all_steps(self):
        return sorted({*self._manager.all_steps(), *self._copies.steps()})

    def has(self, step: int | None, part: str) -> bool:
        """Whether a step's checkpoint has a part of `PARTS`."""
        return (self._folder / str(step) / part).exists()

    def intact_step(self, at_most: float = math.inf) -> int | None:
        """The newest step, `at_most` or before, whose files are as they were written; None where there is no step.

        Damaged ones above it are named on stderr.

        Raises:
          UserError: there are steps, all of them damaged.
        """
        steps = self._steps(at_most)
        step = _of_first_process(self._newest_intact(at_most)) if steps else None
        if step == -1:
            raise UserError(
                f"Every checkpoint in {self._folder} is damaged: {', '.join(map(str, steps))}.\n"
                "Bring one back from a copy, or choose another --workdir=DIR to start anew."
            )
        return step

    def _steps(self, at_most):
        return [step for step in self._all_steps() if step <= at_most]

    def _newest_intact(self, at_most):
        steps = self._steps(at_most) if jax.process_index() == 0 else []
        for step in reversed(steps):
            damage = [] if step in self._intact else self._damage(step)
            if not damage:
                self._intact.add(step)
                return step
            if self._has_gone_on(steps):
                return self._newest_intact(at_most)
            more = f", and {len(damage) - 3} more" if len(damage) > 3 else ""
            warn(f"The checkpoint {self._folder / str(step)} is damaged ({'; '.join(damage[:3])}{more}).")
        return -1

    def _damage(self, step):
        try:
            self._copies.bring(step)
        except Changed as error:
            return [str(error)]
        return manifest.damage(self._folder / str(step))

    def _has_gone_on(self, steps):
        """Whether a run has saved since these steps were listed: it may have removed some of them."""
        self._manager.reload()
        return max(self._all_steps(), default=0) > steps[-1]

    def set_aside_damaged(self) -> None:
        """Moves damaged checkpoints that are newer than the newest good one to workdir/damaged, for a run to go on.

        Raises:
          UserError: all of them are damaged.
        """
        intact, newest = self.intact_step(), self.latest_step()
        if intact == newest:
            return
        aside = self._folder.parent / "damaged"
        damaged = [step for step in self._all_steps() if step > intact]
        for step in damaged:
            if jax.process_index() == 0:
                aside.mkdir(exist_ok=True)
                shutil.rmtree(aside / str(step), ignore_errors=True)
                (self._folder / str(step)).rename(aside / str(step))
        self._copies.send()
        self._copies.delete(damaged)
        _of_first_process(0)  # The others wait for that.
        self._manager.reload()
        warn(f"Going on from step {intact}. What is damaged was moved to {aside}; delete it when you have seen it.")

    def check_room(self, state: dict[str, PyTree], saves: int = 1) -> None:
        """Raises UserError where the disk has no room for the checkpoints that `saves` saves will add.

        An old checkpoint goes only when its successor is whole, so that for a while there is one more than `keep`.
        """
        count = min(saves, max(self._keep + 1 - len(self._manager.all_steps()), 1))
        needed = count * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise UserError(
                f"No room for checkpoints in {self._folder}: {count} of them need {needed / 2**30:.2f} GiB, "
                f"{free / 2**30:.2f} GiB are free.\nFree some space, choose another --workdir=DIR, or keep fewer with "
                "--config.run.keep=1. The same command goes on from the newest checkpoint."
            )

    def save(self, step: int, state: dict[str, PyTree]) -> None:
        """Saves, unless that step is saved already; UserError where there is no room or another run has the workdir."""
        if not self._is_saved(step):
            self._check_owner()
            self._manager.wait_until_finished()
            self._copies.keep_newest(self._keep)
            self.check_room(state)
            written = self._copies.written_here(state)
            if written is not None:
                args = {name: ocp.args.StandardSave(part) for name, part in _parts(written).items()}
                self._manager.save(step, args=ocp.args.Composite(**args))

    def _is_saved(self, step):
        is_saved = step == self.latest_step()
        return _of_first_process(is_saved) if self._copies.are_apart else is_saved

    def restore(self, like: dict[str, PyTree], at_most: float = math.inf) -> dict[str, PyTree]:
        """The newest intact checkpoint, of a step `at_most` or before.

        Args:
          like: its shapes and shardings: a state, or its params and model_state alone, or its ema.

        Raises:
          UserError: it cannot be read, or all of them are damaged.
        """
        parts = _parts(like)
        args = {name: ocp.args.StandardRestore(part) for name, part in parts.items()}
        step = self.intact_step(at_most)
        if step is not None:
            self._copies.bring(step)
        self._check_is_there(step)
        self._manager.reload()
        missing = [name for name in parts if not self.has(step, name)]
        if missing:
            raise UserError(
                f"The checkpoint {self._folder / str(step)} has no {' and no '.join(missing)}: it was saved by a run "
                "that kept none. Leave --config.evaluate.weights=ema out, or train a recipe with config.ema."
            )
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:  # TensorStore raises a bare Exception for what it cannot read.
            self._check_is_there(step)
            raise UserError(
                f"The checkpoint {self._folder / str(step)} cannot be read, though it is as it was written: "
                f"{str(error).splitlines()[0][:200]}\n"
                "It may be of another version of this program. Choose another --workdir=DIR."
            ) from error
        return {key: leaf for name in parts for key, leaf in restored[name].items()}

    def _check_is_there(self, step):
        """Raises UserError where a run that goes on has removed a step."""
        if not (self._folder / str(step)).exists():
            raise UserError(
                f"The checkpoint {self._folder / str(step)} was removed while it was read, as the run there saved a "
                "newer one. Give the same command again; a larger --config.run.keep in training leaves more time."
            )

    def close(self) -> None:
        """Waits for the last save."""
        self._manager.wait_until_finished()
        if self._trains:
            self._copies.keep_newest(self._keep)
        self._manager.close()


def _parts(state):
    """What of a state, or of a part of one, is stored together, by the name of the part."""
    return {name: {key: state[key] for key in keys} for name, keys in PARTS.items() if state.keys() >= set(keys)}


def _of_first_process(number):
    """The first process's number, on all of them."""
    return int(multihost_utils.broadcast_one_to_all(number)) if jax.process_count() > 1 else number
