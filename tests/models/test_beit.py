"""Behaviour of BEiT's blocks: layer scale and stochastic depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import upernet
from vspw_jax.models.encoders import beit
from vspw_jax.training import train_state


def make_block(layer_scale):
    return beit.Block(16, 2, 4.0, (2, 3), layer_scale, dtype=jnp.float32, rngs=nnx.Rngs(0))


def test_layer_scales_of_zero_pass_the_input_on():
    x, block = jax.random.normal(jax.random.key(1), (2, 7, 16)), make_block(1.0)
    block.gamma_1[...] = block.gamma_2[...] = jnp.zeros(16)
    np.testing.assert_array_equal(block(x, 0.0), x)


def test_a_block_without_layer_scale_is_one_whose_scales_are_1():
    x, block = jax.random.normal(jax.random.key(1), (2, 7, 16)), make_block(0.0)
    assert block.gamma_1 is None and block.gamma_2 is None
    np.testing.assert_array_equal(block(x, 0.0), make_block(1.0)(x, 0.0))


def test_drop_path_drops_whole_images_and_scales_the_rest():
    """With rate 0.5 either branch adds nothing to an image, or twice what it adds without."""
    x = jax.random.normal(jax.random.key(1), (64, 7, 16))
    block = make_block(1.0)
    keys = jax.random.split(jax.random.key(2), 64)
    block.gamma_2[...] = jnp.zeros(16)
    plain, dropped = block(x, 0.5) - x, block(x, 0.5, keys) - x
    factor = np.abs(dropped).sum(axis=(1, 2)) / np.abs(plain).sum(axis=(1, 2))
    np.testing.assert_allclose(np.minimum(factor, abs(factor - 2)), 0, atol=1e-3)
    assert 0.25 < (factor > 1).mean() < 0.75


def test_drop_path_of_an_image_does_not_depend_on_its_neighbours():
    x = jax.random.normal(jax.random.key(1), (8, 7, 16))
    keys = jax.random.split(jax.random.key(2), 8)
    block = make_block(1.0)
    np.testing.assert_allclose(block(x, 0.5, keys)[3:5], block(x[3:5], 0.5, keys[3:5]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_without_stochastic_depth_nothing_is_drawn(rate):
    """Its draws would all be "kept": demos, which have none, need not compile and run them."""
    config = upernet.get_config("demo")
    config.model.encoder.drop_path = rate
    graphdef, params, model_state = train_state.describe(config)
    images = jax.ShapeDtypeStruct((2, 1, *config.model.image_size, 3), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    run = lambda params, model_state, images, keys: nnx.merge(graphdef, params, model_state)(images, key_B=keys)
    assert ("random_bits" in str(jax.make_jaxpr(run)(params, model_state, images, keys))) == (rate > 0)
