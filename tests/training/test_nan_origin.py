"""The operation that made the first NaN is named, with its line, whatever part of the step it is in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import upernet
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import nan_origin, optimizers, train_state


@pytest.fixture
def described(small_network):
    """described(change): what is said of a step whose state and batch `change` has spoilt."""
    config = upernet.get_config("demo")
    config.model.image_size = (32, 32)
    config.model.encoder.dim = config.model.decoder.dim = 16
    config.train.batch = 8
    mesh = make_mesh(devices=jax.devices()[:2])
    graphdef, params, _ = train_state.describe(config)
    state = train_state.new_state(config, optimizers.build(config, params), mesh)
    rng = np.random.default_rng(0)
    batch = {
        "image_BTHWC": rng.normal(size=(8, 1, 32, 32, 3)).astype(np.float32),
        "label_BTHW": rng.integers(0, 5, (8, 1, 32, 32), np.int32),
        "is_clip_B": np.ones(8, bool),
    }

    def run(change):
        change(state, batch)
        return nan_origin.describe(config, graphdef, mesh, state, placement.to_global(mesh, batch))

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
