"""Our convolutions and their gradients against JAX's own, and the axes' orders that XLA's fast code for CPUs takes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from vspw_jax.models import convolution, layers


def loss_and_gradients(conv, image, apply=lambda conv, image: conv(image)):
    """Of a sum with weights that differ from cell to cell."""
    graphdef, weights = nnx.split(conv)

    def loss(weights, image):
        output = apply(nnx.merge(graphdef, weights), image)
        return (jnp.sin(jnp.arange(output.size)).reshape(output.shape) * output).sum()

    return jax.value_and_grad(loss, argnums=(0, 1))(nnx.to_pure_dict(weights), image)


def assert_close(ours, jaxs):
    compare = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * np.abs(y).max())
    jax.tree.map(compare, ours, jaxs)


@pytest.mark.parametrize("channels", [(4, 6), (6, 4)])
@pytest.mark.parametrize("wide", [0, convolution.WIDE])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_gradients_are_jaxs(size, stride, dilation, wide, channels, monkeypatch):
    """At sizes that strides divide and that they do not, a kernel larger than the image among them."""
    monkeypatch.setattr(convolution, "WIDE", wide)
    monkeypatch.setattr(convolution, "REACHES_OUT", 0.0)
    make = {"use_bias": True, "dtype": jnp.float32}
    ours = layers.conv(*channels, size, stride, dilation, **make, rngs=nnx.Rngs(0))
    jaxs = layers.conv(*channels, size, stride, dilation, **make, rngs=nnx.Rngs(0))
    jaxs.conv_general_dilated = lax.conv_general_dilated
    for shape in ((3, 9, 6), (1, 4, 5)):
        image = np.random.default_rng(0).normal(size=(*shape, channels[0])).astype(np.float32)
        assert_close(loss_and_gradients(ours, image), loss_and_gradients(jaxs, image))


@pytest.mark.parametrize("channels", [(4, 6), (6, 4)])
@pytest.mark.parametrize("padding", [((1, 0), (0, 2)), ((-1, 0), (1, -1)), ((3, 4), (5, 2))])
def test_gradients_under_any_padding_are_jaxs(padding, channels, monkeypatch):
    """One side alone, cells cut off, and more than the kernel reaches."""
    monkeypatch.setattr(convolution, "WIDE", 0)
    rng = np.random.default_rng(0)
    image, kernel = (rng.normal(size=size).astype(np.float32) for size in ((2, 7, 6, channels[0]), (3, 3, *channels)))

    def gradients(convolve):
        loss = lambda image, kernel: jnp.sin(convolve(image, kernel)).sum()
        return jax.jit(jax.grad(loss, argnums=(0, 1)))(image, kernel)

    names = ("NHWC", "HWIO", "NHWC")
    ours = gradients(lambda *arrays: convolution._convolve(*arrays, (1, 1), padding, (2, 1)))
    jaxs = gradients(
        lambda *arrays: lax.conv_general_dilated(*arrays, (1, 1), padding, rhs_dilation=(2, 1), dimension_numbers=names)
    )
    for one, other in zip(ours, jaxs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("dilation", [(3, 5), (6, 2), (12, 12)])
@pytest.mark.parametrize("more", [((0, 0), (0, 0)), ((-2, 3), (1, -2))])
def test_a_kernel_that_reaches_beyond_the_image(more, dilation):
    """As wide as the image and wider; all of the kernel's outer elements may lie outside."""
    padding = tuple((step + before, step + after) for step, (before, after) in zip(dilation, more, strict=True))
    rng = np.random.default_rng(0)
    image, kernel = (rng.normal(size=size).astype(np.float32) for size in ((2, 9, 7, 4), (3, 3, 4, 6)))
    names = ("NHWC", "HWIO", "NHWC")
    jaxs = lambda *arrays: lax.conv_general_dilated(
        *arrays, (1, 1), padding, rhs_dilation=dilation, dimension_numbers=names
    )
    assert_close(convolution._by_elements(image, kernel, padding, dilation), jaxs(image, kernel))
    met = jaxs(np.ones_like(image[:1, ..., :1]), np.ones_like(kernel[..., :1, :1]))
    assert convolution._share_inside(image, kernel, padding, dilation) == pytest.approx(met.mean() / 9)
    gradients = lambda convolve: jax.grad(lambda *arrays: jnp.sin(convolve(*arrays)).sum(), argnums=(0, 1))
    ours = gradients(lambda *arrays: convolution._by_elements(*arrays, padding, dilation))(image, kernel)
    for one, other in zip(ours, gradients(jaxs)(image, kernel), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_types_of_a_kernel_that_reaches_beyond_the_image(dtype):
    """Compiled; sums are in float32, as the convolution's, and what comes out has the type that went in."""
    rng = np.random.default_rng(0)
    image, kernel = (jnp.asarray(rng.normal(size=size), dtype) for size in ((2, 8, 8, 16), (3, 3, 16, 4)))
    fields = dict(rhs_dilation=(7, 7), feature_group_count=1)
    convolve = lambda *arrays: convolution.convolve(*arrays, (1, 1), ((7, 7), (7, 7)), **fields)
    assert "dot_general" in str(jax.make_jaxpr(convolve)(image, kernel))
    gradients = jax.jit(jax.grad(lambda *arrays: jnp.sin(convolve(*arrays).astype(jnp.float32)).sum(), argnums=(0, 1)))
    whole = [x.astype(jnp.float32) for x in (image, kernel)]
    found = (convolve(image, kernel), *gradients(image, kernel))
    for one, other in zip(found, (convolve(*whole), *gradients(*whole)), strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one.astype(jnp.float32), other, atol=0.02 * np.abs(other).max())


def test_an_output_without_cells():
    image, kernel = jnp.zeros((1, 3, 3, 2)), jnp.zeros((3, 3, 2, 2))
    assert convolution._share_inside(image, kernel, ((0, 0), (0, 0)), (4, 4)) == 0
    assert convolution._by_elements(image, kernel, ((0, 0), (0, 0)), (4, 4)).shape == (1, 0, 0, 2)


def test_what_lies_outside_is_left_out_on_cpu_alone(monkeypatch):
    taken = []
    for name in ("_by_elements", "_convolve"):
        monkeypatch.setattr(convolution, name, lambda *arrays, name=name: taken.append(name))
    image, kernel = jnp.zeros((1, 12, 12, 4)), jnp.zeros((3, 3, 4, 4))

    def convolve(dilation):
        padding = ((dilation, dilation),) * 2
        convolution.convolve(image, kernel, (1, 1), padding, rhs_dilation=(dilation,) * 2, feature_group_count=1)

    for dilation in (1, 6, 8, 12):
        convolve(dilation)
    assert taken == ["_convolve", "_convolve", "_by_elements", "_by_elements"]
    monkeypatch.setattr(convolution, "MANY", 4)
    convolve(6)
    assert taken.pop() == "_by_elements"
    with pytest.raises(KeyboardInterrupt), convolution.with_padding():
        convolve(12)
        raise KeyboardInterrupt
    convolve(12)
    assert taken[4:] == ["_convolve", "_by_elements"]


@pytest.mark.parametrize("backend", ["cpu", "tpu"])
@pytest.mark.parametrize(("size", "has_bias"), [(3, True), (5, False), (7, True)])
def test_depthwise_is_the_grouped_convolution(size, has_bias, backend, monkeypatch):
    conv = layers.conv(4, 4, size, use_bias=has_bias, groups=4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    if has_bias:
        conv.bias[...] = jnp.arange(4.0)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    for shape in ((2, 5, 3, 4), (1, 1, 1, 4)):
        image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        assert_close(loss_and_gradients(conv, image, convolution.depthwise), loss_and_gradients(conv, image))


@pytest.mark.parametrize("groups", [1, 4])
def test_half_precision_stays(groups):
    conv = layers.conv(4, 4, 3, groups=groups, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    apply = convolution.depthwise if groups > 1 else lambda conv, image: conv(image)
    weights, image = loss_and_gradients(conv, jnp.ones((2, 5, 5, 4), jnp.bfloat16), apply)[1]
    assert (weights["kernel"].dtype, image.dtype) == (jnp.float32, jnp.bfloat16)
    image = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype(jnp.bfloat16)
    found, wanted = (np.asarray(function(image), np.float32) for function in (lambda x: apply(conv, x), conv))
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.02)


def test_groups_are_jaxs():
    conv = layers.conv(4, 6, 3, groups=2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    image = np.random.default_rng(0).normal(size=(2, 5, 4, 4)).astype(np.float32)
    parts = [
        lax.conv_general_dilated(half, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        for half, kernel in zip(np.split(image, 2, -1), np.split(conv.kernel[...], 2, -1), strict=True)
    ]
    np.testing.assert_allclose(conv(image), np.concatenate(parts, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the orders are those of XLA's code for CPUs")
def test_in_a_loop_all_convolutions_are_in_the_order_of_fast_code():
    modules = layers.stack_modules(lambda rngs: layers.conv(4, 4, 3, dtype=jnp.float32, rngs=rngs), 3, nnx.Rngs(0))
    graphdef, kernels = nnx.split(modules)

    def loss(kernels, image):
        apply = lambda conv, x, _: (conv(x), None)
        return (layers.scan_modules(nnx.merge(graphdef, kernels), apply, image)[0] ** 2).sum()

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))
    program = gradients.lower(kernels, jnp.ones((2, 5, 5, 4))).compile().as_text()
    orders = re.findall(r" convolution\(.*dim_labels=(\S+?),? ", program)
    assert "while(" in program and len(orders) == 3 and set(orders) == {"b01f_01io->b01f"}


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of XLA's compiler for CPUs")
@pytest.mark.parametrize("size", [3, 7])
def test_what_a_depthwise_convolution_reads_is_not_made_for_every_shift(size):
    """The parts of the program that shift have neither a GELU before it nor the kernels of all layers."""
    make = lambda rngs: layers.conv(4, 4, size, groups=4, dtype=jnp.float32, rngs=rngs)
    graphdef, kernels = nnx.split(layers.stack_modules(make, 3, nnx.Rngs(0)))
    apply = lambda conv, x, _: (convolution.depthwise(conv, jax.nn.gelu(x, approximate=False)), None)
    run = jax.jit(lambda kernels, image: layers.scan_modules(nnx.merge(graphdef, kernels), apply, image)[0])
    program = run.lower(kernels, jnp.ones((2, 9, 9, 4))).compile().as_text()
    shifts = [part for part in program.split("\n\n") if part.count(" slice(") >= size**2]
    assert shifts
    assert not [part for part in shifts if "/erf" in part or f"f32[3,{size},{size},1,4]" in part]
