"""Checkpoints of a workdir (Orbax), and the config they belong to.

The state's step is also the position in the data: batch n of the stream is a function of (seed, n) alone.
"""

import json
import pathlib
import shutil

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from vspw_jax.errors import UserError
from vspw_jax.whole_files import whole_file

IDENTITY = ("seed", "model", "loss", "optimizer", "train", "data")
"""Sections of a config that decide a run's result; the others may change from one start to the next."""

MACHINE_FIELDS = {"data.threads", "data.prefetch", "data.eval_split", "model.remat"}
"""Fields in those sections that do not."""


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


def claim_workdir(workdir, config):
    """Makes the workdir this config's, or checks that it is.

    Raises:
      UserError: it holds another config's run, cannot be written, or its config.json is damaged.
    """
    path = pathlib.Path(workdir) / "config.json"
    identity = flatten(json.loads(config.to_json_best_effort()))
    identity = {
        name: value for name, value in identity.items() if name.split(".")[0] in IDENTITY and name not in MACHINE_FIELDS
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with whole_file(path) as partial:
                partial.write_text(json.dumps(identity, indent=2) + "\n")
        found = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path} is damaged: expected the JSON that a run writes, found {error}.\n"
            f"If {workdir} holds a run of this config, delete that file and start again.\n"
            "Else choose another with --workdir=DIR."
        ) from error
    except OSError as error:
        raise UserError(
            f"The workdir {workdir} cannot be written: {error.strerror}. Choose one with --workdir=DIR."
        ) from error
    differing = sorted(name for name in found.keys() | identity.keys() if found.get(name) != identity.get(name))
    if differing:
        lines = "\n".join(f"  {name}: {found.get(name)} there, {identity.get(name)} now" for name in differing)
        raise UserError(
            f"The workdir {workdir} holds a run of another config:\n{lines}\n"
            "Choose another with --workdir=DIR, or delete it to start anew."
        )


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
