"""Bilinear sampling as torch's grid_sample(mode="bilinear", padding_mode="zeros", align_corners=False)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Length = int | Int[np.ndarray, "..."]


def _in_cells(x: Float[Array, "..."], length: Length) -> Float[Array, "..."]:
    """Coordinates of 0..1 in cells from the first cell's centre, at most two cells off the map.

    Farther away every share is 0 anyway, and an integer could overflow.
    """
    return jnp.clip(x.astype(jnp.float32) * length - 0.5, -2.0, length + 1.0)


def shares(x: Float[Array, "..."], length: int) -> Float[Array, "length ..."]:
    """Of points on one axis, the share that each of `length` cells has in them: `corners` without indices.

    The shares of a map's cells are the products of those of its rows and of its columns. At a cell's centre, too, the
    gradient is that of `corners`: towards the next cell.
    """
    x = _in_cells(x, length)
    first = jnp.floor(x)
    cells = jnp.arange(length, dtype=jnp.float32).reshape(-1, *[1] * x.ndim)
    return jnp.where(cells == first, 1 - (x - first), 0.0) + jnp.where(cells == first + 1, x - first, 0.0)


def corners(
    points: Float[Array, "... 2"], height: Length, width: Length
) -> tuple[Int[Array, "... 4"], Float[Array, "... 4"]]:
    """The four cells around points of a map, and their shares.

    Args:
      points: as (x, y). 0 and 1 are the map's outer edges; cell i of n has its centre at (i + 0.5) / n.
      height, width: the map's size; integers, or arrays that broadcast with points[..., 0].

    Returns:
      (index, weight): int32 row-major cells, clipped into the map; float32 shares, 0 for a corner outside the map.
    """
    x, y = _in_cells(points[..., 0], width), _in_cells(points[..., 1], height)
    left, top = jnp.floor(x), jnp.floor(y)
    indices, weights = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = left.astype(jnp.int32) + dx, top.astype(jnp.int32) + dy
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            weights.append(jnp.where(inside, (1 - jnp.abs(x - left - dx)) * (1 - jnp.abs(y - top - dy)), 0.0))
            indices.append(jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1))
    return jnp.stack(indices, axis=-1), jnp.stack(weights, axis=-1)


def sample(map_HWC: Float[Array, "H W C"], points_P2: Float[Array, "P 2"]) -> Float[Array, "P C"]:
    """Samples of a map at points (x, y) in [0, 1]; what lies outside the map counts as zero."""
    height, width, channels = map_HWC.shape
    index_P4, weight_P4 = corners(points_P2, height, width)
    picked_P4C = jnp.asarray(map_HWC).reshape(-1, channels).at[index_P4].get(mode="clip")
    return jnp.einsum("pkc,pk->pc", picked_P4C, weight_P4.astype(map_HWC.dtype), precision="highest")
