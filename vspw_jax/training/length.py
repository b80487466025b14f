"""How many steps a run has: `train.steps`, or `train.epochs` over its data.

The schedule needs the number before the first step. Below the functions here nothing knows epochs: a config comes back
whose `train.steps` is the number.
"""

import copy
import math
import pathlib
from collections.abc import Collection, Sequence

from ml_collections import ConfigDict

from vspw_jax.checkpoints import run_identity
from vspw_jax.console import ranges
from vspw_jax.console.errors import UserError
from vspw_jax.data import mixture, views


def _with_steps(config: ConfigDict, steps: int) -> ConfigDict:
    config = copy.deepcopy(config).unlock()
    config.train.steps = steps
    return config.lock()


def heed_flags(config: ConfigDict, stated: Collection[str]) -> None:
    """Counts in steps where the user asks for steps, though the recipe counts in epochs.

    Args:
      config: the whole config, locked.
      stated: names of the fields that flags set.

    Raises:
      UserError: flags ask for both.
    """
    if "train.steps" not in stated or not config.train.epochs:
        return
    if "train.epochs" in stated:
        raise UserError(
            f"--config.train.steps={config.train.steps} and --config.train.epochs={config.train.epochs} both say how "
            "long the run is. Leave one out."
        )
    with config.unlocked():
        config.train.epochs = 0


def of_data(config: ConfigDict, members: Sequence[mixture.Member]) -> ConfigDict:
    """A run's whole config with the steps in which its clips pass `train.epochs` times; the last one may begin anew.

    Raises:
      UserError: that is more steps than can be counted.
    """
    if not config.train.epochs:
        return config
    clips = mixture.clips_of_epoch(members, views.frames_shown(config.data))
    steps = math.ceil(config.train.epochs * clips / config.train.batch)
    if steps > ranges.LARGEST:
        raise UserError(
            f"train.epochs is {config.train.epochs}: of {clips:g} clips, {config.train.batch} a step, these are "
            f"{steps} steps, expected at most {ranges.LARGEST}. Lower --config.train.epochs."
        )
    return _with_steps(config, steps)


def described(config: ConfigDict, members: Sequence[mixture.Member]) -> str:
    """The length of a run in words, given its config with the steps."""
    train, clips = config.train, mixture.clips_of_epoch(members, views.frames_shown(config.data))
    if train.epochs:
        return f"{train.epochs} epochs of {clips:g} clips, {train.batch} a step: {train.steps} steps."
    return f"{train.steps} steps of {train.batch} clips: {train.steps * train.batch / clips:.4g} epochs of {clips:g}."


def of_workdir(config: ConfigDict, workdir: pathlib.Path) -> ConfigDict:
    """The whole config with the steps that the workdir's run has, whatever data is at hand now; without a run as it is.

    Raises:
      UserError: the workdir's config.json is damaged.
    """
    steps = run_identity.steps_of(workdir) if config.train.epochs else None
    return config if steps is None else _with_steps(config, steps)
