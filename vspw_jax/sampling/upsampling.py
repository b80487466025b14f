"""Bilinear upsampling by whole factors, as torch's F.interpolate(mode="bilinear", align_corners=False).

A place of the fine map mixes the cell that it lies in with the cell before or after. What is upsampled here has one
more cell at each end of an axis, which is only read; at the border of a map it is the border's cell again.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def shares(factor: int) -> Float[np.ndarray, "3 factor"]:
    """Of the cell before, of a cell and of the cell after, in each of the places within the cell."""
    from_centre = (np.arange(factor) + 0.5) / factor - 0.5
    shares = [np.maximum(0, -from_centre), 1 - np.abs(from_centre), np.maximum(0, from_centre)]
    return np.stack(shares).astype(np.float32)


def matrix(cells: int, factor: int) -> Float[np.ndarray, "factor*cells cells+2"]:
    """The matrix that upsamples so many cells, from them and one more at each end."""
    result = np.zeros((cells, factor, cells + 2), np.float32)
    cell = np.arange(cells)
    for number, share in enumerate(shares(factor)):
        result[cell, :, cell + number] = share
    return result.reshape(-1, cells + 2)


def upsample_columns(x_RWC: Float[Array, "R w+2 C"], factor: int) -> Float[Array, "R factor*w C"]:
    """Columns by multiplications and additions, which the compiler can join to what reads them."""
    rows, columns, channels = x_RWC.shape
    parts = (
        x_RWC[:, number : number + columns - 2, None] * share[:, None] for number, share in enumerate(shares(factor))
    )
    return sum(parts, jnp.zeros((), x_RWC.dtype)).reshape(rows, -1, channels)
