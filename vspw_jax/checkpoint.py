"""Checkpoints of a workdir (Orbax), and the config and the data they belong to.

The state's step is also the position in the data: batch n of the stream is a function of (seed, n) alone.
"""

import json
import pathlib
import re
import shutil

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from vspw_jax.errors import UserError
from vspw_jax.whole_files import whole_file

IDENTITY = ("seed", "model", "loss", "optimizer", "train", "data")
"""Sections of a config that decide a run's result; the others may change from one start to the next."""

MACHINE_FIELDS = {f"data.{name}" for name in ("workers", "threads", "prefetch", "eval_split")} | {"model.remat"}
"""Fields in those sections that do not."""

PLACES = re.compile(r"data\.((mixture\.\w+\.)?records|(.+\.)?generate\..+)")
"""Fields that say where data is: what was found there is compared instead."""


PARTS = {"weights": ("params", "model_state"), "training": ("opt_state", "step")}
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
    differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if not differing:
        return
    lines = "\n".join(f"  {name}: {found.get(name)} there, {expected.get(name)} now" for name in differing)
    advice = "Choose another with --workdir=DIR, or delete it to start anew."
    if any(name.startswith("data set ") for name in differing):
        advice += (
            "\nTo go on with it give back the data that it had: --config.data.records=DIR, or "
            "--config.data.mixture.NAME.records=DIR. Evaluating takes any data: --mode=evaluate."
        )
    raise UserError(f"The workdir {path.parent} holds a run of another config or on other data:\n{lines}\n{advice}")


class Checkpoints:
    """The checkpoints under workdir/checkpoints, one folder a step."""

    def __init__(self, workdir, keep):
        self._folder, self._keep = (pathlib.Path(workdir) / "checkpoints").resolve(), keep
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def latest_step(self):
        """The newest complete checkpoint's step, or None."""
        return self._manager.latest_step()

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
        """Saves in the background, unless that step is saved already; UserError where the disk has no room."""
        if step != self.latest_step():
            self._manager.wait_until_finished()
            self.check_room(state)
            parts = {name: {key: state[key] for key in keys} for name, keys in PARTS.items()}
            args = {name: ocp.args.StandardSave(part) for name, part in parts.items()}
            self._manager.save(step, args=ocp.args.Composite(**args))

    def restore(self, like):
        """The newest checkpoint in the shapes and shardings of `like`: a state, or its params and model_state alone.

        Raises:
          UserError: it is damaged.
        """
        parts = {name: {key: like[key] for key in keys} for name, keys in PARTS.items() if like.keys() >= set(keys)}
        args = {name: ocp.args.StandardRestore(part) for name, part in parts.items()}
        step = self.latest_step()
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:  # TensorStore raises a bare Exception for what it cannot read.
            raise UserError(
                f"The checkpoint {self._folder / str(step)} cannot be read: {str(error).splitlines()[0][:200]}\n"
                "Delete that folder to go on from the one before it, or from the start if there is none."
            ) from error
        return {key: leaf for name in parts for key, leaf in restored[name].items()}

    def close(self):
        """Waits for the last save."""
        self._manager.wait_until_finished()
        self._manager.close()
