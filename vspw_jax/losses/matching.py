"""Optimal assignment of targets to queries, on the device."""

import jax
import jax.numpy as jnp
import optax

LARGE_COST = 1e4
"""Stands for a cost that is NaN or beyond it: finite, so that the solver stays exact in float32."""

NEVER = 1e6
"""Cost of what no optimum holds."""


def assign(cost_QM, valid_M):
    """The query of each target so that the sum of costs over valid targets is least.

    Args:
      cost_QM: cost of query q for target m. NaN and values beyond +-LARGE_COST count as +-LARGE_COST
        (NaN as +): optax's solver would answer NaN with the identity and say nothing.
      valid_M: which targets are real; the rest are padding.

    Returns:
      query_M: int32 index into the queries, different for all valid targets; 0 for padding.

    Raises:
      ValueError: more targets than queries.
    """
    num_queries, num_targets = cost_QM.shape
    if num_targets > num_queries:
        raise ValueError(f"{num_targets} targets for {num_queries} queries: every target needs a query of its own.")
    cost = jnp.nan_to_num(cost_QM, nan=LARGE_COST, posinf=LARGE_COST, neginf=-LARGE_COST)
    cost = jnp.clip(cost, -LARGE_COST, LARGE_COST)
    # Padding finds a spare query of its own at once. At equal costs among the queries it would walk through all that
    # are taken: with 10 of 40 targets valid that takes the solver four times as long as 40 valid ones.
    spare_MM = jnp.where(jnp.eye(num_targets, dtype=bool) & ~valid_M, 0.0, NEVER)
    cost = jnp.concatenate([jnp.where(valid_M, cost, NEVER), spare_MM])
    query, target = optax.assignment.hungarian_algorithm(jax.lax.stop_gradient(cost))
    query_M = jnp.zeros(num_targets, jnp.int32).at[target].set(query.astype(jnp.int32))
    return jnp.where(valid_M, query_M, 0)
