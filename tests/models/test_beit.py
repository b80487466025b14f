"""BEiT's relative position bias against the index table of the released code, and block behaviour."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vspw_jax.models.encoders import beit


def index_table(height, width):
    """relative_position_index as beit.py builds it: rows of the bias table for every (query, key)."""
    tokens = height * width
    rows = (2 * height - 1) * (2 * width - 1) + 3
    index = np.zeros((tokens + 1, tokens + 1), int)
    for q in range(tokens):
        for k in range(tokens):
            dy, dx = q // width - k // width + height - 1, q % width - k % width + width - 1
            index[q + 1, k + 1] = dy * (2 * width - 1) + dx
    index[0, :] = rows - 3
    index[:, 0] = rows - 2
    index[0, 0] = rows - 1
    return index


@pytest.mark.parametrize("window", [(1, 1), (3, 3), (2, 5), (6, 4)])
def test_bias_picks_the_released_codes_rows(window):
    rows = (2 * window[0] - 1) * (2 * window[1] - 1) + 3
    table = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
    bias = beit.relative_position_bias(jnp.asarray(table), window)
    np.testing.assert_array_equal(bias, table[index_table(*window)].transpose(2, 0, 1))


def test_gradient_of_the_bias_counts_every_use():
    window, rows = (3, 4), 5 * 7 + 3
    gradient = jax.grad(lambda table: beit.relative_position_bias(table, window).sum())(jnp.zeros((rows, 1)))
    np.testing.assert_array_equal(gradient[:, 0], np.bincount(index_table(*window).ravel(), minlength=rows))


def make_block(layer_scale):
    return beit.Block(16, 2, 4.0, (2, 3), layer_scale, dtype=jnp.float32, rngs=nnx.Rngs(0))


def test_layer_scale_of_zero_passes_the_input_on():
    x = jax.random.normal(jax.random.key(1), (2, 7, 16))
    np.testing.assert_array_equal(make_block(0.0)(x, 0.0), x)


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
