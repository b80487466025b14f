"""Checkpoints of a workdir (Orbax), and the config and the data they belong to.

The state's step is also the position in the data: batch n of the stream is a function of (seed, n) alone.
A checkpoint is written beside its place and renamed when it is whole, its manifest in it (manifest.py); what is read
is compared with that, and where it differs the one before serves.
"""

import json
import math
import pathlib
import re
import shutil

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from vspw_jax.checkpoints import manifest
from vspw_jax.console.errors import UserError, differing, warn
from vspw_jax.files.whole_files import whole_file

IDENTITY = ("seed", "model", "loss", "optimizer", "train", "data")
"""Sections of a config that decide a run's result; the others may change from one start to the next."""

MACHINE_FIELDS = {f"data.{name}" for name in ("workers", "threads", "prefetch", "eval_split")} | {"model.remat"}
"""Fields in those sections that do not."""

PLACES = re.compile(r"data\.((mixture\.\w+\.)?records|(.+\.)?generate\..+)")
"""Fields that say where data is: what was found there is compared instead."""


PARTS = {"weights": ("params", "model_state"), "training": ("opt_state", "step", "bad_steps")}
"""What of the state is stored together."""


def flatten(config, prefix=""):
    """The fields of nested dicts by dotted path: {"model.encoder.dim": 96}."""
    flat = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        if isinstance(value, (dict, ConfigDict)):
            flat.update(flatten(value, f"{path}."))
        else:
            flat[path] = value
    return flat


def claim_workdir(workdir, config, data):
    """Makes the workdir this config's and this data's, or checks that it is.

    Args:
      data: what was read, a description by name of the data set; see `mixture.identity`.

    Raises:
      UserError: it holds a run of another config or on other data, cannot be written, or its config.json is damaged.
    """
    path = pathlib.Path(workdir) / "config.json"
    identity = _identity(config) | {f"data set {name!r}": description for name, description in data.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with whole_file(path) as partial:
                partial.write_text(json.dumps(identity, indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"The workdir {workdir} cannot be written: {error.strerror}. Choose one with --workdir=DIR."
        ) from error
    _check_same(path, _read_identity(path), identity)


def check_workdir(workdir, config):
    """Checks that a workdir's run is of this config, whatever the data: a trained model takes any.

    Raises:
      UserError: the workdir holds a run of another config, or its config.json is damaged.
    """
    path = pathlib.Path(workdir) / "config.json"
    but_data = lambda fields: {name: value for name, value in fields.items() if not name.startswith("data")}
    if path.exists():
        _check_same(path, but_data(_read_identity(path)), but_data(_identity(config)))


def _identity(config):
    """The fields that decide a run's result, as JSON gives them back."""
    fields = flatten(json.loads(config.to_json_best_effort()))
    return {
        name: value
        for name, value in fields.items()
        if name.split(".")[0] in IDENTITY and name not in MACHINE_FIELDS and not PLACES.fullmatch(name)
    }


def _read_identity(path):
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path} is damaged: expected the JSON that a run writes, found {error}.\n"
            f"If {path.parent} holds a run of this config, delete that file and start again.\n"
            "Else choose another with --workdir=DIR."
        ) from error


def _check_same(path, found, expected):
    lines = differing(found, expected)
    if not lines:
        return
    advice = "Choose another with --workdir=DIR, or delete it to start anew."
    if "  data set " in lines:
        advice += (
            "\nTo go on with it give back the data that it had: --config.data.records=DIR, or "
            "--config.data.mixture.NAME.records=DIR. Evaluating takes any data: --mode=evaluate."
        )
    raise UserError(f"The workdir {path.parent} holds a run of another config or on other data:\n{lines}\n{advice}")


class Checkpoints:
    """The checkpoints under workdir/checkpoints, one folder a step.

    Args:
      keep: so many of the newest stay.
      trains: the run that writes here, of which there is one: what a killed one left half-written is removed.
      in_background: whether saving returns before the checkpoint is whole.

    Raises:
      UserError: training cannot write there.
    """

    def __init__(self, workdir, keep, trains=False, in_background=True):
        self._folder, self._keep = (pathlib.Path(workdir) / "checkpoints").resolve(), keep
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            cleanup_tmp_directories=trains,
            enable_async_checkpointing=in_background,
            temporary_path_class=manifest.FolderWithManifest,
        )
        if trains:
            _check_writable(self._folder)
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._intact = set()

    def latest_step(self):
        """The newest checkpoint's step, or None."""
        return self._manager.latest_step()

    def intact_step(self, at_most=math.inf):
        """The newest step, `at_most` or before, whose files are as they were written; None where there is no step.

        Damaged ones above it are named on stderr.

        Raises:
          UserError: there are steps, all of them damaged.
        """
        steps = sorted(step for step in self._manager.all_steps() if step <= at_most)
        step = _of_first_process(self._newest_intact(steps)) if steps else None
        if step == -1:
            raise UserError(
                f"Every checkpoint in {self._folder} is damaged: {', '.join(map(str, steps))}.\n"
                "Bring one back from a copy, or choose another --workdir=DIR to start anew."
            )
        return step

    def _newest_intact(self, steps):
        for step in reversed(steps if jax.process_index() == 0 else []):
            damage = [] if step in self._intact else manifest.damage(self._folder / str(step))
            if not damage:
                self._intact.add(step)
                return step
            more = f", and {len(damage) - 3} more" if len(damage) > 3 else ""
            warn(f"The checkpoint {self._folder / str(step)} is damaged ({'; '.join(damage[:3])}{more}).")
        return -1

    def set_aside_damaged(self):
        """Moves damaged checkpoints that are newer than the newest good one to workdir/damaged, for a run to go on.

        Raises:
          UserError: all of them are damaged.
        """
        intact, newest = self.intact_step(), self.latest_step()
        if intact == newest:
            return
        aside = self._folder.parent / "damaged"
        for step in [step for step in self._manager.all_steps() if step > intact]:
            if jax.process_index() == 0:
                aside.mkdir(exist_ok=True)
                shutil.rmtree(aside / str(step), ignore_errors=True)
                (self._folder / str(step)).rename(aside / str(step))
        _of_first_process(0)  # The others wait for that.
        self._manager.reload()
        warn(f"Going on from step {intact}. What is damaged was moved to {aside}; delete it when you have seen it.")

    def check_room(self, state, saves=1):
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

    def save(self, step, state):
        """Saves, unless that step is saved already; UserError where the disk has no room."""
        if step != self.latest_step():
            self._manager.wait_until_finished()
            self.check_room(state)
            parts = {name: {key: state[key] for key in keys} for name, keys in PARTS.items()}
            args = {name: ocp.args.StandardSave(part) for name, part in parts.items()}
            self._manager.save(step, args=ocp.args.Composite(**args))

    def restore(self, like, at_most=math.inf):
        """The newest intact checkpoint, of a step `at_most` or before.

        Args:
          like: its shapes and shardings: a state, or its params and model_state alone.

        Raises:
          UserError: it cannot be read, or all of them are damaged.
        """
        parts = {name: {key: like[key] for key in keys} for name, keys in PARTS.items() if like.keys() >= set(keys)}
        args = {name: ocp.args.StandardRestore(part) for name, part in parts.items()}
        step = self.intact_step(at_most)
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:  # TensorStore raises a bare Exception for what it cannot read.
            raise UserError(
                f"The checkpoint {self._folder / str(step)} cannot be read, though it is as it was written: "
                f"{str(error).splitlines()[0][:200]}\n"
                "It may be of another version of this program. Choose another --workdir=DIR."
            ) from error
        return {key: leaf for name in parts for key, leaf in restored[name].items()}

    def close(self):
        """Waits for the last save."""
        self._manager.wait_until_finished()
        self._manager.close()


def _check_writable(folder):
    """Raises UserError where no file can be made in a folder, itself made if need be."""
    probe = folder / f"probe_{jax.process_index()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"Checkpoints cannot be written to {folder}: {error.strerror}. Choose another --workdir=DIR."
        ) from error


def _of_first_process(number):
    """The first process's number, on all of them."""
    return int(multihost_utils.broadcast_one_to_all(number)) if jax.process_count() > 1 else number
