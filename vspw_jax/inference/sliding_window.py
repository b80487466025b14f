"""Sliding-window inference as mmseg's slide mode: the last window is shifted back, overlaps are averaged by count.

Source: open-mmlab/mmsegmentation mmseg/models/segmentors/encoder_decoder.py `slide_inference`; czczup/ViT-Adapter test
pipelines for the size. Shapes: N frames, H and W pixels, K classes.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vspw_jax.models import layers


def window_starts(size, crop, stride):
    """Starts of the windows that cover 0..size, `stride` apart, the last one ending at `size`."""
    count = max(size - crop + stride - 1, 0) // stride + 1
    return [min(number * stride, size - crop) for number in range(count)]


def input_size(height, width, crop):
    """Size at which a frame enters: aspect kept, no side shorter than the crop's, rounded up to multiples of 32.

    With a square crop it is the released "short side = crop size, then ResizeToMultiple(32)".
    """
    scale = max(crop[0] / height, crop[1] / width)
    return tuple(
        max(math.ceil(int(size * scale + 0.5) / 32) * 32, side)
        for size, side in zip((height, width), crop, strict=True)
    )


def class_scores(score, image_NHWC, crop, stride):
    """Class scores (N, H, W, K) of whole frames.

    Args:
      score: function from windows (N, *crop, 3) to scores (N, h, w, K) at any resolution.
      image_NHWC: normalised frames, no side shorter than the crop's.
      crop, stride: (height, width).
    """
    num_images, height, width, _ = image_NHWC.shape
    rows, columns = (window_starts(*sides) for sides in zip((height, width), crop, stride, strict=True))
    starts = np.array([(row, column) for row in rows for column in columns], np.int32)
    covers = np.zeros((height, width, 1), np.float32)
    for row, column in starts:
        covers[row : row + crop[0], column : column + crop[1]] += 1

    def add_window(total, start):
        corner = (0, start[0], start[1], 0)
        window = lax.dynamic_slice(image_NHWC, corner, (num_images, *crop, 3))
        scores = layers.resize_bilinear(score(window), *crop)
        before = lax.dynamic_slice(total, corner, scores.shape)
        return lax.dynamic_update_slice(total, before + scores, corner), None

    num_classes = jax.eval_shape(score, jax.ShapeDtypeStruct((num_images, *crop, 3), image_NHWC.dtype)).shape[-1]
    total, _ = lax.scan(add_window, jnp.zeros((num_images, height, width, num_classes)), starts)
    return total / covers
