"""Bilinear upsampling by whole factors, as torch's F.interpolate(mode="bilinear", align_corners=False).

A place of the fine map mixes the cell that it lies in with the cell before or after. What is upsampled here has one
more cell at each end of an axis, which is only read; at the border of a map it is the border's cell again.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def matrix(cells: int, factor: int) -> Float[np.ndarray, "factor*cells cells+2"]:
    """The matrix that upsamples so many cells, from them and one more at each end."""
    places = (np.arange(factor * cells)[:, None] + 0.5) / factor - 0.5
    return np.maximum(0, 1 - np.abs(places - np.arange(-1, cells + 1))).astype(np.float32)


def upsample_columns(x_RWC: Float[Array, "R w+2 C"], factor: int) -> Float[Array, "R factor*w C"]:
    """Columns by multiplications and additions, which the compiler can join to what reads them."""
    rows, columns, channels = x_RWC.shape
    shares = matrix(1, factor).T  # Of the cell before, of a cell and of the cell after, in the places within the cell.
    parts = (x_RWC[:, number : number + columns - 2, None] * share[:, None] for number, share in enumerate(shares))
    return sum(parts, jnp.zeros((), x_RWC.dtype)).reshape(rows, -1, channels)
