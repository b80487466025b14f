"""Deformable sampling as a kernel for TPUs: no gather, no scatter.

A bilinear sample is a sum over the cells of a map, each weighed by the share of its row times that of its column
(`bilinear.corners`). So the samples of many queries are a product: channels x cells times cells x queries. The second
matrix has few entries that are not 0, but a TPU multiplies thousands of numbers while it gathers one row. The kernel
makes the matrix block by block where it is used, in the chip's own memory, and writes it nowhere.

A block has whole rows of a map, so that its shares are those of its columns, made once for 128 queries, times one
number for each row and query: two operations of the vector unit for each point and entry. Queries lie along its lanes.
The backward pass makes the blocks once more. A step of the kernel takes one head of one image with all its queries.

Sources: Deformable DETR (arXiv 2010.04159), equation 3; Pallas: docs.jax.dev/en/latest/pallas/tpu/details.html.
Shapes: G heads of all images, S value tokens over all levels, D channels, V levels, P points, K = V*P, Q queries, C
cells of a block, L = 128 lanes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from vspw_jax.sampling.cell_blocks import LANES, ROWS_OF_TILE, Level, blocks_of, up_to_multiple

MEMORY_BYTES = 100 * 2**20
"""That a kernel may use of a chip's vector memory: v5e, v5p and v6e have 128 MiB."""

Cells = Float[Array, "G K Q"]
Ref = Array
"""What stands for an array inside a kernel."""
Lanes = slice | pl.Slice
"""128 of the queries."""


def _numbers(count: int) -> Float[Array, "count L"]:
    return lax.broadcasted_iota(jnp.int32, (count, LANES), 0).astype(jnp.float32)


def _shares(count: int, place_1L: Float[Array, "1 L"]) -> Float[Array, "count L"]:
    """Shares of `count` cells in a row in places between them, as `bilinear.corners` has them."""
    cells, first = _numbers(count), jnp.floor(place_1L)
    return jnp.where(cells == first, 1 - (place_1L - first), 0.0) + jnp.where(cells == first + 1, place_1L - first, 0.0)


def _slopes(count: int, place_1L: Float[Array, "1 L"]) -> Float[Array, "count L"]:
    """The derivatives of `_shares`; at a cell's centre those towards the next cell."""
    cells, first = _numbers(count), jnp.floor(place_1L)
    return jnp.where(cells == first + 1, 1.0, 0.0) - jnp.where(cells == first, 1.0, 0.0)


def _product(a: Array, b: Array, over: tuple[int, int]) -> Array:
    """A matrix product in float32, summed over one axis of each."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(a, b, (((over[0],), (over[1],)), ((), ())), precision, preferred_element_type=jnp.float32)


class _Points(NamedTuple):
    """References to the points of a head, (K, Q) each: columns and rows in cells, attention weights."""

    x: Ref
    y: Ref
    weight: Ref

    def of(self, number: int, queries: Lanes) -> tuple[Float[Array, "1 L"], ...]:
        """Of one point of 128 queries."""
        return tuple(ref[pl.ds(number, 1), queries] for ref in self)


def _matrix(level: Level, block: Array, column_PWL: Ref, row_PHL: Ref, dtype: jnp.dtype) -> Float[Array, "C L"]:
    """Shares of a block's cells in the samples of 128 queries, weighted and summed over points."""
    rows = []
    for row in range(level.rows):
        number = pl.ds(block * level.rows + row, 1)
        terms = [row_PHL[point, number, :] * column_PWL[point] for point in range(column_PWL.shape[0])]
        rows.append(functools.reduce(jnp.add, terms))
    return jnp.concatenate(rows).astype(dtype)


def _each_128(queries: int, body: Callable[[Lanes], None]) -> None:
    """Calls `body` for 128 queries after the other."""

    def step(number: Array, carry: int) -> int:
        body(pl.ds(pl.multiple_of(number * LANES, LANES), LANES))
        return carry

    lax.fori_loop(0, queries // LANES, step, 0)


def _forward_kernel(levels: Sequence[Level], num_points: int, *refs: Ref) -> None:
    """References: the points, blocks of every level (blocks, D, C), the result (D, Q); then room for every level: the
    shares of columns (P, W, L) and the weighted ones of rows (P, H, L)."""
    count = len(levels)
    points, values, output = _Points(*refs[:3]), refs[3 : 3 + count], refs[3 + count]
    columns, rows = refs[4 + count : 4 + 2 * count], refs[4 + 2 * count :]

    def of_queries(queries: Lanes) -> None:
        total_DL = jnp.zeros((output.shape[0], LANES), jnp.float32)
        for number, (level, value_BDC, column_PWL, row_PHL) in enumerate(
            zip(levels, values, columns, rows, strict=True)
        ):
            for point in range(num_points):
                x, y, weight = points.of(number * num_points + point, queries)
                column_PWL[point] = _shares(level.padded_width, x)
                row_PHL[point] = _shares(level.padded_height, y) * weight

            def add(block, sum_DL, level=level, value_BDC=value_BDC, column_PWL=column_PWL, row_PHL=row_PHL):
                matrix_CL = _matrix(level, block, column_PWL, row_PHL, value_BDC.dtype)
                return sum_DL + _product(value_BDC[block], matrix_CL, (1, 0))

            total_DL = lax.fori_loop(0, level.blocks, add, total_DL)
        output[:, queries] = total_DL.astype(output.dtype)

    _each_128(output.shape[1], of_queries)


class _Room(NamedTuple):
    """A level's room in the backward pass: shares of columns, of rows, of rows weighted, slopes of rows; and by column
    the gradient of the matrix summed over rows times their shares, and times their slopes."""

    column_PWL: Ref
    row_PHL: Ref
    weighted_PHL: Ref
    slope_PHL: Ref
    by_share_PWL: Ref
    by_slope_PWL: Ref


def _backward_kernel(levels: Sequence[Level], num_points: int, *refs: Ref) -> None:
    """References: the points, the result's gradient (D, Q), blocks of every level (blocks, C, D); then the gradients of
    the points, (K, Q) each, and of every level's blocks (blocks, D, C), float32; then every level's `_Room`."""
    count = len(levels)
    points, gradient, values = _Points(*refs[:3]), refs[3], refs[4 : 4 + count]
    to_points, to_values = _Points(*refs[4 + count : 7 + count]), refs[7 + count : 7 + 2 * count]
    room_of = lambda number: _Room(*refs[7 + 2 * count + number :: count])
    rooms = [room_of(number) for number in range(count)]
    for to_value in to_values:
        to_value[...] = jnp.zeros_like(to_value)

    def of_queries(queries: Lanes) -> None:
        gradient_DL = gradient[:, queries]
        for number, (level, value_BCD, to_value_BDC, room) in enumerate(
            zip(levels, values, to_values, rooms, strict=True)
        ):
            _begin(level, room, points, number, queries)

            def add(block, carry, level=level, value_BCD=value_BCD, to_value_BDC=to_value_BDC, room=room):
                matrix_CL = _matrix(level, block, room.column_PWL, room.weighted_PHL, gradient_DL.dtype)
                to_value_BDC[block] += _product(gradient_DL, matrix_CL, (1, 1))
                _gather_rows(level, block, _product(value_BCD[block], gradient_DL, (1, 0)), room)
                return carry

            lax.fori_loop(0, level.blocks, add, 0)
            _end(level, room, points, to_points, number, queries)

    _each_128(gradient.shape[1], of_queries)


def _begin(level: Level, room: _Room, points: _Points, number: int, queries: Lanes) -> None:
    """Fills a level's room for 128 queries."""
    num_points = room.column_PWL.shape[0]
    for point in range(num_points):
        x, y, weight = points.of(number * num_points + point, queries)
        room.column_PWL[point] = _shares(level.padded_width, x)
        share_HL = _shares(level.padded_height, y)
        room.row_PHL[point], room.weighted_PHL[point] = share_HL, share_HL * weight
        room.slope_PHL[point] = _slopes(level.padded_height, y)
    room.by_share_PWL[...] = jnp.zeros_like(room.by_share_PWL)
    room.by_slope_PWL[...] = jnp.zeros_like(room.by_slope_PWL)


def _gather_rows(level: Level, block: Array, to_matrix_CL: Float[Array, "C L"], room: _Room) -> None:
    """Adds the rows of a block to what is summed by column."""
    width = level.padded_width
    for point in range(room.column_PWL.shape[0]):
        for weights_PHL, sum_PWL in ((room.row_PHL, room.by_share_PWL), (room.slope_PHL, room.by_slope_PWL)):
            terms = [
                to_matrix_CL[row * width : (row + 1) * width]
                * weights_PHL[point, pl.ds(block * level.rows + row, 1), :]
                for row in range(level.rows)
            ]
            sum_PWL[point] += functools.reduce(jnp.add, terms)


def _end(level: Level, room: _Room, points: _Points, to_points: _Points, number: int, queries: Lanes) -> None:
    """Writes the gradients of a level's points of 128 queries."""
    num_points = room.column_PWL.shape[0]
    for point in range(num_points):
        place = number * num_points + point
        x, _, weight = points.of(place, queries)
        share_WL, by_share_WL = room.column_PWL[point], room.by_share_PWL[point]
        at = (pl.ds(place, 1), queries)
        to_points.weight[at] = (by_share_WL * share_WL).sum(axis=0, keepdims=True)
        to_points.x[at] = weight * (by_share_WL * _slopes(level.padded_width, x)).sum(axis=0, keepdims=True)
        to_points.y[at] = weight * (room.by_slope_PWL[point] * share_WL).sum(axis=0, keepdims=True)


def _call(kernel: Callable, inputs: Sequence[Array], outputs: list, scratch: list, interpret: bool) -> list[Array]:
    """Runs a kernel for every head; each has its part of the inputs and outputs, along their first axis."""

    def of_head(x: Array | jax.ShapeDtypeStruct) -> pl.BlockSpec:
        origin = (0,) * (len(x.shape) - 1)
        return pl.BlockSpec((None, *x.shape[1:]), lambda head: (head, *origin))

    return pl.pallas_call(
        kernel,
        grid=(inputs[0].shape[0],),
        in_specs=[of_head(x) for x in inputs],
        out_specs=[of_head(x) for x in outputs],
        out_shape=outputs,
        scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=MEMORY_BYTES),
        interpret=interpret,
    )(*inputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _sampled(
    value_GSD: Float[Array, "G S D"],
    x_GKQ: Cells,
    y_GKQ: Cells,
    weight_GKQ: Cells,
    levels: tuple[Level, ...],
    interpret: bool,
) -> Float[Array, "G D Q"]:
    (heads, _, dim), (keys, queries) = value_GSD.shape, x_GKQ.shape[1:]
    num_points = keys // len(levels)
    values = [jnp.moveaxis(block, 2, 3) for block in blocks_of(value_GSD, levels)]
    columns = [(num_points, level.padded_width, LANES) for level in levels]
    rows = [(num_points, level.padded_height, LANES) for level in levels]
    output = jax.ShapeDtypeStruct((heads, dim, queries), value_GSD.dtype)
    kernel = functools.partial(_forward_kernel, levels, num_points)
    return _call(kernel, (x_GKQ, y_GKQ, weight_GKQ, *values), [output], columns + rows, interpret)[0]


def _forward(value_GSD, x_GKQ, y_GKQ, weight_GKQ, levels, interpret):
    inputs = value_GSD, x_GKQ, y_GKQ, weight_GKQ
    return _sampled(*inputs, levels, interpret), inputs


def _backward(levels, interpret, inputs, gradient_GDQ):
    value_GSD, x_GKQ, y_GKQ, weight_GKQ = inputs
    values = blocks_of(value_GSD, levels)
    num_points = x_GKQ.shape[1] // len(levels)
    columns = [(num_points, level.padded_width, LANES) for level in levels]
    rows = [(num_points, level.padded_height, LANES) for level in levels]
    outputs = [jax.ShapeDtypeStruct(x_GKQ.shape, jnp.float32)] * 3
    outputs += [jax.ShapeDtypeStruct(tuple(x.shape[i] for i in (0, 1, 3, 2)), jnp.float32) for x in values]
    kernel = functools.partial(_backward_kernel, levels, num_points)
    room = columns + 3 * rows + 2 * columns
    of_points = (x_GKQ, y_GKQ, weight_GKQ)
    to_x, to_y, to_weight, *to_blocks = _call(kernel, (*of_points, gradient_GDQ, *values), outputs, room, interpret)
    to_values = [level.whole(jnp.moveaxis(x, 2, 3)) for level, x in zip(levels, to_blocks, strict=True)]
    return jnp.concatenate(to_values, axis=1).astype(value_GSD.dtype), to_x, to_y, to_weight


_sampled.defvjp(_forward, _backward)


def sample_and_sum(
    value_GSD: Float[Array, "G S D"],
    shapes_V2: Sequence[tuple[int, int]],
    locations_GQVP2: Float[Array, "G Q V P 2"],
    weights_GQVP: Float[Array, "G Q V P"],
    interpret: bool = False,
) -> Float[Array, "G Q D"]:
    """`deformable_attention.sample_and_sum` of every head.

    Args:
      interpret: runs the kernel's operations one by one, on any device.
    """
    heads, queries, *_ = weights_GQVP.shape
    beyond = up_to_multiple(queries, LANES) - queries

    def by_point(x_GQVP: Float[Array, "G Q V P"]) -> Cells:
        x_GQK = jnp.pad(x_GQVP.astype(jnp.float32).reshape(heads, queries, -1), ((0, 0), (0, beyond), (0, 0)))
        return jnp.swapaxes(x_GQK, 1, 2)

    sizes = jnp.array([(width, height) for height, width in shapes_V2], jnp.float32)[:, None]
    # More than two cells off a map every share is 0.
    cells = jnp.clip(locations_GQVP2.astype(jnp.float32) * sizes - 0.5, -2.0, sizes + 1.0)
    dim = value_GSD.shape[2]
    value_GSD = jnp.pad(value_GSD, ((0, 0), (0, 0), (0, up_to_multiple(dim, ROWS_OF_TILE) - dim)))
    points = by_point(cells[..., 0]), by_point(cells[..., 1]), by_point(weights_GQVP)
    levels = tuple(Level(*shape) for shape in shapes_V2)
    sampled_GDQ = _sampled(value_GSD, *points, levels, interpret)
    return jnp.swapaxes(sampled_GDQ, 1, 2)[:, :queries, :dim]
