"""Convolutions whose gradients are fast on CPU, within a loop too.

XLA's fast code for CPUs takes images as NHWC and kernels as HWIO. The gradients that JAX writes of a convolution have
their axes in other orders. The compiler brings them into this one, but not within a loop: in a `lax.scan` over layers
they ran 13 to 45 times as long as here. For a depthwise convolution it has no fast code at all, and where a dilated
kernel reaches far beyond the map it multiplies the zeros there (benchmarks/RESULTS.md, "Convolutions on CPU").
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

Image = Float[Array, "N H W I"]
Kernel = Float[Array, "h w I O"]
Output = Float[Array, "N P Q O"]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
"""Cells before and after, of rows and of columns; a negative number cuts cells off."""

_convolve_nhwc = functools.partial(lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def convolve(
    image_NHWI: Image,
    kernel_hwIO: Kernel,
    strides: Pair,
    padding: Padding,
    *,
    rhs_dilation: Pair,
    feature_group_count: int,
    **options: Any,
) -> Output:
    """`lax.conv_general_dilated` as `nnx.Conv` calls it, with gradients of its own on CPU where there are no groups.

    For layers that set no other options than strides, padding, dilation and groups: on CPU others are not read.
    """
    if jax.default_backend() == "cpu" and feature_group_count == 1:
        may_skip = max(rhs_dilation) > 1 and strides == (1, 1) and not _multiplies_padding.get()
        limit = REACHES_OUT_OF_WIDE if kernel_hwIO.shape[2] >= MANY else REACHES_OUT
        if may_skip and _share_inside(image_NHWI, kernel_hwIO, padding, rhs_dilation) < limit:
            return _by_elements(image_NHWI, kernel_hwIO, padding, rhs_dilation)
        return _convolve(image_NHWI, kernel_hwIO, strides, padding, rhs_dilation)
    return lax.conv_general_dilated(
        image_NHWI,
        kernel_hwIO,
        strides,
        padding,
        rhs_dilation=rhs_dilation,
        feature_group_count=feature_group_count,
        **options,
    )


REACHES_OUT, REACHES_OUT_OF_WIDE, MANY = 0.4, 0.58, 512
"""The share of products with cells inside the image below which the others are left out; the second of kernels that
take `MANY` channels or more. With their gradients kernels of 64 channels on 24x24 cells take half of the time at a
share of 0.2 and half as much again at 0.44; of 2048 to 256 channels, on 64x64 cells, half of the time at 0.56."""

_multiplies_padding = contextvars.ContextVar("_multiplies_padding", default=False)


@contextlib.contextmanager
def with_padding() -> Iterator[None]:
    """What is traced within multiplies the padding too, as on other devices: operations are counted so.

    Its traces must not be kept for a run.
    """
    token = _multiplies_padding.set(True)
    try:
        yield
    finally:
        _multiplies_padding.reset(token)


class _Span(NamedTuple):
    """Along one axis, the output's cells for which an element of a kernel lies inside the image, from `first` to before
    `end`; their cells in the image lie `offset` further. Where `end` is not above `first` there are none."""

    first: int
    end: int
    offset: int


def _spans(cells: int, size: int, padding: Pair, dilation: int) -> tuple[int, list[_Span]]:
    """Along one axis, strides 1: the output's cells, and the span of each element of the kernel."""
    outputs = max(0, cells + sum(padding) - dilation * (size - 1))
    offsets = [element * dilation - padding[0] for element in range(size)]
    return outputs, [_Span(max(0, -offset), min(outputs, cells - offset), offset) for offset in offsets]


def _share_inside(image: Image, kernel: Kernel, padding: Padding, dilation: Pair) -> float:
    """Of the products of a convolution with strides 1, those that are not with padding."""
    share = 1.0
    for axis in zip(image.shape[1:3], kernel.shape[:2], padding, dilation, strict=True):
        outputs, spans = _spans(*axis)
        share *= sum(max(0, span.end - span.first) for span in spans) / max(1, outputs * len(spans))
    return share


@functools.partial(jax.checkpoint, static_argnums=(2, 3))  # Else the parts of the image would be kept.
def _by_elements(image: Image, kernel: Kernel, padding: Padding, dilation: Pair) -> Output:
    """The convolution with strides 1 as one product for each element of the kernel, with the cells that it meets."""
    (height, rows), (width, columns) = map(_spans, image.shape[1:3], kernel.shape[:2], padding, dilation)
    total = jnp.zeros((image.shape[0], height, width, kernel.shape[3]), jnp.promote_types(image.dtype, jnp.float32))
    for number, row in enumerate(rows):
        for other, column in enumerate(columns):
            if row.end <= row.first or column.end <= column.first:
                continue
            down, across = (slice(span.first + span.offset, span.end + span.offset) for span in (row, column))
            element = kernel[number, other]
            product = jnp.einsum("nhwi,io->nhwo", image[:, down, across], element, preferred_element_type=total.dtype)
            beside = ((0, 0), (row.first, height - row.end), (column.first, width - column.end), (0, 0))
            total += jnp.pad(product, beside)
    return total.astype(image.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(image: Image, kernel: Kernel, strides: Pair, padding: Padding, dilation: Pair) -> Output:
    return _convolve_nhwc(image, kernel, strides, padding, rhs_dilation=dilation)


def _forward(image: Image, kernel: Kernel, *geometry: Any) -> tuple[Output, tuple[Image, Kernel]]:
    return _convolve(image, kernel, *geometry), (image, kernel)


def _gradients(
    strides: Pair, padding: Padding, dilation: Pair, kept: tuple[Image, Kernel], gradient: Output
) -> tuple[Image, Kernel]:
    """The image's is a convolution of the gradient with the kernel turned around."""
    image, kernel = kept
    for_image, for_kernel = [], []
    for axis, (before, _) in enumerate(padding):
        cells = image.shape[1 + axis]
        reach = dilation[axis] * (kernel.shape[axis] - 1)
        span = strides[axis] * (gradient.shape[1 + axis] - 1) + 1
        for_image.append((reach - before, cells + before - span))
        for_kernel.append((before, span + reach - cells - before))

    turned_hwOI = kernel[::-1, ::-1].swapaxes(2, 3)
    of_image = _convolve_nhwc(gradient, turned_hwOI, (1, 1), for_image, lhs_dilation=strides, rhs_dilation=dilation)
    height, width, channels_in, channels_out = kernel.shape
    is_wide = min(channels_in, channels_out) >= WIDE
    if not (is_wide or height == width == 1 or gradient.size > PRODUCTS_ABOVE):
        return of_image, _as_convolution(image, gradient, strides, for_kernel, dilation)
    if strides == (1, 1) and channels_in >= channels_out:
        return of_image, _by_shifting_the_gradient(image, gradient, (height, width), for_image, dilation)
    return of_image, _by_shifting_the_image(image, gradient, strides, for_kernel, dilation)


WIDE = 32
"""Channels on both sides from which a kernel's gradient is quicker as products than as a convolution, whose speed is
half of theirs. Of a kernel of 1x1 it is one product, whatever the channels."""

PRODUCTS_ABOVE = 2**20
"""Numbers in the largest gradient that the image is convolved with if there are fewer channels. Beyond 4 MiB in
float32, XLA takes up to six times as long for that as for products; below, products are slower."""


def _as_convolution(image: Image, gradient: Output, strides: Pair, padding: Sequence[Pair], dilation: Pair) -> Kernel:
    """A kernel's gradient: the image convolved with the gradient, channels and images in each other's place."""
    image_IHWN, gradient_PQNO = image.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)
    return _convolve_nhwc(image_IHWN, gradient_PQNO, dilation, padding, rhs_dilation=strides).transpose(1, 2, 0, 3)


def _by_shifting_the_gradient(
    image: Image, gradient: Output, size: Pair, padding: Sequence[Pair], dilation: Pair
) -> Kernel:
    """A kernel's gradient, strides 1: for each of its elements, the product of the image and the cells that see it.

    Args:
      size: the kernel's height and width.
      padding: that of the image's gradient.
    """
    starts = [step * np.arange(count)[::-1] for count, step in zip(size, dilation, strict=True)]
    product = lambda seen: jnp.einsum("npqi,npqo->io", image, seen)
    return _of_elements(gradient, padding, starts, image.shape[1:3], (1, 1), product)


def _by_shifting_the_image(
    image: Image, gradient: Output, strides: Pair, padding: Sequence[Pair], dilation: Pair
) -> Kernel:
    """A kernel's gradient: for each of its elements, the product of the cells that it sees and the gradient."""
    spans = [stride * (cells - 1) + 1 for stride, cells in zip(strides, gradient.shape[1:3], strict=True)]
    padded = [cells + sum(pair) for cells, pair in zip(image.shape[1:3], padding, strict=True)]
    starts = [np.arange(0, cells - span + 1, step) for cells, span, step in zip(padded, spans, dilation, strict=True)]
    product = lambda seen: jnp.einsum("npqi,npqo->io", seen, gradient)
    return _of_elements(image, padding, starts, spans, strides, product)


def _of_elements(
    x: Array,
    padding: Sequence[Pair],
    starts: Sequence[np.ndarray],
    spans: Sequence[int],
    strides: Pair,
    product: Callable[[Array], Array],
) -> Kernel:
    """The product of what lies at each start of rows and columns: one after the other, or all copies would be kept."""
    padded = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0)))

    def of_element(start: Int[Array, "4"]) -> Array:
        seen = lax.dynamic_slice(padded, start, (x.shape[0], *spans, x.shape[3]))
        return product(seen[:, :: strides[0], :: strides[1]])

    places = np.stack(np.meshgrid([0], *starts, [0], indexing="ij"), axis=-1).reshape(-1, 4).astype(np.int32)
    products = lax.map(of_element, places)
    return products.reshape(*map(len, starts), *products.shape[1:])


_convolve.defvjp(_forward, _gradients)


SHIFTED_UP_TO = 5
"""Cells a side of the largest depthwise convolution that is a sum of shifted products on TPU and GPU: a larger one has
too many. On CPU all are."""


def depthwise(conv: nnx.Conv, image_NHWC: Float[Array, "N H W C"]) -> Float[Array, "N H W C"]:
    """What a depthwise `conv` of an odd size gives; see `SHIFTED_UP_TO` for how."""
    is_cpu = jax.default_backend() == "cpu"
    if conv.kernel_size[0] > SHIFTED_UP_TO and not is_cpu:
        return conv(image_NHWC)
    multiply = _depthwise_on_cpu if is_cpu else _depthwise
    output = multiply(image_NHWC.astype(conv.dtype), conv.kernel[...].astype(conv.dtype)[:, :, 0])
    return output if conv.bias is None else output + conv.bias[...].astype(conv.dtype)


def _depthwise(image: Float[Array, "N H W C"], kernel: Float[Array, "size size C"]) -> Float[Array, "N H W C"]:
    return _shifted(_padded(image, kernel), kernel)


def _padded(image: Array, kernel: Array) -> Array:
    before = len(kernel) // 2
    return jnp.pad(image, ((0, 0), (before, before), (before, before), (0, 0)))


def _shifted(padded: Array, kernel: Array) -> Float[Array, "N H W C"]:
    """The sum over a kernel's elements of an image shifted and multiplied."""
    size, (_, height, width, _) = len(kernel), padded.shape
    cells = lambda start, end: slice(start, start + end - size + 1)
    shifted = (
        padded[:, cells(dy, height), cells(dx, width)] * kernel[dy, dx] for dy in range(size) for dx in range(size)
    )
    return sum(shifted, jnp.zeros((), padded.dtype))


def _made_once(image: Array, kernel: Array) -> tuple[Array, Array]:
    """(the image padded, the kernel), in memory: XLA's CPU compiler makes them anew wherever they are read.

    Without the barrier it makes what the image is made of for each shift: a GELU before a convolution of 7x7 is
    computed 49 times. In a loop over layers it looks up the kernel among those of all layers for each cell. There a
    barrier changes nothing, but a product is never made anew, and one with the identity is the kernel itself, if it is
    finite.
    """
    elements = kernel.reshape(-1, kernel.shape[-1])
    copied = jnp.matmul(jnp.eye(len(elements), dtype=kernel.dtype), elements, precision=lax.Precision.HIGHEST)
    return lax.optimization_barrier(_padded(image, kernel)), copied.reshape(kernel.shape)


@jax.custom_vjp
def _depthwise_on_cpu(image: Array, kernel: Array) -> Array:
    return _shifted(*_made_once(image, kernel))


def _forward_on_cpu(image: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise_on_cpu(image, kernel), (image, kernel)


def _gradients_on_cpu(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    """The kernel's one element after the other: size x size sums in one program take long to compile."""
    image, kernel = kept
    padded, size = lax.optimization_barrier(_padded(image, kernel)), len(kernel)

    def of_element(number: Array) -> Array:
        start = (0, number // size, number % size, 0)
        return (lax.dynamic_slice(padded, start, image.shape) * gradient).sum((0, 1, 2))

    of_kernel = lax.map(of_element, jnp.arange(size * size)).reshape(kernel.shape)
    return _depthwise_on_cpu(gradient, kernel[::-1, ::-1]), of_kernel


_depthwise_on_cpu.defvjp(_forward_on_cpu, _gradients_on_cpu)
