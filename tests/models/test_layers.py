"""Layers written for speed against flax's convolutions, and batch norm's statistics against torch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from vspw_jax.models import layers
from vspw_jax.models.encoders import beit
from vspw_jax.parallel.mesh import make_mesh


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 1, 1, 4)])
def test_depthwise3x3_is_the_grouped_convolution(shape):
    conv = layers.conv3x3(4, 4, use_bias=True, groups=4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    conv.bias[...] = jnp.arange(4.0)
    x = jax.random.normal(jax.random.key(1), shape)
    np.testing.assert_allclose(layers.depthwise3x3(conv, x), conv(x), rtol=1e-5, atol=1e-5)


def test_patch_embedding_is_the_strided_convolution():
    embedding = beit.PatchEmbedding(6, dtype=jnp.float32, rngs=nnx.Rngs(0))
    embedding.proj.bias[...] = jnp.arange(6.0)
    image = jax.random.normal(jax.random.key(1), (2, 32, 48, 3))
    np.testing.assert_allclose(embedding(image), layers.to_tokens(embedding.proj(image)), rtol=1e-5, atol=1e-5)


def test_running_variance_is_unbiased():
    """As in torch: 0.9 of the old and 0.1 of the sum of squares over count - 1, over all devices."""
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 2, 4)).astype(np.float32)  # Two devices of three images.

    def one_device(x):
        norm = layers.batch_norm(4, dtype=jnp.float32, rngs=nnx.Rngs(0))
        norm(x, use_running_average=False)
        return norm.mean[...], norm.var[...]

    # Of the mesh's two axes one has two devices, the other one.
    over_devices = jax.vmap(jax.vmap(one_device, axis_name="fsdp"), axis_name="data")
    mean, var = (values[:, 0] for values in over_devices(x[:, None]))
    values = x.reshape(-1, 4)
    np.testing.assert_allclose(mean, np.tile(0.1 * values.mean(axis=0), (2, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(var, np.tile(0.9 + 0.1 * values.var(axis=0, ddof=1), (2, 1)), rtol=1e-5)


def test_batch_norm_counts_training_batches_alone():
    graphdef, state = nnx.split(layers.batch_norm(3, dtype=jnp.float32, rngs=nnx.Rngs(0)))

    def apply(state, x, train):
        norm = nnx.merge(graphdef, state)
        norm(x, use_running_average=not train)
        return nnx.state(norm)

    mesh = make_mesh()
    specs = dict(in_specs=(P(), P("data")), out_specs=P(), check_vma=False)
    mapped = lambda train: jax.jit(jax.shard_map(lambda state, x: apply(state, x, train), mesh=mesh, **specs))
    x = jnp.ones((mesh.size, 2, 2, 3))
    for _ in range(3):
        state = mapped(True)(state, x)
    state = mapped(False)(state, x)
    assert state["count"][...] == 3 and state["count"][...].dtype == np.int32
