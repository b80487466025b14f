"""What a training step learns, by `config.task.name`.

A new task is a class in a file of its own, as `Task` describes it, and a line in `TASKS`.
"""

from typing import ClassVar, Protocol

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, choose
from vspw_jax.models.segmenter import Segmenter
from vspw_jax.tasks.mean_teacher import MeanTeacher
from vspw_jax.tasks.prototype_pretraining import PrototypePretraining
from vspw_jax.tasks.supervised import Supervised


class Task(Protocol):
    """Named loss terms of a device's clips, from the model, and from a teacher if the task needs one.

    `needs_teacher` says so. The teacher is an average of the weights, and `config.ema` says how it is kept. It is never
    differentiated. Its passes change its statistics if `ema.statistics` is "own". `figures` names those of its terms
    that are shown with the others and no part of the loss. `predicts` says whether what is trained gives classes; where
    it does not there is nothing to evaluate, and no classifier for others to start from.
    """

    needs_teacher: ClassVar[bool]
    figures: ClassVar[tuple[str, ...]]
    predicts: ClassVar[bool]

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Raises UserError where the whole recipe does not fit the task."""

    def __init__(self, config: ConfigDict) -> None:
        """`config` is the whole recipe, as `check` lets it pass."""

    def contrast_groups(self) -> int:
        """Groups of clips that devices must share evenly, of a batch or of a part of one; 0 where there are none."""

    def losses(
        self,
        model: Segmenter,
        teacher: Segmenter | None,
        batch: dict[str, Array],
        key_B: Key[Array, " B"],
        step: Int[Array, ""],
        rate: Float[Array, ""],
    ) -> dict[str, Float[Array, ""]]:
        """This device's part of every weighted term; the loss is the sum over devices and terms but `figures`.

        `rate` is the learning rate's share of `config.optimizer.learning_rate` at this step.
        """


TASKS: dict[str, type[Task]] = {
    "mean_teacher": MeanTeacher,
    "prototype_pretraining": PrototypePretraining,
    "supervised": Supervised,
}
"""By `config.task.name`."""


def check(config: ConfigDict) -> None:
    """Raises UserError where the name is unknown, or the recipe does not fit the task."""
    choose(TASKS, config.task.name, "task.name").check(config)


def needs_teacher(config: ConfigDict) -> bool:
    """Whether the task of a recipe asks for a teacher."""
    return TASKS[config.task.name].needs_teacher


def loss(config: ConfigDict, terms: dict[str, Float[Array, ""]]) -> Float[Array, ""]:
    """The sum of what a recipe's task gives as `losses`, but for its figures."""
    figures = TASKS[config.task.name].figures
    return sum((term for name, term in terms.items() if name not in figures), jnp.zeros(()))


def predicts(config: ConfigDict) -> bool:
    """Whether the network that a recipe trains gives classes."""
    return TASKS[config.task.name].predicts


def check_predicts(config: ConfigDict, why: str) -> None:
    """Raises UserError where the network of a recipe gives no classes; `why` says what asks for them."""
    if not predicts(config):
        raise UserError(
            f"{why}, but task.name is {config.task.name!r}, which trains no classifier: there is nothing to score or "
            "to show. Fine-tune its workdir with a recipe that does, such as --config=configs/mdp_finetune.py "
            "--config.init_from=WORKDIR."
        )


def build(config: ConfigDict) -> Task:
    """The task of a recipe, as `check` lets it pass."""
    return TASKS[config.task.name](config)
