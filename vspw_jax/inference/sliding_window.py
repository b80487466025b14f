"""Sliding-window inference as mmseg's slide mode: the last window is shifted back, overlaps are averaged by count.

Windows are cut first, then scored a few at a time, whatever frame they are of, then put together frame by frame. The
network's input thus always has the same shape. Source: open-mmlab/mmsegmentation `slide_inference` in
mmseg/models/segmentors/encoder_decoder.py; czczup/ViT-Adapter test pipelines for the size. Shapes: N frames, S windows
of a frame, J windows in all, H and W pixels, h and w cells, K classes.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, PyTree, UInt8

from vspw_jax.models import layers

Score = Callable[[Float[Array, "J height width 3"]], Float[Array, "J h w K"]]
"""Function from windows to their class scores, at any resolution."""
Look = Callable[..., tuple[Float[Array, "J h w K"], PyTree[Array]]]
"""Function from windows (J, height, width, 3), what is remembered of each and, where an earlier stage made masks, these
(J, height, width), to their class scores and what is then remembered."""

MULTIPLE = 32
"""Sides of a resized frame are multiples of it; released: ResizeToMultiple."""


def window_starts(size: int, crop: int, stride: int) -> list[int]:
    """Starts of the windows that cover 0..size. They are `stride` apart; the last window ends at `size`."""
    count = max(size - crop + stride - 1, 0) // stride + 1
    return [min(number * stride, size - crop) for number in range(count)]


def input_size(height: int, width: int, crop: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
    """Size (height, width) at which a frame enters the network.

    At scale 1 it is the smallest size of the same aspect that has no side shorter than the crop's; sides are rounded
    up to multiples of 32. With a square crop this is the released "short side = crop size, then ResizeToMultiple(32)".
    """
    scale *= max(crop[0] / height, crop[1] / width)
    rounded = lambda side: max(math.ceil(int(side * scale + 0.5) / MULTIPLE), 1) * MULTIPLE
    return rounded(height), rounded(width)


def corners(height: int, width: int, crop: tuple[int, int], stride: tuple[int, int]) -> Int32[np.ndarray, "S 2"]:
    """Top left corners of the windows of a frame, row by row."""
    rows, columns = (window_starts(*sides) for sides in zip((height, width), crop, stride, strict=True))
    return np.array([(row, column) for row in rows for column in columns], np.int32)


def pad_to_crop(image_NHWC: Float[Array, "N H W 3"], crop: tuple[int, int], value: int = 0) -> Float[Array, "N _ _ 3"]:
    """Frames with a value at the bottom and right where a side is shorter than the crop's; released: PadShortSide."""
    short = [max(side - size, 0) for side, size in zip(crop, image_NHWC.shape[1:3], strict=True)]
    return jnp.pad(image_NHWC, ((0, 0), (0, short[0]), (0, short[1]), (0, 0)), constant_values=value)


def cut(
    image_NHWC: Float[Array, "N H W 3"], crop: tuple[int, int], stride: tuple[int, int]
) -> Float[Array, "N S _ _ 3"]:
    """Windows, of the crop's size, of frames that have no side shorter than the crop's."""
    num_images, height, width, channels = image_NHWC.shape
    shape = (num_images, *crop, channels)
    # A loop: with a slice of its own in the program for each of many windows, compiling takes minutes.
    windows = lax.map(
        lambda start: lax.dynamic_slice(image_NHWC, (0, start[0], start[1], 0), shape),
        corners(height, width, crop, stride),
    )
    return jnp.moveaxis(windows, 0, 1)


def calls(count: int, at_a_time: int) -> tuple[int, int]:
    """(number of calls of the network, windows of each) for `count` windows; the last call may have to be filled up."""
    number = -(-count // at_a_time)
    return number, -(-count // number)


def _in_calls(window_JHWC: Float[Array, "J H W 3"], at_a_time: int) -> Float[Array, "calls j H W 3"]:
    """The windows divided among calls. The first ones fill up the last call; their second scores are dropped."""
    count = len(window_JHWC)
    number, size = calls(count, at_a_time)
    filled = jnp.concatenate([window_JHWC, window_JHWC[: number * size - count]])
    return filled.reshape(number, size, *window_JHWC.shape[1:])


def _out_of_calls(x: Array, count: int | None = None) -> Array:
    """An array by call and window of the call as one by window, of the first `count` windows."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])[:count]


def score_windows(score: Score, window_JHWC: Float[Array, "J H W 3"], at_a_time: int) -> Float[Array, "J h w K"]:
    """Scores of windows, by calls of `score` on equal parts of at most `at_a_time` windows."""
    return _out_of_calls(lax.map(score, _in_calls(window_JHWC, at_a_time)), len(window_JHWC))


def look_through(
    look: Look,
    window_JHWC: Float[Array, "J H W 3"],
    memory: PyTree[Array],
    at_a_time: int,
    mask_JHW: UInt8[Array, "J H W"] | None = None,
) -> tuple[Float[Array, "J h w K"], PyTree[Array]]:
    """As `score_windows`, for a network that remembers what each window showed in the frames before.

    Args:
      memory: its arrays have a first axis as long as all calls have windows (the product of `calls`).
      mask_JHW: what an earlier stage made of the windows.
    """
    parts = _in_calls(window_JHWC, at_a_time)
    memory = jax.tree.map(lambda x: x.reshape(*parts.shape[:2], *x.shape[1:]), memory)
    masks = () if mask_JHW is None else (_in_calls(mask_JHW, at_a_time),)
    scores, memory = lax.map(lambda inputs: look(*inputs), (parts, memory, *masks))
    return _out_of_calls(scores, len(window_JHWC)), jax.tree.map(_out_of_calls, memory)


def join(
    score_ShwK: Float[Array, "S h w K"], height: int, width: int, crop: tuple[int, int], stride: tuple[int, int]
) -> Float[Array, "height width K"]:
    """Scores of a frame from those of its windows, which may have any resolution.

    The windows' scores are resized to the crop, summed, and divided by the number of windows over each pixel.
    """
    starts = corners(height, width, crop, stride)
    covers = np.zeros((height, width, 1), np.float32)
    for row, column in starts:
        covers[row : row + crop[0], column : column + crop[1]] += 1

    def add_window(total, window):
        score_hwK, start = window
        corner = (start[0], start[1], 0)
        scores = layers.resize_bilinear(score_hwK[None], *crop)[0]
        before = lax.dynamic_slice(total, corner, scores.shape)
        return lax.dynamic_update_slice(total, before + scores, corner), None

    total = jnp.zeros((height, width, score_ShwK.shape[-1]), score_ShwK.dtype)
    return lax.scan(add_window, total, (score_ShwK, starts))[0] / covers
