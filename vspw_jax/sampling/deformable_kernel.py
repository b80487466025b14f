"""Deformable sampling as a kernel for TPUs: no gather, no scatter.

A bilinear sample is a sum over the cells of a map, each weighed by the share of its row times that of its column
(`bilinear.corners`). So the samples of many queries are a product: channels x cells times cells x queries. The second
matrix has few entries that are not 0, but a TPU multiplies thousands of numbers while it gathers one row. The kernel
makes the matrix block by block where it is used, in the chip's own memory, and writes it nowhere.

A block has whole rows of a map, so that its shares are those of its columns, made once for 128 queries, times one
number for each row and query: two operations of the vector unit for each point and entry. Queries lie along its lanes.
The backward pass makes the blocks once more. A step of the kernel takes one head of one image with all its queries.

Of a level only the blocks are made from the first to the last that 128 queries touch. Queries follow each other row by
row, and look a few cells far: they touch few blocks of a fine level.

Sources: Deformable DETR (arXiv 2010.04159), equation 3; Pallas: docs.jax.dev/en/latest/pallas/tpu/details.html.
Shapes: G heads of all images, S value tokens over all levels, D channels, V levels, P points, K = V*P, Q queries, C
cells of a block, L = 128 lanes, T = Q/L groups of queries.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, PyTree

from vspw_jax.sampling.cell_blocks import Level, blocks_of
from vspw_jax.sampling.kernels import (
    LANES,
    OFF_THE_MAP,
    ROWS_OF_TILE,
    Lanes,
    Ref,
    each,
    product,
    shares,
    slopes,
    up_to_multiple,
    vector_memory,
)  # fmt: skip

Cells = Float[Array, "G K Q"]
Shape = tuple[int, ...]


class _Points(NamedTuple):
    """Points: columns and rows in cells, attention weights; (G, K, Q) each, inside a kernel references to (K, Q)."""

    x: Ref
    y: Ref
    weight: Ref

    def of(self, number: int, queries: Lanes) -> tuple[Float[Array, "1 L"], ...]:
        """Of one point of 128 queries."""
        return tuple(ref[pl.ds(number, 1), queries] for ref in self)


class _Touched(NamedTuple):
    """Of each level and 128 queries the first block that they touch, and the one after the last; (G, V, T) each, inside
    a kernel references to (V, T). Where all points are off the map there is none from the one to the other."""

    first: Ref
    end: Ref

    def of(self, number: int, queries: Lanes) -> tuple[Array, Array]:
        """Of one level and 128 queries."""
        group = queries.start // LANES
        return self.first[number, group], self.end[number, group]


def touched_blocks(levels: Sequence[Level], y_GKQ: Cells) -> _Touched:
    """From the first to the last block with a row that has a share in a point, or a slope there."""
    heads, keys, queries = y_GKQ.shape
    height_V1, rows_V1 = np.array([(level.height, level.rows) for level in levels], np.int32).T[..., None]
    above_GVPTL = jnp.floor(y_GKQ).reshape(heads, len(levels), keys // len(levels), queries // LANES, LANES)
    height_V111 = height_V1[..., None, None]
    is_on_map = (above_GVPTL >= -1) & (above_GVPTL < height_V111)
    first_GVT = jnp.where(is_on_map, above_GVPTL, height_V111).min(axis=(2, 4)).astype(jnp.int32)
    last_GVT = jnp.where(is_on_map, above_GVPTL + 1, -1).max(axis=(2, 4)).astype(jnp.int32)
    return _Touched(jnp.maximum(first_GVT, 0) // rows_V1, jnp.minimum(last_GVT, height_V1 - 1) // rows_V1 + 1)


def _matrix(level: Level, block: Array, column_PWL: Ref, row_PHL: Ref, dtype: jnp.dtype) -> Float[Array, "C L"]:
    """Shares of a block's cells in the samples of 128 queries, weighted and summed over points."""
    rows = []
    for row in range(level.rows):
        number = pl.ds(block * level.rows + row, 1)
        terms = [row_PHL[point, number, :] * column_PWL[point] for point in range(column_PWL.shape[0])]
        rows.append(functools.reduce(jnp.add, terms))
    return jnp.concatenate(rows).astype(dtype)


def _forward_kernel(
    levels: Sequence[Level],
    touched: _Touched,
    points: _Points,
    values_BDC: list[Ref],
    output: Ref,
    rooms: list[tuple[Ref, Ref]],
) -> None:
    """The samples (D, Q) of a head. A level's room is for the shares of columns (P, W, L) and the weighted ones of rows
    (P, H, L)."""

    def of_queries(queries: Lanes) -> None:
        total_DL = jnp.zeros((output.shape[0], LANES), jnp.float32)
        for number, (level, value_BDC, (column_PWL, row_PHL)) in enumerate(zip(levels, values_BDC, rooms, strict=True)):
            num_points = column_PWL.shape[0]
            for point in range(num_points):
                x, y, weight = points.of(number * num_points + point, queries)
                column_PWL[point] = shares(level.padded_width, x)
                row_PHL[point] = shares(level.padded_height, y) * weight

            def add(block, sum_DL, level=level, value_BDC=value_BDC, column_PWL=column_PWL, row_PHL=row_PHL):
                matrix_CL = _matrix(level, block, column_PWL, row_PHL, value_BDC.dtype)
                return sum_DL + product(value_BDC[block], matrix_CL, (1, 0))

            total_DL = lax.fori_loop(*touched.of(number, queries), add, total_DL)
        output[:, queries] = total_DL.astype(output.dtype)

    each(output.shape[1], LANES, of_queries)


class _Room(NamedTuple):
    """A level's room in the backward pass: shares of columns, of rows, of rows weighted, slopes of rows; and by column
    the gradient of the matrix summed over rows times their shares, and times their slopes."""

    column_PWL: Ref
    row_PHL: Ref
    weighted_PHL: Ref
    slope_PHL: Ref
    by_share_PWL: Ref
    by_slope_PWL: Ref


def _backward_kernel(
    levels: Sequence[Level],
    touched: _Touched,
    points: _Points,
    values_BCD: list[Ref],
    gradient: Ref,
    to_points: _Points,
    to_values_BDC: list[Ref],
    rooms: list[_Room],
) -> None:
    """From the gradient (D, Q) of a head's samples those of its points and values."""
    for to_value in to_values_BDC:
        to_value[...] = jnp.zeros_like(to_value)

    def of_queries(queries: Lanes) -> None:
        gradient_DL = gradient[:, queries]
        of_levels = zip(levels, values_BCD, to_values_BDC, rooms, strict=True)
        for number, (level, value_BCD, to_value_BDC, room) in enumerate(of_levels):
            _begin(level, room, points, number, queries)

            def add(block, carry, level=level, value_BCD=value_BCD, to_value_BDC=to_value_BDC, room=room):
                matrix_CL = _matrix(level, block, room.column_PWL, room.weighted_PHL, gradient_DL.dtype)
                to_value_BDC[block] += product(gradient_DL, matrix_CL, (1, 1))
                _gather_rows(level, block, product(value_BCD[block], gradient_DL, (1, 0)), room)
                return carry

            lax.fori_loop(*touched.of(number, queries), add, 0)
            _end(level, room, points, to_points, number, queries)

    each(gradient.shape[1], LANES, of_queries)


def _begin(level: Level, room: _Room, points: _Points, number: int, queries: Lanes) -> None:
    """Fills a level's room for 128 queries."""
    num_points = room.column_PWL.shape[0]
    for point in range(num_points):
        x, y, weight = points.of(number * num_points + point, queries)
        room.column_PWL[point] = shares(level.padded_width, x)
        share_HL = shares(level.padded_height, y)
        room.row_PHL[point], room.weighted_PHL[point] = share_HL, share_HL * weight
        room.slope_PHL[point] = slopes(level.padded_height, y)
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
        to_points.x[at] = weight * (by_share_WL * slopes(level.padded_width, x)).sum(axis=0, keepdims=True)
        to_points.y[at] = weight * (room.by_slope_PWL[point] * share_WL).sum(axis=0, keepdims=True)


def _call(kernel: Callable, inputs: tuple, outputs: PyTree, rooms: PyTree, interpret: bool) -> Any:
    """Runs a kernel for every head; each has its part of the inputs and outputs, along their first axis.

    Args:
      inputs: among them bounds of loops as integers, which go to the memory of the unit that counts.
      outputs: shapes and types.
      rooms: shapes of what the kernel uses while it runs, in float32.
    """

    def of_head(x: Array | jax.ShapeDtypeStruct) -> pl.BlockSpec:
        origin = (0,) * (len(x.shape) - 1)
        space = pltpu.SMEM if jnp.issubdtype(x.dtype, jnp.integer) else None
        return pl.BlockSpec((None, *x.shape[1:]), lambda head: (head, *origin), memory_space=space)

    heads = jax.tree.leaves(inputs)[0].shape[0]
    return pl.pallas_call(
        kernel,
        grid=(heads,),
        in_specs=jax.tree.map(of_head, inputs),
        out_specs=jax.tree.map(of_head, outputs),
        out_shape=outputs,
        scratch_shapes=(jax.tree.map(lambda shape: pltpu.VMEM(shape, jnp.float32), rooms, is_leaf=_is_shape),),
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=vector_memory()),
        interpret=interpret,
    )(*inputs)


def _is_shape(x: Any) -> bool:
    return isinstance(x, tuple) and all(isinstance(side, int) for side in x)


def _sides(level: Level, num_points: int) -> tuple[Shape, Shape]:
    """Shapes of numbers by column and by row, of every point and 128 queries."""
    return (num_points, level.padded_width, LANES), (num_points, level.padded_height, LANES)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _sampled(
    value_GSD: Float[Array, "G S D"], points_GKQ: _Points, levels: tuple[Level, ...], interpret: bool
) -> Float[Array, "G D Q"]:
    (heads, _, dim), (_, keys, queries) = value_GSD.shape, points_GKQ.x.shape
    values = [jnp.moveaxis(block, 2, 3) for block in blocks_of(value_GSD, levels)]
    rooms = [_sides(level, keys // len(levels)) for level in levels]
    output = jax.ShapeDtypeStruct((heads, dim, queries), value_GSD.dtype)
    inputs = touched_blocks(levels, points_GKQ.y), points_GKQ, values
    return _call(functools.partial(_forward_kernel, levels), inputs, output, rooms, interpret)


def _forward(value_GSD, points_GKQ, levels, interpret):
    return _sampled(value_GSD, points_GKQ, levels, interpret), (value_GSD, points_GKQ)


def _backward(levels, interpret, kept, gradient_GDQ):
    value_GSD, points_GKQ = kept
    values = blocks_of(value_GSD, levels)
    of_point = jax.ShapeDtypeStruct(points_GKQ.x.shape, jnp.float32)
    of_block = lambda x_GBCD: jax.ShapeDtypeStruct(jnp.moveaxis(x_GBCD, 2, 3).shape, jnp.float32)
    outputs = _Points(of_point, of_point, of_point), [of_block(x) for x in values]
    column_row = [_sides(level, points_GKQ.x.shape[1] // len(levels)) for level in levels]
    rooms = [_Room(column, row, row, row, column, column) for column, row in column_row]
    kernel = functools.partial(_backward_kernel, levels)
    inputs = touched_blocks(levels, points_GKQ.y), points_GKQ, values, gradient_GDQ
    to_points, to_blocks = _call(kernel, inputs, outputs, rooms, interpret)
    to_values = [level.whole(jnp.moveaxis(x, 2, 3)) for level, x in zip(levels, to_blocks, strict=True)]
    return jnp.concatenate(to_values, axis=1).astype(value_GSD.dtype), to_points


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

    def by_point(x_GQVP: Float[Array, "G Q V P"], beyond_them: float) -> Cells:
        x_GQK = x_GQVP.astype(jnp.float32).reshape(heads, queries, -1)
        x_GQK = jnp.pad(x_GQK, ((0, 0), (0, beyond), (0, 0)), constant_values=beyond_them)
        return jnp.swapaxes(x_GQK, 1, 2)

    sizes = jnp.array([(width, height) for height, width in shapes_V2], jnp.float32)[:, None]
    # More than two cells off a map every share is 0.
    cells = jnp.clip(locations_GQVP2.astype(jnp.float32) * sizes - 0.5, OFF_THE_MAP, sizes + 1.0)
    dim = value_GSD.shape[2]
    value_GSD = jnp.pad(value_GSD, ((0, 0), (0, 0), (0, up_to_multiple(dim, ROWS_OF_TILE) - dim)))
    x, y = (by_point(cells[..., axis], OFF_THE_MAP) for axis in (0, 1))
    points = _Points(x, y, by_point(weights_GQVP, 0.0))
    levels = tuple(Level(*shape) for shape in shapes_V2)
    sampled_GDQ = _sampled(value_GSD, points, levels, interpret)
    return jnp.swapaxes(sampled_GDQ, 1, 2)[:, :queries, :dim]
