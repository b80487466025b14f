"""Optimal assignment of targets to queries, on the device.

Shapes: Q queries, M targets.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

LARGE_COST = 1e4
"""Stands for a cost that is NaN or more than this above the least cost of its target. It is finite, and small enough
for the solver to stay exact in float32."""


class _Search(NamedTuple):
    """A search for the shortest path from a target that has no query yet to a query that is free.

    The path goes to a query, to the target that has it, to another query, and so on. Along it each target gives its
    query to the one before. Lengths are costs less the prices of target and query, which are never negative.
    """

    root: Int[Array, ""]  # M when all targets have their queries.
    query_M: Int[Array, " M"]  # The assignment so far, -1 where there is none.
    price_M: Float[Array, " M"]
    price_Q: Float[Array, " Q"]
    is_taken_Q: Bool[Array, " Q"]  # Follows from the assignment, but to compare all with all takes half of the time.
    target: Int[Array, ""]  # The last that was reached.
    is_reached_M: Bool[Array, " M"]
    is_reached_Q: Bool[Array, " Q"]
    length_Q: Float[Array, " Q"]  # Of the shortest step to each query that is not reached yet,
    source_Q: Int[Array, " Q"]  # and the target from which it starts.
    given_MM: Int[Array, "M M"]  # The assignment in which a reached target (row) has given its query away.

    @classmethod
    def start(
        cls,
        root: Int[Array, ""],
        query_M: Int[Array, " M"],
        price_M: Float[Array, " M"],
        price_Q: Float[Array, " Q"],
        is_taken_Q: Bool[Array, " Q"],
    ) -> "_Search":
        num_targets, num_queries = len(price_M), len(price_Q)
        return cls(
            root,
            query_M,
            price_M,
            price_Q,
            is_taken_Q,
            target=root,
            is_reached_M=jnp.arange(num_targets) == root,
            is_reached_Q=jnp.zeros(num_queries, bool),
            length_Q=jnp.full(num_queries, jnp.inf),
            source_Q=jnp.zeros(num_queries, jnp.int32),
            given_MM=jnp.broadcast_to(query_M, (num_targets, num_targets)),
        )


def _row(table_MX: Array, number: Int[Array, ""]) -> Array:
    """A row by its number. A sum in place of a gather, which TPUs are slow at."""
    is_row_M = jnp.arange(len(table_MX)) == number
    return jnp.where(is_row_M.reshape(-1, *[1] * (table_MX.ndim - 1)), table_MX, 0).sum(axis=0, dtype=table_MX.dtype)


def _steps(search: _Search, cost_MQ: Float[Array, "M Q"]) -> tuple[Float[Array, " Q"], Int[Array, " Q"]]:
    """(length, source) of the shortest step to each query; the length is infinite to those reached."""
    length_Q = _row(cost_MQ, search.target) - _row(search.price_M, search.target) - search.price_Q
    is_shorter_Q = length_Q < search.length_Q
    shortest_Q = jnp.where(is_shorter_Q, length_Q, search.length_Q)
    return jnp.where(search.is_reached_Q, jnp.inf, shortest_Q), jnp.where(is_shorter_Q, search.target, search.source_Q)


def _nearest(search: _Search, length_Q: Float[Array, " Q"]) -> Int[Array, ""]:
    """The query at the end of the shortest step, a free one before others: equal costs would else be walked through
    again and again."""
    return jnp.where(length_Q == length_Q.min(), search.is_taken_Q, 2).argmin().astype(jnp.int32)


def _reach_query(search: _Search, cost_MQ: Float[Array, "M Q"], valid_M: Bool[Array, " M"]) -> _Search:
    """The search one query further, or at the next target where that query was free."""
    targets, queries = (jnp.arange(size, dtype=jnp.int32) for size in cost_MQ.shape)
    length_Q, source_Q = _steps(search, cost_MQ)
    query, length = _nearest(search, length_Q), length_Q.min()
    price_M = search.price_M + jnp.where(search.is_reached_M, length, 0.0)
    price_Q = search.price_Q - jnp.where(search.is_reached_Q, length, 0.0)
    source = _row(source_Q, query)
    given_M = jnp.where(targets == source, query, _row(search.given_MM, source))
    owner = jnp.where(search.query_M == query, targets, -1).max()
    further = search._replace(
        price_M=price_M,
        price_Q=price_Q,
        target=owner,
        is_reached_M=search.is_reached_M | (targets == owner),
        is_reached_Q=search.is_reached_Q | (queries == query),
        length_Q=length_Q - length,
        source_Q=source_Q,
        given_MM=jnp.where(targets[:, None] == owner, given_M, search.given_MM),
    )
    is_taken_Q = search.is_taken_Q | (queries == query)
    following = _Search.start(_first(valid_M & (targets > search.root)), given_M, price_M, price_Q, is_taken_Q)
    return jax.tree.map(lambda one, other: jnp.where(owner < 0, one, other), following, further)


def _first(is_wanted_M: Bool[Array, " M"]) -> Int[Array, ""]:
    """The first wanted target, M if there is none."""
    return jnp.where(is_wanted_M, jnp.arange(len(is_wanted_M), dtype=jnp.int32), len(is_wanted_M)).min()


def assign(cost_QM: Float[Array, "Q M"], valid_M: Bool[Array, " M"]) -> Int[Array, " M"]:
    """The query of each target so that the sum of costs over valid targets is least.

    One loop, whose passes are the queries that the searches reach: padding costs none. Its sum is that of SciPy's
    linear_sum_assignment, whose algorithm it is (Crouse 2016, "On implementing 2D rectangular assignment
    algorithms"). optax's hungarian_algorithm has three loops in each other and walks through the padding; after each of
    some 250 passes a GPU asks the host whether to go on (benchmarks/RESULTS.md, "The matching").

    Args:
      cost_QM: cost of query q for target m. A cost that is NaN, or more than LARGE_COST above the target's least cost,
        counts as LARGE_COST above it. A cost below -LARGE_COST counts as at most LARGE_COST below it.
      valid_M: which targets are real; the rest are padding.

    Returns:
      int32 indices of queries, different for all valid targets; 0 for padding.

    Raises:
      ValueError: more targets than queries.
    """
    num_queries, num_targets = cost_QM.shape
    if num_targets > num_queries:
        raise ValueError(f"{num_targets} targets for {num_queries} queries: every target needs a query of its own.")
    cost_QM = lax.stop_gradient(cost_QM)
    least_M = jnp.where(cost_QM > -LARGE_COST, cost_QM, jnp.inf).min(axis=0)  # NaN and minus infinity do not count.
    # The same number may be subtracted from all costs of a target, because the target is assigned exactly once.
    cost_QM -= jnp.where(jnp.isfinite(least_M), least_M, 0.0)
    cost_QM = jnp.nan_to_num(cost_QM, nan=LARGE_COST, posinf=LARGE_COST, neginf=-LARGE_COST)
    cost_MQ = jnp.clip(cost_QM, -LARGE_COST, LARGE_COST).T
    nothing_M, nothing_Q = jnp.zeros(num_targets), jnp.zeros(num_queries)
    start = _Search.start(
        _first(valid_M), jnp.full(num_targets, -1, jnp.int32), nothing_M, nothing_Q, jnp.zeros(num_queries, bool)
    )
    search = lax.while_loop(
        lambda search: search.root < num_targets, lambda search: _reach_query(search, cost_MQ, valid_M), start
    )
    return jnp.where(valid_M, search.query_M, 0)
