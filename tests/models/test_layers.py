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


@pytest.mark.parametrize("size", [(8, 12), (11, 5)])
def test_by_patches_is_the_convolution(size):
    conv = nnx.Conv(3, 5, (4, 4), 4, padding="VALID", rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, *size, 3))
    np.testing.assert_allclose(layers.by_patches(conv, x), conv(x), rtol=1e-5, atol=1e-5)


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


def test_dropped_elements_are_torchs_dropout():
    """Each by itself, each image by its own key, the rest scaled; no key, no drop."""
    x = jnp.ones((16, 3, 2, 64))
    keys = jax.random.split(jax.random.key(0), 16)
    dropped = np.asarray(layers.drop_elements(x, 0.25, keys))
    np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3], rtol=1e-6)
    assert 0.2 < (dropped == 0).mean() < 0.3
    assert (dropped != dropped[:, :1, :1]).any() and len(np.unique(dropped.reshape(16, -1), axis=0)) == 16
    np.testing.assert_array_equal(layers.drop_elements(x[5:6], 0.25, keys[5:6])[0], dropped[5])
    np.testing.assert_array_equal(layers.drop_elements(x, 0.25, None), x)


def test_keys_of_weights_are_those_of_nnx():
    """In order."""
    ours, theirs = layers.weight_keys(jax.random.key(3)), nnx.Rngs(params=jax.random.key(3))
    drawn = [[jax.random.key_data(rngs.params()) for _ in range(4)] for rngs in (ours, theirs)]
    np.testing.assert_array_equal(*drawn)


@pytest.mark.parametrize(("remat", "platform"), [("none", "cpu"), ("full", "cpu"), ("none", "gpu"), ("full", "gpu")])
def test_a_scan_keeps_the_statistics_of_its_modules(monkeypatch, remat, platform):
    """As the same modules one after the other do; on a GPU there is no loop."""
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    x = np.random.default_rng(0).normal(size=(4, 3, 2, 5)).astype(np.float32)
    make = lambda rngs: layers.ConvNormRelu(5, 5, 1, dtype=jnp.float32, rngs=rngs)
    graphdef, variables = nnx.split(layers.stack_modules(make, 3, nnx.Rngs(0)))
    variables = nnx.to_pure_dict(variables)

    def scanned(x):
        modules = nnx.merge(graphdef, variables)
        apply = lambda module, x, _: (module(x, train=True), None)
        y, _ = layers.scan_modules(modules, apply, x, remat=remat, changes=True)
        return y, nnx.to_pure_dict(nnx.state(modules, nnx.BatchStat))

    def one_by_one(x):
        statistics = []
        for number in range(3):
            module = nnx.merge(graphdef, jax.tree.map(lambda leaf, number=number: leaf[number], variables))
            x = module(x, train=True)
            statistics.append(nnx.to_pure_dict(nnx.state(module, nnx.BatchStat)))
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *statistics)

    along_axes = lambda function: jax.vmap(jax.vmap(function, axis_name="fsdp"), axis_name="data")
    loops = jax.jit(along_axes(scanned)).lower(x[None, None]).as_text().count("stablehlo.while")
    assert loops == (0 if platform == "gpu" else 1)
    run = lambda function: along_axes(function)(x[None, None])
    for left, right in zip(jax.tree.leaves(run(scanned)), jax.tree.leaves(run(one_by_one)), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
