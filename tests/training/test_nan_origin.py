"""The operation that made the first NaN is named, with its line, whatever part of the step it is in."""

import jax
import jax.numpy as jnp
import pytest

from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import nan_origin, optimizers, train_state


@pytest.fixture
def described(small_config, random_batch):
    """described(change): what is said of a step whose state and batch `change` has spoilt."""
    mesh = make_mesh(devices=jax.devices()[:2])
    graphdef, params, _ = train_state.describe(small_config)
    state = train_state.new_state(small_config, optimizers.build(small_config, params), mesh)

    def run(change):
        change(state, random_batch)
        batch = placement.to_global(mesh, random_batch)
        return nan_origin.describe(small_config, graphdef, mesh, state, batch)

    return run


def test_in_the_network(described):
    """A weight of 1e38 overflows; infinities of both signs then meet in the next product."""

    def change(state, batch):
        state["params"]["encoder"]["blocks"]["kernel"] *= jnp.inf

    said = described(change)
    assert said.startswith("The first NaN came from ") and "models/layers.py:" in said


def test_in_a_function_of_jax(described):
    """Infinite logits are still no NaN; the bilinear resize before the loss multiplies them by 0."""

    def change(state, batch):
        state["params"]["decoder"]["classifier"]["bias"] += jnp.inf

    said = described(change)
    assert said.startswith("The first NaN came from dot_general, at image/scale.py:")


def test_nothing_to_be_found(described):
    assert described(lambda state, batch: None).startswith("No operation of the loss or its gradient made a NaN")
