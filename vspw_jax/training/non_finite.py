"""Bad steps: those whose loss or gradient is NaN or infinite. They change nothing that is kept.

The state counts in `bad_steps` how many there were since the last good one. Weights, running statistics and the
optimizer's state stay as they were before a bad step; the step itself counts, so that the next takes the next batch.
Where more come in a row than are allowed, the last of them does not count either, and from then on nothing changes
the state at all: when the loop, which reads figures only now and then, comes to know of it, the state is still the
one before that step.
"""

import jax
import jax.numpy as jnp

from vspw_jax.console.errors import choose


def allowed(run):
    """Bad steps in a row that `config.run` allows."""
    return choose({"stop": 0, "skip": run.most_skipped}, run.non_finite, "run.non_finite")


def all_finite(tree):
    """Whether all numbers of a tree are."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def guarded(step, allowed):
    """A function (state, batch) -> (state, metrics) as one in which bad steps change nothing.

    A step is bad by its metrics, the gradient's norm among them, and by its new running statistics. From finite
    gradients whose squares are finite Adam makes finite weights and moments: looking at those too would only keep two
    copies of them in memory.
    """

    def guarded_step(state, batch):
        new_state, metrics = step(state, batch)
        is_good = all_finite((metrics, new_state["model_state"]))
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
