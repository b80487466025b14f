"""Bilinear samples of maps at many points, and the cells around them, as kernels for TPUs: no gather, no scatter.

A sample is a sum over rows of a map, each weighed by its share in the point, and then over columns (see `bilinear`).
The sums over rows, of many points at a time, are a product of matrices, whose second factor the kernel makes where it
is used; those over columns are sums of the vector unit. In the backward pass the gradient of a map is another such
product. What is at a point's corners is picked likewise, with a 1 in the place of a share, so that small integers come
out as they are. With 512 in the place of the lower row's share one product gives both rows, two integers in a number.

Products at full float32 take six passes of the matrix unit. Samples that are only put into an order or into a cost have
both factors in halves of two bytes, which takes three. They are off by at most 3 * 2**-16 (5e-5) of the mean size of
the four cells, each weighed by its share.

Points of which none lies on its map are skipped, so many at a time: maps that are not wanted cost nothing with their
points put there. Sources: PointRend (arXiv 1912.08193), section 3.1; Pallas:
docs.jax.dev/en/latest/pallas/tpu/details.html.
Shapes: G maps, H and W their cells, P points of each, L of them at a time.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from vspw_jax.sampling import kernels
from vspw_jax.sampling.kernels import (
    OFF_THE_MAP,
    Lanes,
    Ref,
    is_cell,
    product,
    product_of_halves,
    shares,
    shares_in_halves,
    up_to_multiple,
)

TOGETHER = 7 * kernels.LANES
"""Points of a product. The losses' 12544 are 14 times as many."""
BEYOND_ALL = 512.0
"""A factor, beyond the integers that are picked, by which two of them fit into one number: 256 + 512 * 256 < 2**24."""
MAPS = 8
"""Of a step of a kernel: as many as a tile has rows, so that nothing is laid out anew."""

Places = tuple[Float[Array, "G P"], Float[Array, "G P"]]
"""Columns and rows, in cells."""
Row = tuple[Lanes, Lanes]
"""Some points of one map."""
Inputs = dict[int | None, tuple[Array, ...]]
"""A kernel's, by the axis along which they have the maps."""


def _where_any_lies_on_the_map(y: Ref, body: Callable[[int, Row], None]) -> None:
    """Calls `body` with a map's number and the place of some of its points, where one of these at least has a row."""
    for number in range(MAPS):

        def of_points(points: Lanes, number: int = number) -> None:
            row = (pl.ds(number, 1), points)
            pl.when(jnp.max(y[row]) > -1)(lambda: body(number, row))

        kernels.each(y.shape[1], TOGETHER, of_points)


def _sample(x: Ref, y: Ref, map_GWH: Ref, output_GP: Ref) -> None:
    """Samples of maps."""
    output_GP[...] = jnp.zeros_like(output_GP)
    _, width, height = map_GWH.shape

    def of_points(number: int, row: Row) -> None:
        of_columns_WL = product(map_GWH[number], shares(height, y[row]), (1, 0))
        output_GP[row] = (of_columns_WL * shares(width, x[row])).sum(axis=0, keepdims=True)

    _where_any_lies_on_the_map(y, of_points)


def _sample_nearly(x: Ref, y: Ref, high_GWH: Ref, low_GWH: Ref, output_GP: Ref) -> None:
    """Samples of maps in halves."""
    output_GP[...] = jnp.zeros_like(output_GP)
    _, width, height = high_GWH.shape

    def of_points(number: int, row: Row) -> None:
        map_WH = high_GWH[number], low_GWH[number]
        of_columns_WL = product_of_halves(map_WH, shares_in_halves(height, y[row]), (1, 0))
        output_GP[row] = (of_columns_WL * shares(width, x[row])).sum(axis=0, keepdims=True)

    _where_any_lies_on_the_map(y, of_points)


def _sample_all_nearly(x: Ref, y: Ref, high_GWH: Ref, low_GWH: Ref, output_GP: Ref) -> None:
    """The same of all maps at the same points, whose shares are made once."""
    maps, width, height = high_GWH.shape

    def of_points(points: Lanes) -> None:
        row = (pl.ds(0, 1), points)
        map_CH = tuple(half_GWH[...].reshape(maps * width, height) for half_GWH in (high_GWH, low_GWH))
        of_columns_CL = product_of_halves(map_CH, shares_in_halves(height, y[row]), (1, 0))
        of_columns_GWL = of_columns_CL.reshape(maps, width, -1)
        output_GP[:, points] = (of_columns_GWL * shares(width, x[row])).sum(axis=1)

    kernels.each(y.shape[1], TOGETHER, of_points)


def _spread(x: Ref, y: Ref, gradient_GP: Ref, to_map_GWH: Ref) -> None:
    """From the gradient of maps' samples that of the maps."""
    to_map_GWH[...] = jnp.zeros_like(to_map_GWH)
    _, width, height = to_map_GWH.shape

    def of_points(number: int, row: Row) -> None:
        of_columns_WL = shares(width, x[row]) * gradient_GP[row]
        to_map_GWH[number] += product(of_columns_WL, shares(height, y[row]), (1, 1))

    _where_any_lies_on_the_map(y, of_points)


def _pick(sizes: tuple[int, ...], x: Ref, y: Ref, map_WH: Ref, output_4GP: Ref) -> None:
    """What is in the four cells around points of one map of `sizes` (H, W); beyond it what is in the nearest cell."""
    output_4GP[...] = jnp.zeros_like(output_4GP)
    width, height = map_WH.shape

    def of_points(number: int, row: Row) -> None:
        left, top = jnp.floor(x[row]), jnp.floor(y[row])
        upper = jnp.clip(top, 0, sizes[0] - 2)  # It and the next are on the map; of one row the next is.
        factor_HL = jnp.where(is_cell(height, upper), 1.0, jnp.where(is_cell(height, upper + 1), BEYOND_ALL, 0.0))
        of_columns_WL = product(map_WH[...], factor_HL.astype(map_WH.dtype), (1, 0))
        for right in (0, 1):
            cell = jnp.clip(left + right, 0, sizes[1] - 1)
            both_1L = jnp.where(is_cell(width, cell), of_columns_WL, 0.0).sum(axis=0, keepdims=True)
            lower_1L = jnp.floor(both_1L / BEYOND_ALL)
            for down in (0, 1):
                is_upper = jnp.clip(top + down, 0, sizes[0] - 1) == upper
                output_4GP[(2 * down + right, *row)] = jnp.where(is_upper, both_1L - BEYOND_ALL * lower_1L, lower_1L)

    _where_any_lies_on_the_map(y, of_points)


def _block(shape: tuple[int, ...], axis: int | None) -> pl.BlockSpec:
    """What a step of a kernel has of an array: along `axis` the part of its maps, or all of it where it has none."""
    sides = tuple(MAPS if number == axis else side for number, side in enumerate(shape))
    return pl.BlockSpec(sides, lambda step: tuple(step if number == axis else 0 for number in range(len(shape))))


def _call(kernel: Callable, inputs: Inputs, shape: tuple[int, ...], axis: int, interpret: bool) -> Array:
    """Runs a kernel for all maps; its output has a `shape`, in float32, and the maps along `axis`."""
    arrays = [(x, of_maps) for of_maps, group in inputs.items() for x in group]
    return pl.pallas_call(
        kernel,
        grid=(shape[axis] // MAPS,),
        in_specs=[_block(x.shape, of_maps) for x, of_maps in arrays],
        out_specs=_block(shape, axis),
        out_shape=jax.ShapeDtypeStruct(shape, jnp.float32),
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=kernels.vector_memory()),
        interpret=interpret,
    )(*(x for x, _ in arrays))


def _places(points_GP2: Float[Array, "G P 2"], height: int, width: int) -> Places:
    """Columns and rows of points, filled up with some off the map."""
    maps, points = (up_to_multiple(n, of) - n for n, of in zip(points_GP2.shape, (MAPS, TOGETHER), strict=False))

    def in_cells(number: int, cells: int) -> Float[Array, "G P"]:
        place_GP = points_GP2[..., number].astype(jnp.float32) * cells - 0.5
        place_GP = jnp.clip(place_GP, OFF_THE_MAP, cells + 1.0)
        return jnp.pad(place_GP, ((0, maps), (0, points)), constant_values=OFF_THE_MAP)

    return in_cells(0, width), in_cells(1, height)


def _turned(map_HW: Float[Array, "*G H W"]) -> Float[Array, "*G W H"]:
    """Maps with columns first, filled up with zeros to whole tiles."""
    *leading, height, width = map_HW.shape
    below, right = up_to_multiple(height, kernels.LANES) - height, up_to_multiple(width, kernels.ROWS_OF_TILE) - width
    return jnp.swapaxes(jnp.pad(map_HW, (*((0, 0),) * len(leading), (0, below), (0, right))), -1, -2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _sampled(map_GWH: Float[Array, "G W H"], places: Places, interpret: bool) -> Float[Array, "G P"]:
    return _call(_sample, {0: (*places, map_GWH)}, places[0].shape, 0, interpret)


def _forward(map_GWH, places, interpret):
    return _sampled(map_GWH, places, interpret), (map_GWH, places)


def _backward(interpret, inputs, gradient_GP):
    map_GWH, places = inputs
    to_map = _call(_spread, {0: (*places, gradient_GP)}, map_GWH.shape, 0, interpret)
    return to_map, jax.tree.map(jnp.zeros_like, places)


_sampled.defvjp(_forward, _backward)


def _filled(map_GHW: Float[Array, "G H W"]) -> Float[Array, "G W H"]:
    """Maps in float32 as kernels have them, whole steps of them."""
    beyond = up_to_multiple(map_GHW.shape[0], MAPS) - map_GHW.shape[0]
    return _turned(jnp.pad(map_GHW.astype(jnp.float32), ((0, beyond), (0, 0), (0, 0))))


def sample(
    map_GHW: Float[Array, "G H W"], points_GP2: Float[Array, "G P 2"], exact: bool = True, interpret: bool = False
) -> Float[Array, "G P"]:
    """`bilinear.sample` of each map at points of its own, in float32, with no gradient for the points.

    Args:
      exact: if not, in halves, and with no gradient for the maps either.
      interpret: runs the kernel's operations one by one, on any device.
    """
    count, num_points = points_GP2.shape[:2]
    places = _places(lax.stop_gradient(points_GP2), *map_GHW.shape[1:])
    if exact:
        return _sampled(_filled(map_GHW), places, interpret)[:count, :num_points]
    inputs: Inputs = {0: (*places, *kernels.halves(_filled(lax.stop_gradient(map_GHW))))}
    return _call(_sample_nearly, inputs, places[0].shape, 0, interpret)[:count, :num_points]


def sample_all(
    map_GHW: Float[Array, "G H W"], points_P2: Float[Array, "P 2"], interpret: bool = False
) -> Float[Array, "G P"]:
    """Samples of all maps at the same points, in halves, with no gradient."""
    map_GHW, points_P2 = lax.stop_gradient((map_GHW, points_P2))
    places, filled_GWH = _places(points_P2[None], *map_GHW.shape[1:]), _filled(map_GHW)
    inputs: Inputs = {None: places, 0: kernels.halves(filled_GWH)}
    shape = (filled_GWH.shape[0], places[0].shape[1])
    return _call(_sample_all_nearly, inputs, shape, 0, interpret)[: map_GHW.shape[0], : points_P2.shape[0]]


def corner_values(
    map_HW: Int[Array, "H W"], points_GP2: Float[Array, "G P 2"], interpret: bool = False
) -> Int[Array, "G P 4"]:
    """What is in the cells of `bilinear.corners` of one map; 0 for points above it with all that are beside them.

    Args:
      map_HW: 0 to 256, which two bytes hold exactly.
    """
    count, num_points = points_GP2.shape[:2]
    if count == 1 and num_points % MAPS == 0:  # They fill the rows of a tile in place of others off the map.
        folded = points_GP2.reshape(MAPS, num_points // MAPS, 2)
        return corner_values(map_HW, folded, interpret=interpret).reshape(count, num_points, 4)
    places = _places(points_GP2, *map_HW.shape)
    inputs = {0: places, None: (_turned(map_HW.astype(jnp.bfloat16)),)}
    picked_4GP = _call(functools.partial(_pick, map_HW.shape), inputs, (4, *places[0].shape), 1, interpret)
    return jnp.moveaxis(picked_4GP, 0, -1)[:count, :num_points].astype(jnp.int32)
