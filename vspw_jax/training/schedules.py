"""Learning rates by step: poly or cosine decay, with a linear warm-up."""

from collections.abc import Callable

import jax
import optax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.console.errors import check_fields, choose, warn

Schedule = Callable[[int | jax.Array], Float[Array, ""]]


def poly(config: ConfigDict, learning_rate: float, num_steps: int) -> Schedule:
    """(rate - minimum) * (1 - step / steps) ** power + minimum: mmcv's PolyLrUpdaterHook."""
    return optax.polynomial_schedule(learning_rate, config.minimum, config.power, num_steps)


def cosine(config: ConfigDict, learning_rate: float, num_steps: int) -> Schedule:
    """Half a cosine from the rate down to `minimum` at the last step: SGDR without restarts, arXiv 1608.03983."""
    return optax.cosine_decay_schedule(learning_rate, num_steps, config.minimum / learning_rate)


SCHEDULES = {"poly": (poly, ("power",)), "cosine": (cosine, ())}
"""By `config.schedule.name`: the decay, and the fields that it alone reads."""
FIELDS = ("warmup_steps", "warmup_ratio", "minimum")
"""That each of them reads."""


def check(config: ConfigDict) -> None:
    """Raises UserError where `config.schedule` names a schedule that there is not, or has fields of another one."""
    _, own = choose(SCHEDULES, config.name, "schedule.name")
    check_fields("schedule", config, (*FIELDS, *own), "configs/parts/training.py")


def warn_of_long_warmup(config: ConfigDict, num_steps: int) -> None:
    """Says where training ends before its warm-up. That is no error: a few steps of any recipe can be tried."""
    if num_steps <= config.warmup_steps:
        warn(
            f"schedule.warmup_steps is {config.warmup_steps}, and training has {num_steps} steps: it ends before the "
            "warm-up is over. To train in so few steps, set "
            f"--config.schedule.warmup_steps={num_steps // 10}, say."
        )


def build(config: ConfigDict, learning_rate: float, num_steps: int) -> Schedule:
    """The learning rate by step.

    During the first `warmup_steps` it is multiplied by a line from `warmup_ratio` to 1 (mmcv's linear warm-up).

    Args:
      config: `config.schedule`, as `check` lets it pass: name, minimum, warmup_steps, warmup_ratio, and power for poly.
      learning_rate: before any decay.
      num_steps: of the training.
    """
    make, _ = SCHEDULES[config.name]
    decay = make(config, learning_rate, num_steps)
    if not config.warmup_steps:
        return decay
    warmup = optax.linear_schedule(config.warmup_ratio, 1.0, config.warmup_steps)
    return lambda step: decay(step) * warmup(step)
