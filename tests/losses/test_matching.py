"""The matcher against SciPy's exact solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from vspw_jax.losses import matching

QUERIES, TARGETS = 12, 8
assign_many = jax.jit(jax.vmap(matching.assign))
assign = jax.jit(matching.assign)


def optimum(cost_QM, valid_M):
    rows, columns = linear_sum_assignment(cost_QM[:, valid_M])
    return cost_QM[:, valid_M][rows, columns].sum()


def guarded(costs):
    """Costs as the matcher counts them: by how much they exceed each target's least, within limits."""
    costs = costs.astype(np.float64)
    least = np.where(np.isfinite(costs) & (costs > -1e4), costs, np.inf).min(axis=-2, keepdims=True)
    costs = costs - np.where(np.isfinite(least), least, 0.0)
    return np.clip(np.nan_to_num(costs, nan=1e4, posinf=1e4, neginf=-1e4), -1e4, 1e4)


def random_problems(rng, count):
    """Smooth, tied, large, mixed and partly non-finite costs, with 0 to TARGETS real targets."""
    costs = rng.normal(size=(count, QUERIES, TARGETS))
    costs[1::5] = rng.integers(0, 3, costs[1::5].shape)
    costs[2::5] *= 1e3
    costs[3::5] = rng.uniform(size=costs[3::5].shape) ** 8
    bad = rng.choice([np.nan, np.inf, -np.inf, 1e30, -1e30], costs[4::5].shape)
    costs[4::5] = np.where(rng.uniform(size=bad.shape) < 0.2, bad, costs[4::5])
    valid = np.arange(TARGETS) < rng.integers(0, TARGETS + 1, (count, 1))
    return costs.astype(np.float32), rng.permuted(valid, axis=1)


def test_cost_is_the_optimum_of_scipy():
    costs, valid = random_problems(np.random.default_rng(0), 4000)
    queries = np.asarray(assign_many(costs, valid))
    for cost_QM, valid_M, query_M in zip(guarded(costs), valid, queries, strict=True):
        assert len(set(query_M[valid_M].tolist())) == valid_M.sum() and not query_M[~valid_M].any()
        assert query_M.max(initial=0) < QUERIES
        found = cost_QM[query_M, np.arange(TARGETS)][valid_M].sum()
        assert found == pytest.approx(optimum(cost_QM, valid_M), rel=1e-5, abs=1e-5)


def test_large_costs_are_told_apart():
    """Saturated masks cost tens of thousands; what counts is by how much one query costs less than another."""
    costs = np.random.default_rng(2).uniform(1e4, 1.9e4, (20, QUERIES, TARGETS)).astype(np.float32) + 4e4
    everything = np.ones(TARGETS, bool)
    for cost_QM, query_M in zip(costs, np.asarray(assign_many(costs, np.ones((20, TARGETS), bool))), strict=True):
        assert cost_QM[query_M, np.arange(TARGETS)].sum() == pytest.approx(optimum(cost_QM, everything), rel=1e-6)


def test_as_many_targets_as_queries():
    cost = np.random.default_rng(1).normal(size=(6, 6)).astype(np.float32)
    query_M = np.asarray(assign(cost, jnp.ones(6, bool)))
    assert cost[query_M, np.arange(6)].sum() == pytest.approx(optimum(cost, np.ones(6, bool)), rel=1e-6)


@pytest.mark.parametrize("cost", [0.0, np.nan])
def test_equal_costs_take_free_queries(cost):
    """If targets took each other's queries, each would walk through all before it."""
    queries = assign(np.full((QUERIES, TARGETS), cost, np.float32), jnp.ones(TARGETS, bool))
    assert queries.tolist() == list(range(TARGETS))


def test_more_targets_than_queries_is_an_error():
    with pytest.raises(ValueError, match="6 targets for 4 queries"):
        matching.assign(jnp.zeros((4, 6)), jnp.ones(6, bool))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_costs_that_are_no_numbers_do_not_disturb_the_rest(bad):
    """The other targets still get their best queries."""
    cost = np.full((5, 3), 1.0, np.float32)
    cost[4, 0] = cost[3, 1] = cost[2, 2] = 0.0
    cost[0, 0] = bad
    query_M = np.asarray(assign(cost, jnp.ones(3, bool)))
    assert query_M.tolist() == [0 if bad < 0 else 4, 3, 2]
