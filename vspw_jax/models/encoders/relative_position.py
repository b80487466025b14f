"""BEiT's relative position tables in PyTorch files: their index buffer, and their resize to another crop.

A window of H x W patches has a table with a row for every offset query - key, (2H-1)(2W-1) of them row-major, and three
rows for the class token. Shapes: R rows, G heads, S = H*W + 1 tokens.
Source: microsoft/unilm beit/modeling_finetune.py and beit/semantic_segmentation/mmcv_custom/checkpoint.py.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Float, Int64
from scipy.interpolate import make_interp_spline

from vspw_jax.models.encoders.relative_attention import CLASS_TOKEN_ROWS, num_rows
from vspw_jax.models.torch_rows import AS_IT_IS, Buffer, Fit, Rule, Stored


def patch_index(window: tuple[int, int]) -> Int64[np.ndarray, "H*W H*W"]:
    """The table's row for query and key, without a class token."""
    height, width = window
    y, x = np.divmod(np.arange(height * width), width)
    return (y[:, None] - y + height - 1) * (2 * width - 1) + x[:, None] - x + width - 1


def index(window: tuple[int, int]) -> Int64[np.ndarray, "S S"]:
    """PyTorch's buffer relative_position_index: the table's row for query s and key t."""
    height, width = window
    count = (2 * height - 1) * (2 * width - 1)
    full = np.empty((height * width + 1, height * width + 1), np.int64)
    full[1:, 1:] = patch_index(window)
    full[0], full[:, 0], full[0, 0] = count, count + 1, count + 2
    return full


def windows_of(rows: int, num_tokens: int | None = None) -> list[tuple[int, int]]:
    """Windows (H, W) that a table of `rows` rows can belong to.

    With the number of patches, `num_tokens`, these are all windows; without it the square window alone can be told.
    """
    offsets = rows - CLASS_TOKEN_ROWS
    if num_tokens is None:
        side = math.isqrt(max(offsets, 0))
        return [((side + 1) // 2, (side + 1) // 2)] if side % 2 and side * side == offsets else []
    # (2H-1)(2W-1) = 4HW - 2(H+W) + 1, so product and sum of H and W are known.
    total, remainder = divmod(4 * num_tokens + 1 - offsets, 2)
    root = math.isqrt(max(total * total - 4 * num_tokens, 0))
    if remainder or root * root != total * total - 4 * num_tokens or (total - root) % 2 or total <= root:
        return []
    small, large = (total - root) // 2, (total + root) // 2
    return sorted({(small, large), (large, small)})


def growth(source: int, target: int) -> float:
    """Ratio q of the geometric progression by which source coordinates grow from the centre.

    Bisection in [1.01, 1.5], to 1e-6, finds the q for which source // 2 terms sum to target // 2.
    """
    low, high = 1.01, 1.5
    terms, reach = source // 2, target // 2
    while high - low > 1e-6:
        middle = (low + high) / 2
        if (1 - middle**terms) / (1 - middle) > reach:
            high = middle
        else:
            low = middle
    return middle


def source_coordinates(source: int, target: int) -> Float[np.ndarray, " source"]:
    """Where the `source` samples lie on the axis -(target // 2) .. target // 2: dense at the centre, sparse outside."""
    steps = np.cumsum(growth(source, target) ** np.arange(source // 2))
    return np.concatenate([-steps[::-1], [0.0], steps])


def resize_matrix(source: int, target: int) -> Float[np.ndarray, "target source"]:
    """Matrix that resizes one axis: the interpolating cubic spline through the source coordinates.

    Beyond the outermost sample that sample's value holds, as in FITPACK. Equal sizes give the identity. An axis of
    fewer than four samples gets a spline of the highest degree that it allows; no released table has such an axis.
    """
    if source == target:
        return np.eye(target)
    if source == 1:
        return np.ones((target, 1))
    known = source_coordinates(source, target)
    wanted = np.clip(np.arange(target) - target // 2, known[0], known[-1])
    return make_interp_spline(known, np.eye(source), k=min(3, source - 1))(wanted)


def resize(
    table_RG: Float[np.ndarray, "R G"], source: tuple[int, int], target: tuple[int, int]
) -> Float[np.ndarray, "_ G"]:
    """The table of window `source` for window `target`, each (H, W); the class token's rows stay as they are.

    The released code knows square windows only. Here every axis is resized on its own. For square windows the result
    is the same, as the two-dimensional spline is the product of two one-dimensional ones. Other windows are an
    extension.
    """
    offsets, of_class_token = table_RG[:-CLASS_TOKEN_ROWS], table_RG[-CLASS_TOKEN_ROWS:]
    shape = [2 * size - 1 for size in source]
    rows, columns = (resize_matrix(2 * old - 1, 2 * new - 1) for old, new in zip(source, target, strict=True))
    grid = offsets.astype(np.float64).reshape(*shape, -1)
    resized = np.einsum("ya,abg,xb->yxg", rows, grid, columns, optimize=True)
    resized = resized.reshape(-1, table_RG.shape[1]).astype(table_RG.dtype)
    return np.concatenate([resized, of_class_token])


def source_window(rows: int, index: Stored | None, target: tuple[int, int] | None = None) -> tuple[int, int] | None:
    """The window (H, W) of a table of so many rows, or None if it cannot be told.

    Args:
      index: the stored buffer relative_position_index beside it, or None.
      target: our window; without an index, a table of our size is taken to have our window.
    """
    if index is not None and len(index.shape) == 2:
        windows = windows_of(rows, index.shape[0] - 1)
    elif target and rows == num_rows(target):
        windows = [target]
    else:
        windows = windows_of(rows)
    if index is not None and len(windows) > 1:  # (H, W) or (W, H): only the indices themselves tell.
        found = index.read()
        windows = [window for window in windows if np.array_equal(found, _index_of(window)())]
    return windows[0] if windows else None


def index_name(table: str) -> str:
    """The name of the index buffer beside a table."""
    return table.removesuffix("bias_table") + "index"


@functools.cache
def _index_of(window: tuple[int, int]) -> Callable[[], np.ndarray]:
    """`index` of a window, not yet made; one object a window, as all blocks' buffers are equal."""
    return functools.partial(index, window)


@dataclasses.dataclass(frozen=True)
class RelativeTables(Fit):
    """Tables of another window are resized.

    Attributes:
      patch: pixels of the image a position, in height and in width.
      keeps_index: whether such files hold the index buffers.
    """

    patch: int
    keeps_index: bool

    def _window(self, image_size: tuple[int, int]) -> tuple[int, int]:
        return image_size[0] // self.patch, image_size[1] // self.patch

    def rule(
        self, theirs: str, tensors: Mapping[str, Stored], our_shape: tuple[int, ...], image_size: tuple[int, int]
    ) -> Rule | None:
        shape, target = tensors[theirs].shape, self._window(image_size)
        if len(shape) != 2 or shape[1:] != our_shape[1:]:
            return None
        source = source_window(shape[0], tensors.get(index_name(theirs)), target)
        if source is None:
            return None
        if source == target:
            return AS_IT_IS
        text = (
            f"relative position tables resized from {source[0]}x{source[1]} to {target[0]}x{target[1]} patches "
            "(geometric-cubic)"
        )
        return Rule(text, lambda table, _: resize(table, source, target))

    def buffers(self, theirs: str, image_size: tuple[int, int]) -> Iterator[Buffer]:
        if self.keeps_index:
            height, width = window = self._window(image_size)
            tokens = height * width + 1
            yield Buffer(index_name(theirs), (tokens, tokens), np.dtype(np.int64), _index_of(window))
