"""Checkpoints of a workdir (Orbax), and the config they belong to.

The state's step is also the position in the data: batch n of the stream is a function of (seed, n) alone.
"""

import json
import pathlib

import orbax.checkpoint as ocp

from vspw_jax.errors import UserError

IDENTITY = ("seed", "model", "loss", "optimizer", "train", "data")
"""Sections of a config that decide a run's result; the others may change from one start to the next."""

MACHINE_FIELDS = {"data.threads", "data.prefetch", "data.eval_split", "model.remat"}
"""Fields in those sections that do not."""


PARTS = {"weights": ("params", "model_state"), "training": ("opt_state", "step")}
"""What of the state is stored together."""


def _flatten(config, prefix=""):
    flat = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{path}."))
        else:
            flat[path] = value
    return flat


def claim_workdir(workdir, config):
    """Makes the workdir this config's, or checks that it is.

    Raises:
      UserError: it holds another config's run, or cannot be written.
    """
    path = pathlib.Path(workdir) / "config.json"
    identity = _flatten(json.loads(config.to_json_best_effort()))
    identity = {
        name: value for name, value in identity.items() if name.split(".")[0] in IDENTITY and name not in MACHINE_FIELDS
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.with_suffix(".partial").write_text(json.dumps(identity, indent=2) + "\n")
            path.with_suffix(".partial").rename(path)
    except OSError as error:
        raise UserError(
            f"The workdir {workdir} cannot be written: {error.strerror}. Choose one with --workdir=DIR."
        ) from error
    found = json.loads(path.read_text())
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
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager((pathlib.Path(workdir) / "checkpoints").resolve(), options=options)

    def latest_step(self):
        """The newest complete checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(self, step, state):
        """Saves in the background, unless that step is saved already."""
        if step != self.latest_step():
            parts = {name: {key: state[key] for key in keys} for name, keys in PARTS.items()}
            args = {name: ocp.args.StandardSave(part) for name, part in parts.items()}
            self._manager.save(step, args=ocp.args.Composite(**args))

    def restore(self, like):
        """The newest checkpoint in the shapes and shardings of `like`: a state, or its params and model_state alone."""
        parts = {name: {key: like[key] for key in keys} for name, keys in PARTS.items() if like.keys() >= set(keys)}
        args = {name: ocp.args.StandardRestore(part) for name, part in parts.items()}
        restored = self._manager.restore(self.latest_step(), args=ocp.args.Composite(**args))
        return {key: leaf for name in parts for key, leaf in restored[name].items()}

    def close(self):
        """Waits for the last save."""
        self._manager.wait_until_finished()
        self._manager.close()
