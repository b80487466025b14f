"""Sliding-window inference as mmseg's slide mode: the last window is shifted back, overlaps are averaged by count.

Windows are cut first, scored a few at a time whatever frame they are of, and put together frame by frame: a network
call is always of the same shape. Source: open-mmlab/mmsegmentation mmseg/models/segmentors/encoder_decoder.py
`slide_inference`; czczup/ViT-Adapter test pipelines for the size. Shapes: N frames, S windows of a frame, J windows in
all, H and W pixels, h and w cells, K classes.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from vspw_jax.models import layers

MULTIPLE = 32
"""Sides of a resized frame are multiples of it; released: ResizeToMultiple."""


def window_starts(size, crop, stride):
    """Starts of the windows that cover 0..size, `stride` apart, the last one ending at `size`."""
    count = max(size - crop + stride - 1, 0) // stride + 1
    return [min(number * stride, size - crop) for number in range(count)]


def input_size(height, width, crop, scale=1.0):
    """Size at which a frame enters: aspect kept, `scale` times that at which no side is shorter than the crop's,
    rounded up to multiples of 32.

    With a square crop and scale 1 it is the released "short side = crop size, then ResizeToMultiple(32)".
    """
    scale *= max(crop[0] / height, crop[1] / width)
    return tuple(max(math.ceil(int(size * scale + 0.5) / MULTIPLE), 1) * MULTIPLE for size in (height, width))


def corners(height, width, crop, stride):
    """Top left corners (S, 2) of the windows of a frame, row by row."""
    rows, columns = (window_starts(*sides) for sides in zip((height, width), crop, stride, strict=True))
    return np.array([(row, column) for row in rows for column in columns], np.int32)


def pad_to_crop(image_NHWC, crop):
    """Frames with zeros at the bottom and right where a side is shorter than the crop's: released PadShortSide."""
    short = [max(side - size, 0) for side, size in zip(crop, image_NHWC.shape[1:3], strict=True)]
    return jnp.pad(image_NHWC, ((0, 0), (0, short[0]), (0, short[1]), (0, 0)))


def cut(image_NHWC, crop, stride):
    """Windows (N, S, *crop, 3) of frames of which no side is shorter than the crop's."""
    shape = (image_NHWC.shape[0], *crop, image_NHWC.shape[-1])
    # A loop: many windows, each a slice of its own in the program, take minutes to compile.
    windows = lax.map(
        lambda start: lax.dynamic_slice(image_NHWC, (0, start[0], start[1], 0), shape),
        corners(*image_NHWC.shape[1:3], crop, stride),
    )
    return jnp.moveaxis(windows, 0, 1)


def score_windows(score, window_JHWC, at_a_time):
    """Scores (J, h, w, K) of windows, by calls of `score` on equal parts of at most `at_a_time` of them.

    Args:
      score: function from windows (j, *crop, 3) to scores (j, h, w, K) at any resolution.
    """
    count = len(window_JHWC)
    calls = -(-count // at_a_time)
    size = -(-count // calls)
    # The last call is filled up with windows that are scored anyway.
    filled = jnp.concatenate([window_JHWC, window_JHWC[: calls * size - count]])
    scores = lax.map(score, filled.reshape(calls, size, *window_JHWC.shape[1:]))
    return scores.reshape(calls * size, *scores.shape[2:])[:count]


def join(score_ShwK, height, width, crop, stride):
    """Scores (height, width, K) of a frame from those of its windows, at any resolution: resized to the crop, summed,
    and divided by the number of windows over each pixel."""
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
