"""Positions and patch kernels of a vision transformer for another grid, and the tables of rotary positions.

Source: baaivision/EVA EVA-01/seg/interpolate_patch_14to16.py, which EVA-02's released files of patches of 16 pixels
were made with, and EVA-02/seg/mmcv_custom/checkpoint.py: torch's bicubic resize of both.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from vspw_jax.console.errors import UserError
from vspw_jax.models.encoders import rotary_position
from vspw_jax.models.encoders.window_tables import bicubic_matrix
from vspw_jax.models.torch_names import Shapes
from vspw_jax.models.torch_rows import AS_IT_IS, Buffer, Fit, Rule, Stored

PATCH = 16


def window_of(image_size: tuple[int, int]) -> tuple[int, int]:
    """The grid of patches of an image."""
    return image_size[0] // PATCH, image_size[1] // PATCH


def side_of(shapes: Shapes, theirs: str) -> int:
    """Patches a side of a file's learned positions; UserError where they are of no square grid."""
    tokens = shapes.size(f"{theirs}pos_embed", 1)
    side = math.isqrt(tokens - 1)
    if side * side != tokens - 1:
        raise UserError(f"{shapes.path}: {theirs}pos_embed has {tokens} positions, which no square of patches has.")
    return side


def resize_positions(table_1SC: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """Positions of a square grid, the class token's first, for another grid."""
    side = math.isqrt(table_1SC.shape[1] - 1)
    grid = table_1SC[0, 1:].astype(np.float64).reshape(side, side, -1)
    rows, columns = (bicubic_matrix(side, target) for target in window)
    resized = np.einsum("ya,abc,xb->yxc", rows, grid, columns, optimize=True).reshape(1, -1, table_1SC.shape[2])
    return np.concatenate([table_1SC[:, :1], resized.astype(table_1SC.dtype)], axis=1)


def resize_kernel(kernel: np.ndarray, size: int) -> np.ndarray:
    """A patch kernel (C, 3, k, k) for patches of another size; its values are not rescaled."""
    matrix = bicubic_matrix(kernel.shape[-1], size)
    resized = np.einsum("ya,ocab,xb->ocyx", matrix, kernel.astype(np.float64), matrix, optimize=True)
    return resized.astype(kernel.dtype)


class PatchKernel(Fit):
    """Kernels of patches of another size are resized."""

    def rule(
        self, theirs: str, tensors: Mapping[str, Stored], our_shape: tuple[int, ...], image_size: tuple[int, int]
    ) -> Rule | None:
        shape = tensors[theirs].shape
        if shape == our_shape:
            return AS_IT_IS
        if len(shape) != 4 or shape[:2] != our_shape[:2] or shape[2] != shape[3]:
            return None
        text = f"patches of {shape[3]} pixels resized to {our_shape[3]} (bicubic)"
        return Rule(text, lambda kernel, _: resize_kernel(kernel, our_shape[3]))


@functools.cache
def _table(
    function: np.ufunc, window: tuple[int, int], head_dim: int, pretrained_side: int
) -> Callable[[], np.ndarray]:
    """The cosines or sines of a window, not yet made; one object for all blocks' buffers, which are equal."""
    return lambda: function(rotary_position.angles(window, head_dim, pretrained_side)).astype(np.float32)


class Positions(Fit):
    """Learned positions: those of another grid are resized."""

    def rule(
        self, theirs: str, tensors: Mapping[str, Stored], our_shape: tuple[int, ...], image_size: tuple[int, int]
    ) -> Rule | None:
        shape, window = tensors[theirs].shape, window_of(image_size)
        if len(shape) != 3 or shape[::2] != our_shape[::2] or math.isqrt(shape[1] - 1) ** 2 != shape[1] - 1:
            return AS_IT_IS if shape == our_shape else None
        side = math.isqrt(shape[1] - 1)
        if (side, side) == window:
            return AS_IT_IS
        text = f"positions of {side}x{side} patches resized to {window[0]}x{window[1]} (bicubic)"
        return Rule(text, lambda table, _: resize_positions(table, window))


@dataclasses.dataclass(frozen=True)
class Rotary(Fit):
    """A tensor beside which the tables of rotary positions stand.

    Attributes:
      head_dim, pretrained_side: as `rotary_position.angles` takes them.
    """

    head_dim: int
    pretrained_side: int

    def rule(
        self, theirs: str, tensors: Mapping[str, Stored], our_shape: tuple[int, ...], image_size: tuple[int, int]
    ) -> Rule | None:
        return AS_IT_IS if tensors[theirs].shape == our_shape else None

    def buffers(self, theirs: str, image_size: tuple[int, int]) -> Iterator[Buffer]:
        window = window_of(image_size)
        shape = (window[0] * window[1], self.head_dim)
        start = theirs.removesuffix(theirs.split(".")[-1])
        for name, function in (("cos", np.cos), ("sin", np.sin)):
            make = _table(function, window, self.head_dim, self.pretrained_side)
            yield Buffer(f"{start}rope.freqs_{name}", shape, np.dtype(np.float32), make)


class PositionsBesideRotary(Rotary):
    """Learned positions beside which the tables of rotary ones stand."""

    def rule(
        self, theirs: str, tensors: Mapping[str, Stored], our_shape: tuple[int, ...], image_size: tuple[int, int]
    ) -> Rule | None:
        return Positions().rule(theirs, tensors, our_shape, image_size)
