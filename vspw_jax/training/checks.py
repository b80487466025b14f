"""All that can be wrong with a recipe's values, looked for in one place before anything is compiled.

Each check stands beside what it checks; the least values of plain numbers are here.
"""

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, choose
from vspw_jax.console.recipe_file import flatten
from vspw_jax.data import mixture
from vspw_jax.inference import predictor
from vspw_jax.models import segmenter
from vspw_jax.tasks import task
from vspw_jax.training import non_finite, optimizers, weight_average

SECTIONS = ("task", "model", "loss", "optimizer", "schedule", "train", "sharding", "data", "evaluate", "run")

LEAST = {
    "train.steps": 1,
    "train.batch": 1,
    "train.accumulate": 1,
    "data.frames": 1,
    "optimizer.learning_rate": 0,
    "optimizer.weight_decay": 0,
    "optimizer.clip_norm": 0,
    "schedule.warmup_steps": 0,
    "schedule.warmup_ratio": 0,
    "schedule.minimum": 0,
    "run.log_every": 1,
    "run.save_every": 1,
    "run.picture_every": 1,
    "run.keep": 1,
    "run.most_skipped": 0,
}
"""The least value of fields that any recipe has. Not-a-number is less."""

AFTERWARDS = dict.fromkeys(("evaluate", "predict"))
"""What `run.afterwards` may name."""


def check_recipe(config: ConfigDict) -> None:
    """Checks a whole config against itself; it needs no data.

    Raises:
      UserError: what was found, what was expected, and the flag that mends it.
    """
    missing = [section for section in SECTIONS if section not in config]
    if missing:
        raise UserError(
            f"The recipe has no section {', '.join(missing)}: expected all of {', '.join(SECTIONS)}. Take it from "
            "configs/parts/, as configs/baseline.py does."
        )
    fields = flatten(config)
    for name, least in LEAST.items():
        if not fields[name] >= least:
            raise UserError(
                f"{name} is {fields[name]}: expected at least {least}. Set --config.{name}={least} or more."
            )
    for mode in config.run.afterwards:
        choose(AFTERWARDS, mode, "run.afterwards")
    segmenter.check(config.model)
    task.check(config)
    weight_average.check(config, task.needs_teacher(config))
    optimizers.check(config)
    non_finite.allowed(config.run)
    predictor.check_options(config.evaluate, tuple(config.model.image_size), config.model.num_classes)


def check(config: ConfigDict) -> list[mixture.Member]:
    """As `check_recipe`, and against its data, which it opens.

    Returns:
      The data sets that it trains on.

    Raises:
      UserError: see `check_recipe`; no such data, or data that does not fit.
    """
    check_recipe(config)
    members = mixture.members(config.data)
    mixture.check_classes(members, config.model.num_classes)
    if "capacity" in config.loss.segmentation:
        mixture.check_capacity(members, config.loss.segmentation.capacity)
    return members
