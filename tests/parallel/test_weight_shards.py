"""Weights in parts on devices: put together one module at a time, their gradients summed and scattered."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from vspw_jax.console.errors import UserError
from vspw_jax.parallel import placement, weight_shards
from vspw_jax.parallel.mesh import DATA_AXES, make_mesh

STACKED = {
    "encoder/interactions": 1,
    "encoder/interactions/blocks": 2,
    "encoder/blocks": 2,
    "decoder/pixel_decoder/encoder": 1,
}


def layout_on(mesh):
    """Arrays of 16 elements and more are divided."""
    return placement.StateLayout(mesh, 16, STACKED)


def test_the_rules_divide_no_stacked_axis_and_no_small_array():
    """Over 4 devices: the first axis of one module's array that divides, of weights and optimizer state alike."""
    shapes = {
        "encoder": {
            "interactions": {
                "blocks": {"fc1": np.zeros((4, 6, 8, 16)), "bias": np.zeros((4, 6, 12))},
                "injector": {"kernel": np.zeros((4, 7, 12))},
            },
            "blocks": {"fc1": np.zeros((4, 4, 6, 16))},
            "patch_embed": {"kernel": np.zeros((16, 16, 3, 8))},
        },
        "decoder": {
            "pixel_decoder": {"encoder": {"fc1": np.zeros((8, 16, 16))}, "odd": np.zeros((7, 9))},
            "layers": {0: {"kernel": np.zeros((8, 16))}},
        },
    }
    mesh = make_mesh(devices=jax.devices()[:8], fsdp=4)
    state = {"params": shapes, "opt_state": (None, {"mu": shapes}), "step": np.zeros(())}
    specs = layout_on(mesh).specs(state)
    encoder, decoder = specs["params"]["encoder"], specs["params"]["decoder"]
    assert encoder["interactions"]["blocks"] == {"fc1": P(None, None, "fsdp"), "bias": P()}
    assert encoder["interactions"]["injector"]["kernel"] == P(None, None, "fsdp")
    assert encoder["blocks"]["fc1"] == P(None, None, None, "fsdp")
    assert encoder["patch_embed"]["kernel"] == P("fsdp")
    assert decoder["pixel_decoder"] == {"encoder": {"fc1": P(None, "fsdp")}, "odd": P()}
    assert decoder["layers"][0]["kernel"] == P("fsdp")
    assert specs["opt_state"][1]["mu"] == specs["params"] and specs["step"] == P()


@pytest.mark.parametrize(("fsdp", "message"), [(3, "fsdp=1"), (-1, "fsdp=1"), (6, "fsdp=2"), (16, "fsdp=8")])
def test_devices_that_do_not_divide_are_refused(fsdp, message):
    with pytest.raises(UserError, match=message):
        make_mesh(devices=jax.devices()[:8], fsdp=fsdp)


def test_a_batch_in_parts_must_divide_among_the_devices():
    with pytest.raises(UserError, match=r"8 clips.*in 2 parts.*multiple of 16"):
        make_mesh(8, 0, jax.devices()[:8], accumulate=2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_value_and_gradient_of_a_scan_over_shards_are_those_of_whole_weights(dtype):
    """Three stacked layers on 2 x 4 devices with a batch of eight, against JAX on one without any map."""
    rng = np.random.default_rng(0)
    blocks = {name: {"kernel": rng.normal(size=(3, 8, 8)).astype(np.float32)} for name in ("blocks",)}
    weights = {"encoder": {"interactions": blocks["blocks"]}}
    x = rng.normal(size=(8, 8)).astype(np.float32)

    def loss(weights, x):
        def layer(x, kernel):
            kernel = weight_shards.put_together(kernel)
            assert kernel.shape == (8, 8)
            return jnp.tanh(x @ kernel.astype(dtype)), None

        y, _ = jax.lax.scan(layer, x.astype(dtype), weights["encoder"]["interactions"]["kernel"])
        return y.astype(jnp.float32).sum()

    mesh = make_mesh(devices=jax.devices()[:8], fsdp=4)
    specs = layout_on(mesh).specs(weights)
    assert specs["encoder"]["interactions"]["kernel"] == P(None, "fsdp")

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(specs, P(DATA_AXES)), out_specs=(P(), specs), check_vma=False
    )
    def mapped(parts, x):
        shards = layout_on(mesh).as_shards(parts, weights, dtype)
        value, gradients = jax.value_and_grad(loss)(shards, x)
        return jax.lax.psum(value, DATA_AXES), placement.added_up(gradients)

    value, gradient = jax.jit(mapped)(weights, x)
    wanted, wanted_gradient = jax.value_and_grad(loss)(weights, x)
    tolerance = dict(rtol=1e-5, atol=1e-5) if dtype == jnp.float32 else dict(rtol=3e-2, atol=6e-2)
    np.testing.assert_allclose(value, wanted, **tolerance)
    leaf, wanted_leaf = (tree["encoder"]["interactions"]["kernel"] for tree in (gradient, wanted_gradient))
    assert leaf.dtype == jnp.float32 and leaf.addressable_shards[0].data.shape == (3, 2, 8)
    np.testing.assert_allclose(leaf, wanted_leaf, **tolerance)


def test_gradients_of_many_devices_are_summed_in_float32():
    """Each of eight devices gives 1 + 2^-7 times its share: in bfloat16 the sum would round the small parts away."""
    mesh = make_mesh(devices=jax.devices()[:8], fsdp=8)
    shares = np.array([256.0, 1, 1, 1, 1, 1, 1, 1], np.float32)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P("fsdp"), P("fsdp")), out_specs=P("fsdp"), check_vma=False)
    def gradient(part, share):
        of = lambda part: (weight_shards.whole(part, -1, "fsdp", jnp.bfloat16) * share.astype(jnp.bfloat16)).sum()
        return jax.grad(of)(part)

    np.testing.assert_array_equal(jax.jit(gradient)(np.zeros(8, np.float32), shares), 263.0)
