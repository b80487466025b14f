"""Bad steps change nothing; too many in a row and nothing changes any more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.training import non_finite


def step(state, batch):
    """Adds the batch to all that is kept; the loss is its inverse, and a batch of 1000 is too much for a statistic."""
    statistic = jnp.where(batch == 1000, jnp.inf, state["model_state"]["mean"] + batch)
    new = {
        "params": {"a": state["params"]["a"] + batch},
        "model_state": {"mean": statistic},
        "opt_state": ({"mu": state["opt_state"][0]["mu"] + batch}, state["opt_state"][1] + 1),
        "step": state["step"] + 1,
    }
    return new, {"loss": 1 / batch, "gradient_norm": batch}


def first_state():
    zero = lambda kind=jnp.float32: jnp.zeros((), kind)
    counts = {"step": zero(jnp.int32), "bad_steps": zero(jnp.int32)}
    return {
        "params": {"a": zero()},
        "model_state": {"mean": zero()},
        "opt_state": ({"mu": zero()}, zero(int)),
        **counts,
    }


def expected(batches, allowed):
    """(sum of what was kept, step, bad steps in a row) after each batch, as the module's words have it."""
    total, steps, bad_steps = 0.0, 0, 0
    for batch in batches:
        is_bad = not np.isfinite(batch) or batch in (0.0, 1000.0)
        if bad_steps <= allowed:
            bad_steps = bad_steps + 1 if is_bad else 0
            steps += bad_steps <= allowed
            total += 0.0 if is_bad else batch
        yield total, steps, bad_steps


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("allowed", [0, 1, 2])
@pytest.mark.parametrize(
    "batches", [[1, NAN, 2, 3], [1, 2, INF, 0, 3, NAN, 1000, 0, 4, 5], [0, 1, 0, 0, 1], [1000, 1, 1000, 1]]
)
def test_bad_steps_change_nothing(batches, allowed):
    run, state = jax.jit(non_finite.guarded(step, allowed)), first_state()
    for batch, (total, steps, bad_steps) in zip(batches, expected(batches, allowed), strict=True):
        state, metrics = run(state, jnp.float32(batch))
        kept = [state["params"]["a"], state["model_state"]["mean"], state["opt_state"][0]["mu"]]
        assert [float(value) for value in kept] == [total] * 3
        assert (int(state["step"]), int(state["bad_steps"]), float(metrics["bad_steps"])) == (
            steps,
            bad_steps,
            bad_steps,
        )
    assert run._cache_size() == 1


def test_what_the_config_allows():
    run = ConfigDict({"non_finite": "stop", "most_skipped": 7})
    assert non_finite.allowed(run) == 0
    run.non_finite = "skip"
    assert non_finite.allowed(run) == 7
    run.non_finite = "hope"
    with pytest.raises(UserError, match="run.non_finite is 'hope': expected one of skip, stop"):
        non_finite.allowed(run)


def test_weights_that_are_not_finite_are_named():
    weights = {
        "params": {"head": {"kernel": jnp.ones(2), "bias": jnp.zeros(3)}},
        "model_state": {"count": jnp.arange(2)},
    }
    non_finite.check_weights(weights, "A.pth")
    weights["params"]["head"]["bias"] = jnp.array([0, jnp.inf, 1], jnp.bfloat16)
    with pytest.raises(UserError, match="A.pth holds NaN or infinity in 1 of 3 arrays: params/head/bias. "):
        non_finite.check_weights(weights, "A.pth")
