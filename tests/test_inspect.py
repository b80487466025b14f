"""The count of floating point operations against counts by hand."""

import jax
import jax.numpy as jnp

from vspw_jax.inspect import matrix_flops


def flops(function, *shapes):
    return matrix_flops(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).jaxpr)


def test_matrix_product_with_batch_axes():
    assert flops(lambda x, y: jnp.einsum("bij,bjk->bik", x, y), (5, 2, 3), (5, 3, 4)) == 2 * 5 * 2 * 3 * 4


def test_grouped_convolution():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
        )

    assert flops(convolve, (1, 8, 6, 4), (3, 3, 2, 10)) == 2 * (4 * 3) * 10 * (3 * 3 * 2)


def test_a_scan_counts_its_length_and_recomputation_counts():
    layer = lambda x, w: (jnp.sin(x @ w), None)

    def loss(x, w, apply):
        return jax.lax.scan(apply, x, w)[0].sum()

    forward = 7 * 2 * 3 * 4 * 4
    assert flops(lambda x, w: loss(x, w, layer), (3, 4), (7, 4, 4)) == forward
    gradient = lambda apply: jax.grad(lambda x, w: loss(x, w, apply), (0, 1))
    assert flops(gradient(layer), (3, 4), (7, 4, 4)) == 3 * forward
    assert flops(gradient(jax.checkpoint(layer)), (3, 4), (7, 4, 4)) == 4 * forward
