"""Optimal assignment of targets to queries, on the device."""

import jax
import jax.numpy as jnp
import optax

LARGE_COST = 1e4
"""Stands for a cost that is NaN or beyond it: finite, so that the solver stays exact in float32."""


def assign(cost_QM, valid_M):
    """The query of each target so that the sum of costs over valid targets is least.

    Args:
      cost_QM: cost of query q for target m. NaN and values beyond +-LARGE_COST count as +-LARGE_COST
        (NaN as +): optax's solver would answer NaN with the identity and say nothing.
      valid_M: which targets are real; the rest are padding and take the queries left over.

    Returns:
      query_M: int32 index into the queries for every target, all different.

    Raises:
      ValueError: more targets than queries.
    """
    num_queries, num_targets = cost_QM.shape
    if num_targets > num_queries:
        raise ValueError(f"{num_targets} targets for {num_queries} queries: every target needs a query of its own.")
    cost = jnp.nan_to_num(cost_QM, nan=LARGE_COST, posinf=LARGE_COST, neginf=-LARGE_COST)
    cost = jnp.clip(cost, -LARGE_COST, LARGE_COST)
    # The same cost for every query leaves the real targets' optimum as it is.
    cost = jnp.where(valid_M, cost, 0.0)
    query, target = optax.assignment.hungarian_algorithm(jax.lax.stop_gradient(cost))
    return jnp.zeros(num_targets, jnp.int32).at[target].set(query.astype(jnp.int32))
