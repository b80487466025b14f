"""What the kernels for TPUs share: sizes of tiles, the shares of cells in points between them, products, loops.

Shapes: L points, a multiple of 128 lanes.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float

LANES = 128
ROWS_OF_TILE = 16
"""Of two-byte numbers; four-byte ones have 8."""
MEMORY_BYTES = 60 * 2**20
"""That a kernel may use of a chip's vector memory, of which a v5p's core has 64 MiB, a v5e's and a v6e's 128."""

Ref = Any
"""What stands for an array: inside a kernel a reference, before it is called a shape."""
Lanes = slice | pl.Slice
"""Some of the points."""


def up_to_multiple(number: int, of: int) -> int:
    """The least multiple that is not smaller."""
    return -(-number // of) * of


def is_cell(count: int, cell_1L: Float[Array, "1 L"]) -> Bool[Array, "count L"]:
    """Which of `count` cells in a row is the one named."""
    return lax.broadcasted_iota(jnp.int32, (count, cell_1L.shape[1]), 0).astype(jnp.float32) == cell_1L


def shares(count: int, place_1L: Float[Array, "1 L"]) -> Float[Array, "count L"]:
    """Shares of `count` cells in a row in places between them, as `bilinear.corners` has them."""
    first = jnp.floor(place_1L)
    before = jnp.where(is_cell(count, first), 1 - (place_1L - first), 0.0)
    return before + jnp.where(is_cell(count, first + 1), place_1L - first, 0.0)


def slopes(count: int, place_1L: Float[Array, "1 L"]) -> Float[Array, "count L"]:
    """The derivatives of `shares`; at a cell's centre those towards the next cell."""
    first = jnp.floor(place_1L)
    return jnp.where(is_cell(count, first + 1), 1.0, 0.0) - jnp.where(is_cell(count, first), 1.0, 0.0)


def product(a: Array, b: Array, over: tuple[int, int]) -> Array:
    """A matrix product in float32, summed over one axis of each."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(a, b, (((over[0],), (over[1],)), ((), ())), precision, preferred_element_type=jnp.float32)


def each(points: int, together: int, body: Callable[[Lanes], None]) -> None:
    """Calls `body` for so many points together, after each other."""

    def step(number: Array, carry: int) -> int:
        body(pl.ds(pl.multiple_of(number * together, together), together))
        return carry

    lax.fori_loop(0, points // together, step, 0)
