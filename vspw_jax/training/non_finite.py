"""Bad steps: those whose loss or gradient is NaN or infinite. They change nothing that is kept.

The state counts in `bad_steps` how many there were since the last good step. Weights, running statistics and the
optimizer's state stay as they were before a bad step. The step itself counts, so the next step takes the next batch.

Where more bad steps follow each other than are allowed, the last of them does not count, and no later step changes the
state. The loop reads figures only now and then. When it reads of that step, the state is still the one before it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, choose, listed
from vspw_jax.training.train_state import State

Step = Callable[..., tuple[State, dict[str, Float[Array, ""]]]]


def allowed(run: ConfigDict) -> int:
    """How many bad steps in a row `config.run` allows."""
    return choose({"stop": 0, "skip": run.most_skipped}, run.non_finite, "run.non_finite")


def all_finite(tree: PyTree[Array]) -> Bool[Array, ""]:
    """Whether all numbers of a tree are finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def check_weights(weights: PyTree[Array], where: str) -> None:
    """Raises UserError where weights hold NaN or infinity: a network with them predicts the same class everywhere.

    Args:
      where: they come from, to begin the message.
    """
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    broken = [jax.tree_util.keystr(path, simple=True, separator="/") for path, leaf in leaves if not _is_finite(leaf)]
    if broken:
        raise UserError(
            f"{where} holds NaN or infinity in {len(broken)} of {len(leaves)} arrays: {listed(broken, 3)}. Such "
            "weights predict nothing that has a meaning. Take an older checkpoint or another file, or train again with "
            "a lower --config.optimizer.learning_rate or with --config.optimizer.clip_norm=1."
        )


def _is_finite(array: Array) -> bool:
    # In NumPy, part by part: no program is compiled, and no device gathers what several share.
    return all(np.isfinite(np.asarray(shard.data)).all() for shard in array.addressable_shards)


def guarded(step: Step, allowed: int) -> Step:
    """The function (state, ...) -> (state, metrics), changed so that bad steps change nothing.

    A step is bad if a metric (one is the gradient's norm) or a new running statistic is not finite. From finite
    gradients with finite squares Adam makes finite weights and moments. To look at those too would only keep two copies
    of them in memory.
    """

    def guarded_step(state: State, *inputs: Any) -> tuple[State, dict[str, Float[Array, ""]]]:
        new_state, metrics = step(state, *inputs)
        is_good = all_finite((metrics, new_state["model_state"], new_state.get("ema", {}).get("model_state", {})))
        has_halted = state["bad_steps"] > allowed
        bad_steps = jnp.where(has_halted, state["bad_steps"], jnp.where(is_good, 0, state["bad_steps"] + 1))
        is_kept, counts = is_good & ~has_halted, bad_steps <= allowed
        kept = {
            name: jax.tree.map(lambda new, old: jnp.where(is_kept, new, old), part, state[name])
            for name, part in new_state.items()
        }
        kept |= {"step": jnp.where(counts, new_state["step"], state["step"]), "bad_steps": bad_steps}
        return kept, {**metrics, "bad_steps": bad_steps.astype(jnp.float32)}

    return guarded_step
