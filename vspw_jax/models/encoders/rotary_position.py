"""Rotary positions of patches on a grid: queries and keys are turned by angles that grow with row and column.

Source: EVA-02, arXiv 2303.11331, section 2.1; baaivision/EVA EVA-02/seg/backbone/eva2.py (VisionRotaryEmbeddingFast).
Shapes: N images, S patches row by row, G heads, D channels a head, a multiple of 4.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vspw_jax.models import layers

BASE = 10_000.0


@functools.cache
def angles(window: layers.Size, head_dim: int, pretrained_side: int) -> Float[np.ndarray, "S D"]:
    """The angle of every channel of every patch: of its row in the first half, of its column in the second.

    Positions are those on the grid of pre-training, which any window is stretched over. Neighbouring channels share an
    angle.
    """
    frequencies = BASE ** -(np.arange(0, head_dim // 2, 2) / (head_dim // 2))
    rows, columns = (
        np.repeat(np.arange(side)[:, None] / side * pretrained_side * frequencies, 2, axis=1) for side in window
    )
    shape = (*window, head_dim // 2)
    halves = [np.broadcast_to(rows[:, None], shape), np.broadcast_to(columns[None], shape)]
    return np.concatenate(halves, axis=-1).reshape(-1, head_dim)


def rotate(x_NSGD: Float[Array, "N S G D"], angles_SD: Float[np.ndarray, "S D"]) -> Float[Array, "N S G D"]:
    """Each pair of neighbouring channels (a, b), turned by its angle."""
    cosine, sine = (jnp.asarray(f(angles_SD), x_NSGD.dtype)[:, None] for f in (np.cos, np.sin))
    pairs = x_NSGD.reshape(*x_NSGD.shape[:-1], -1, 2)
    turned = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(x_NSGD.shape)
    return x_NSGD * cosine + turned * sine
