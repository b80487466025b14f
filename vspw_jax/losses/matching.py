"""Optimal assignment of targets to queries, on the device."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

LARGE_COST = 1e4
"""Stands for a cost that is NaN or more than this above the least cost of its target. It is finite, and small enough
for the solver to stay exact in float32."""

NEVER = 1e6
"""The cost of a pair that no optimum has."""


def assign(cost_QM: Float[Array, "Q M"], valid_M: Bool[Array, " M"]) -> Int[Array, " M"]:
    """The query of each target so that the sum of costs over valid targets is least.

    Args:
      cost_QM: cost of query q for target m. A cost that is NaN, or more than LARGE_COST above the target's least cost,
        counts as LARGE_COST above it. A cost below -LARGE_COST counts as at most LARGE_COST below it. Without this,
        optax's solver would answer NaN with the identity and say nothing.
      valid_M: which targets are real; the rest are padding.

    Returns:
      int32 indices of queries, different for all valid targets; 0 for padding.

    Raises:
      ValueError: more targets than queries.
    """
    num_queries, num_targets = cost_QM.shape
    if num_targets > num_queries:
        raise ValueError(f"{num_targets} targets for {num_queries} queries: every target needs a query of its own.")
    least_M = jnp.where(cost_QM > -LARGE_COST, cost_QM, jnp.inf).min(axis=0)  # NaN and minus infinity do not count.
    # The same number may be subtracted from all costs of a target, because the target is assigned exactly once.
    cost = cost_QM - jnp.where(jnp.isfinite(least_M), least_M, 0.0)
    cost = jnp.nan_to_num(cost, nan=LARGE_COST, posinf=LARGE_COST, neginf=-LARGE_COST)
    cost = jnp.clip(cost, -LARGE_COST, LARGE_COST)
    # Each target of the padding finds a spare query of its own at once. If all queries cost it the same, the solver
    # would walk through all that are taken: 10 valid targets of 40 would take four times as long as 40 valid ones.
    spare_MM = jnp.where(jnp.eye(num_targets, dtype=bool) & ~valid_M, 0.0, NEVER)
    cost = jnp.concatenate([jnp.where(valid_M, cost, NEVER), spare_MM])
    query, target = optax.assignment.hungarian_algorithm(jax.lax.stop_gradient(cost))
    query_M = jnp.zeros(num_targets, jnp.int32).at[target].set(query.astype(jnp.int32))
    return jnp.where(valid_M, query_M, 0)
