"""Bilinear sampling as torch's grid_sample(mode="bilinear", padding_mode="zeros", align_corners=False)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Length = int | Int[np.ndarray, "..."]


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
    x = points[..., 0].astype(jnp.float32) * width - 0.5
    y = points[..., 1].astype(jnp.float32) * height - 0.5
    # More than two cells off the map every weight is 0, and an integer could overflow.
    x, y = jnp.clip(x, -2.0, width + 1.0), jnp.clip(y, -2.0, height + 1.0)
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
