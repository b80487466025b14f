"""Bilinear upsampling by whole factors, as torch's F.interpolate(mode="bilinear", align_corners=False).

A place of the fine map mixes the cell that it lies in with the cell before or after. What is upsampled here has one
more cell at each end of an axis, which is only read; at the border of a map it is the border's cell again.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
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


def upsample(x: Float[Array, "..."], factor: int, axis: int) -> Float[Array, "..."]:
    """An axis of n+2 cells as one of factor * n, by multiplications and additions that the compiler can join to others.

    No factor changes the type of `x`.
    """
    cells = x.shape[axis] - 2
    place = [1] * (x.ndim + 1)
    place[axis + 1] = factor
    parts = (
        jnp.expand_dims(lax.slice_in_dim(x, number, number + cells, axis=axis), axis + 1) * share.reshape(place)
        for number, share in enumerate(shares(factor).astype(x.dtype))
    )
    return sum(parts).reshape(*x.shape[:axis], factor * cells, *x.shape[axis + 1 :])
