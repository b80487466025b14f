"""How many steps a run and its beginnings have: `train.steps`, or `train.epochs` over its data, and so on.

The schedule needs the number before the first step. Below the functions here nothing knows epochs: a config comes back
whose fields in steps, those of `run_identity.IN_EPOCHS`, are the numbers.
"""

import copy
import math
import pathlib
from collections.abc import Collection, Mapping, Sequence

from ml_collections import ConfigDict

from vspw_jax.checkpoints import run_identity
from vspw_jax.console import ranges, recipe_file
from vspw_jax.console.errors import UserError
from vspw_jax.data import mixture, views


def _with_steps(config: ConfigDict, steps: Mapping[str, int]) -> ConfigDict:
    config = copy.deepcopy(config)
    config.update_from_flattened_dict(steps)
    return config.lock()


def _epochs(config: ConfigDict) -> dict[str, int]:
    """By the names of the fields in steps that the data decides: the epochs."""
    fields = recipe_file.flatten(config)
    return {steps: fields[epochs] for steps, epochs in run_identity.IN_EPOCHS.items() if fields.get(epochs)}


def heed_flags(config: ConfigDict, stated: Collection[str]) -> None:
    """Counts in steps where the user asks for steps, though the recipe counts in epochs.

    Args:
      config: the whole config, locked.
      stated: names of the fields that flags set.

    Raises:
      UserError: flags ask for both.
    """
    fields = recipe_file.flatten(config)
    for steps in set(stated) & set(_epochs(config)):
        epochs = run_identity.IN_EPOCHS[steps]
        if epochs in stated:
            raise UserError(
                f"--config.{steps}={fields[steps]} and --config.{epochs}={fields[epochs]} both say how long the "
                "same is. Leave one out."
            )
        config.update_from_flattened_dict({epochs: 0})


def of_data(config: ConfigDict, members: Sequence[mixture.Member]) -> ConfigDict:
    """A run's whole config with the steps in which its clips pass so many times; the last one may begin anew.

    Raises:
      UserError: that is more steps than can be counted.
    """
    epochs = _epochs(config)
    if not epochs:
        return config
    clips = mixture.clips_of_epoch(members, views.frames_shown(config.data))
    steps = {name: math.ceil(count * clips / config.train.batch) for name, count in epochs.items()}
    for name, count in steps.items():
        if count > ranges.LARGEST:
            field = run_identity.IN_EPOCHS[name]
            raise UserError(
                f"{field} is {epochs[name]}: of {clips:g} clips, {config.train.batch} a step, these are "
                f"{count} steps, expected at most {ranges.LARGEST}. Lower --config.{field}."
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
    steps = run_identity.steps_of(workdir, _epochs(config))
    return _with_steps(config, steps) if steps else config
