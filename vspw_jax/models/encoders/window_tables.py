"""Swin's relative position tables in PyTorch files: their index buffer, and their resize to another window.

A window of w x w cells has a table with a row for every offset query - key, (2w-1)^2 of them row-major.
Shapes: R rows, G heads. Source: SwinTransformer/Swin-Transformer-Semantic-Segmentation mmcv_custom/checkpoint.py.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float

from vspw_jax.models.encoders.relative_position import index_name, patch_index
from vspw_jax.models.torch_rows import AS_IT_IS, Buffer, Fit, Rule, Stored

CUBIC = -0.75
"""The free coefficient of torch's bicubic interpolation; Keys' is -0.5."""


def window_of(rows: int) -> int | None:
    """The side of the window whose table has so many rows, or None if no window's has."""
    side = math.isqrt(rows)
    return (side + 1) // 2 if side % 2 and side * side == rows else None


def cubic_weights(distance: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Keys' kernel with torch's coefficient at a distance below 2 cells."""
    d = np.abs(distance)
    near = ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * CUBIC - 4 * CUBIC
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def bicubic_matrix(source: int, target: int) -> Float[np.ndarray, "target source"]:
    """Matrix that resizes one axis as F.interpolate(mode="bicubic", align_corners=False): edges are repeated."""
    centre = (np.arange(target) + 0.5) * source / target - 0.5
    matrix = np.zeros((target, source))
    for step in range(-1, 3):
        cell = np.floor(centre) + step
        np.add.at(matrix, (np.arange(target), np.clip(cell, 0, source - 1).astype(int)), cubic_weights(centre - cell))
    return matrix


def resize(table_RG: Float[np.ndarray, "R G"], source: int, target: int) -> Float[np.ndarray, "_ G"]:
    """The table of a window of side `source` for one of side `target`."""
    matrix = bicubic_matrix(2 * source - 1, 2 * target - 1)
    grid = table_RG.astype(np.float64).reshape(2 * source - 1, 2 * source - 1, -1)
    resized = np.einsum("ya,abg,xb->yxg", matrix, grid, matrix, optimize=True)
    return resized.reshape(-1, table_RG.shape[1]).astype(table_RG.dtype)


@functools.cache
def _index_of(window: int) -> functools.partial:
    """`patch_index` of a window, not yet made; one object a window, as all blocks' buffers are equal."""
    return functools.partial(patch_index, (window, window))


@dataclasses.dataclass(frozen=True)
class WindowTables(Fit):
    """Tables of another window are resized.

    Attributes:
      window: cells a side of ours.
      keeps_index: whether such files hold the index buffers.
    """

    window: int
    keeps_index: bool

    def rule(
        self, theirs: str, tensors: Mapping[str, Stored], our_shape: tuple[int, ...], image_size: tuple[int, int]
    ) -> Rule | None:
        shape = tensors[theirs].shape
        source = window_of(shape[0]) if len(shape) == 2 and shape[1:] == our_shape[1:] else None
        if source is None:
            return None
        if source == self.window:
            return AS_IT_IS
        text = f"relative position tables resized from windows of {source} to {self.window} cells a side (bicubic)"
        return Rule(text, lambda table, _: resize(table, source, self.window))

    def buffers(self, theirs: str, image_size: tuple[int, int]) -> Iterator[Buffer]:
        if self.keeps_index:
            cells = self.window**2
            yield Buffer(index_name(theirs), (cells, cells), np.dtype(np.int64), _index_of(self.window))
