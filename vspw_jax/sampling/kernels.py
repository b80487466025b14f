"""What the kernels for TPUs share: sizes of tiles, the shares of cells in points between them, products, loops.

Shapes: L points, a multiple of 128 lanes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, BFloat16, Bool, Float, Float32

LANES = 128
ROWS_OF_TILE = 16
"""Of two-byte numbers; four-byte ones have 8."""
MEMORY_BYTES = 60 * 2**20
"""That a kernel may use of a chip's vector memory, of which a v5p's core has 64 MiB, a v5e's and a v6e's 128."""
OFF_THE_MAP = -2.0
"""A place, in cells, at which no cell has a share."""

Ref = Any
"""What stands for an array: inside a kernel a reference, before it is called a shape."""
Lanes = slice | pl.Slice
"""Some of the points."""
Halves = tuple[BFloat16[Array, "..."], BFloat16[Array, "..."]]
"""Two numbers of two bytes in the place of one of four: together within 2**-16 of it."""


def vector_memory() -> int:
    """Bytes of it that a kernel may use on the TPUs here: a v4 has 16 MiB in all."""
    if jax.local_devices()[0].platform != "tpu":  # Compiled for others, or interpreted.
        return MEMORY_BYTES
    return min(MEMORY_BYTES, pltpu.get_tpu_info().vmem_capacity_bytes * 15 // 16)


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


def _split(x: Float32[Array, "*any"]) -> tuple[Float32[Array, "*any"], Float32[Array, "*any"]]:
    """A number as the nearest that two bytes hold, and the rest."""
    bits = lax.bitcast_convert_type(x, jnp.int32)  # XLA leaves out a conversion there and back.
    high = lax.bitcast_convert_type((bits + 0x8000) & -0x10000, jnp.float32)
    return high, x - high


def halves(x: Float32[Array, "*any"]) -> Halves:
    """The numbers of an array in halves."""
    high, low = _split(x)
    return high.astype(jnp.bfloat16), low.astype(jnp.bfloat16)


def shares_in_halves(count: int, place_1L: Float[Array, "1 L"]) -> Halves:
    """`shares`, which are split before they are spread over cells: it is less work."""
    first = jnp.floor(place_1L)
    is_first, is_next = is_cell(count, first), is_cell(count, first + 1)
    before, after = _split(1 - (place_1L - first)), _split(place_1L - first)
    high, low = (jnp.where(is_first, b, jnp.where(is_next, a, 0.0)) for b, a in zip(before, after, strict=True))
    return high.astype(jnp.bfloat16), low.astype(jnp.bfloat16)


def product_of_halves(a: Halves, b: Halves, over: tuple[int, int]) -> Array:
    """`product` in half of its passes: without the two lower halves', within 2**-14 of the products' sizes summed."""
    return product(a[0], b[0], over) + product(a[1], b[0], over) + product(a[0], b[1], over)


def each(points: int, together: int, body: Callable[[Lanes], None]) -> None:
    """Calls `body` for so many points together, after each other."""

    def step(number: Array, carry: int) -> int:
        body(pl.ds(pl.multiple_of(number * together, together), together))
        return carry

    lax.fori_loop(0, points // together, step, 0)
