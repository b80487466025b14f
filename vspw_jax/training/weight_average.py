"""An exponential moving average of the weights, kept in the state as `ema`: a teacher, or what is scored and exported.

It begins as a copy of the weights and is updated after the optimizer:
ema = d * ema + (1 - d) * weights, where d is the decay, with `warmup` at most 1 - 1 / (step + 1), so that the random
weights of the start are soon forgotten. Source: CuriousAI/mean-teacher pytorch/main.py `update_ema_variables`;
arXiv 1703.01780; facebookresearch/moco moco/builder.py has a constant decay.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, choose

STATISTICS = {"averaged": False, "own": True}
"""Whose the average's batch statistics and memories are: averages of the network's, as its weights are (timm's
ModelEmaV2; of memories a copy), or those that its own passes leave, for a task that has it as its teacher (MoCo, mean
teacher)."""


def keeps(config: ConfigDict) -> bool:
    """Whether a run keeps an average; `config` is whole."""
    return "ema" in config


def check(config: ConfigDict, has_teacher: bool) -> None:
    """Raises UserError where a whole config asks for an average that cannot be.

    Args:
      has_teacher: whether the task asks for a teacher.
    """
    if config.evaluate.weights not in ("trained", "ema"):
        raise UserError(f"evaluate.weights is {config.evaluate.weights!r}: expected one of ema, trained.")
    if not keeps(config):
        if has_teacher:
            raise UserError(
                f"task.name is {config.task.name!r}, whose teacher is an average of the weights, but the recipe keeps "
                "none. Add config.ema = parts.training.ema() to it."
            )
        if config.evaluate.weights == "ema":
            raise UserError(
                "evaluate.weights is 'ema', but this recipe keeps no average of the weights. Leave that flag out, or "
                "train a recipe with config.ema, such as configs/nce_ema.py."
            )
        return
    if choose(STATISTICS, config.ema.statistics, "ema.statistics") and not has_teacher:
        raise UserError(
            f"ema.statistics is 'own', but task.name is {config.task.name!r}, in which the average is no teacher and "
            "makes no passes of its own. Set --config.ema.statistics=averaged."
        )


def begin(params: PyTree[Array], model_state: PyTree[Array]) -> dict[str, PyTree[Array]]:
    """The average before the first step: copies."""
    return {"params": jax.tree.map(jnp.copy, params), "model_state": jax.tree.map(jnp.copy, model_state)}


def decay_at(config: ConfigDict, step: Int[Array, ""]) -> Float[Array, ""]:
    """The decay of the update that ends step `step`, counted from 0; `config` is `config.ema`."""
    longest = 1.0 - 1.0 / (step + 1.0) if config.warmup else 1.0
    return jnp.minimum(config.decay, longest)


def updated(
    config: ConfigDict,
    ema: dict[str, PyTree[Array]],
    params: PyTree[Array],
    model_state: PyTree[Array],
    own: PyTree[Array] | None,
    step: Int[Array, ""],
    memories: frozenset[str] = frozenset(),
) -> dict[str, PyTree[Array]]:
    """The average after a step.

    Args:
      config: `config.ema`.
      ema: the average before.
      params, model_state: of the network after the step.
      own: the model_state that the teacher's passes left; None without a teacher.
      step: counted from 0.
      memories: paths in model_state of what is copied: a memory is an average already, and its rows begin at 0.
    """
    decay = decay_at(config, step)

    def average(old: Array, new: Array) -> Array:
        return old + (1 - decay) * (new - old) if jnp.issubdtype(new.dtype, jnp.inexact) else new

    def mixed(keys: tuple[Any, ...], old: Array, new: Array) -> Array:
        is_memory = jax.tree_util.keystr(keys, simple=True, separator="/") in memories
        return new if is_memory else average(old, new)

    averaged = own is None or not STATISTICS[config.statistics]
    statistics = jax.tree_util.tree_map_with_path(mixed, ema["model_state"], model_state) if averaged else own
    return {"params": jax.tree.map(average, ema["params"], params), "model_state": statistics}
