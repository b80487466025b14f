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
    """Named loss terms of a device's clips, from the model and, where it asks for one, from a teacher.

    `needs_teacher` says whether it asks: `config.ema` then says how the average of the weights is kept that is the
    teacher. It is never differentiated. What its passes leave in its statistics is kept if `ema.statistics` is "own".
    """

    needs_teacher: ClassVar[bool]

    def __init__(self, config: ConfigDict) -> None:
        """`config` is whole; UserError where it does not fit the task."""

    def contrast_groups(self) -> int:
        """Groups of clips of a batch, or of a part of one, that devices must share evenly; 0 where there are none."""

    def losses(
        self,
        model: Segmenter,
        teacher: Segmenter | None,
        batch: dict[str, Array],
        key_B: Key[Array, " B"],
        step: Int[Array, ""],
    ) -> dict[str, Float[Array, ""]]:
        """This device's part of every weighted term; the loss is their sum, over terms and over devices."""


TASKS: dict[str, type[Task]] = {"supervised": Supervised}
"""By `config.task.name`."""


def build(config: ConfigDict) -> Task:
    """The task of a whole config; UserError where there is none of that name, or the config does not fit it."""
    return choose(TASKS, config.task.name, "task.name")(config)
