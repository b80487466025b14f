"""Plain BEiT: which blocks' features leave it, in what sizes, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.models import layers
from vspw_jax.models.encoders.beit_pyramid import BeitPyramid


def make(out_blocks, size=(32, 48), drop_path=0.0, remat="none"):
    config = ConfigDict(dict(dim=16, depth=out_blocks[-1], heads=2, mlp_ratio=2.0, layer_scale=1.0))
    config.update(drop_path=drop_path, out_blocks=out_blocks)
    return BeitPyramid(config, size, remat, dtype=jnp.float32, rngs=nnx.Rngs(0))


def images(encoder, count=2):
    return jax.random.normal(jax.random.key(1), (count, *encoder.image_size, 3))


def one_by_one(encoder, image_NHWC, keys_N, rates):
    """All blocks' outputs, without scans."""
    graphdef, variables = nnx.split(encoder.blocks)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), variables)
    tokens = encoder.patch_embed(image_NHWC)
    x = jnp.concatenate([jnp.broadcast_to(encoder.cls_token[...], (len(tokens), 1, 16)), tokens], axis=1)
    outputs = []
    for number, rate in enumerate(rates):
        block = nnx.merge(graphdef, jax.tree.map(lambda leaf, number=number: leaf[number], flat))
        x = block(x, rate, layers.fold_keys(keys_N, number))
        outputs.append(x)
    return outputs


@pytest.mark.parametrize("out_blocks", [(2, 4, 6, 8), (1, 2, 4, 5)])
def test_features_are_those_after_the_named_blocks(out_blocks):
    """With stochastic depth, whose rate rises from 0 in the first block to `drop_path` in the last."""
    encoder = make(out_blocks, drop_path=0.5)
    keys = jax.random.split(jax.random.key(2), 2)
    rates = np.linspace(0, 0.5, out_blocks[-1])
    outputs = jax.jit(lambda image, keys: one_by_one(encoder, image, keys, rates))(images(encoder), keys)
    features = jax.jit(encoder.features)(images(encoder), keys)
    for block, feature in zip(out_blocks, features, strict=True):
        wanted = outputs[block - 1][:, 1:].reshape(feature.shape)
        np.testing.assert_allclose(feature, wanted, rtol=1e-4, atol=1e-4)


def test_maps_at_four_scales_of_odd_windows_too():
    encoder = make((1, 2, 3, 4), size=(48, 80))
    shapes = [x.shape for x in jax.eval_shape(encoder, images(encoder))]
    assert shapes == [(2, 12, 20, 16), (2, 6, 10, 16), (2, 3, 5, 16), (2, 1, 2, 16)]


def test_rematerialised_gradients_are_the_same():
    def gradient(encoder):
        graphdef, params, rest = nnx.split(encoder, nnx.Param, ...)
        loss = lambda params: sum((x**2).mean() for x in nnx.merge(graphdef, params, rest)(images(encoder)))
        return jax.tree.leaves(jax.jit(jax.grad(loss))(params))

    for plain, remade in zip(gradient(make((1, 2, 3, 4))), gradient(make((1, 2, 3, 4), remat="full")), strict=True):
        np.testing.assert_allclose(plain, remade, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(40, 48), (16, 64)])
def test_crops_that_patches_do_not_fill_are_refused(size):
    with pytest.raises(UserError, match="multiples of 16, at least 32"):
        make((1, 2, 3, 4), size=size)


@pytest.mark.parametrize("out_blocks", [(1, 2, 4), (2, 1, 3, 4), (0, 1, 2, 4), (1, 1, 2, 4), (1, 2, 3, 3)])
def test_out_blocks_that_do_not_fit_are_refused(out_blocks):
    config = ConfigDict(dict(dim=16, depth=4, heads=2, mlp_ratio=2.0, layer_scale=1.0, drop_path=0.0))
    config.out_blocks = out_blocks
    with pytest.raises(UserError, match="four ascending counts"):
        BeitPyramid(config, (32, 32), "none", dtype=jnp.float32, rngs=nnx.Rngs(0))


def test_images_of_another_size_are_refused():
    with pytest.raises(UserError, match="built for"):
        make((1, 2, 3, 4))(jnp.zeros((1, 32, 32, 3)))
