"""What a training step learns, by `config.task.name`.

A new task is a class in a file of its own, as `Task` describes it, and a line in `TASKS`.
"""

from typing import ClassVar, Protocol

from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from vspw_jax.console.errors import choose
from vspw_jax.models.segmenter import Segmenter
from vspw_jax.tasks.supervised import Supervised


class Task(Protocol):
    """Named loss terms of a device's clips, from the model, and from a teacher if the task needs one.

    `needs_teacher` says so. The teacher is an average of the weights, and `config.ema` says how it is kept. It is never
    differentiated. Its passes change its statistics if `ema.statistics` is "own".
    """

    needs_teacher: ClassVar[bool]

    def __init__(self, config: ConfigDict) -> None:
        """`config` is the whole recipe; UserError where it does not fit the task."""

    def contrast_groups(self) -> int:
        """Groups of clips that devices must share evenly, of a batch or of a part of one; 0 where there are none."""

    def losses(
        self,
        model: Segmenter,
        teacher: Segmenter | None,
        batch: dict[str, Array],
        key_B: Key[Array, " B"],
        step: Int[Array, ""],
    ) -> dict[str, Float[Array, ""]]:
        """This device's part of every weighted term; the loss is the sum over terms and devices."""


TASKS: dict[str, type[Task]] = {"supervised": Supervised}
"""By `config.task.name`."""


def build(config: ConfigDict) -> Task:
    """The task of a recipe; UserError where the name is unknown, or the recipe does not fit the task."""
    return choose(TASKS, config.task.name, "task.name")(config)
