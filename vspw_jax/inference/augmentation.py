"""Test-time augmentation: scores averaged over sizes of a frame and its mirror image.

The windows of all views go through the network together, a few at a time. The network is therefore compiled once,
however many views there are. Source: open-mmlab/mmsegmentation MultiScaleFlipAug and `aug_test`; czczup/ViT-Adapter
segmentation/configs/ade20k/mask2former_beitv2_adapter_large_896_80k_ade20k_ms.py, EncoderDecoderMask2FormerAug, which
takes the padding off. arXiv 2306.03508, section 3.2, flips. Shapes: N frames, S windows of a frame, J windows in all,
H and W pixels, h and w cells, K classes.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PyTree, UInt8

from vspw_jax.classes.vspw import VOID
from vspw_jax.inference import sliding_window
from vspw_jax.models import layers

MOST_SCORES = 2**22
"""Of a frame, the most scores that are made at its own size at a time: pixels times classes. In float32 16 MiB, which
on CPU take two thirds of the time of all scores of a frame of 853x480, and two fifths of one of 1280x720."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How a frame is scored; each field is the one of the same name in the config's `evaluate`."""

    stride: tuple[int, int]
    windows: int = 4
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    double_softmax: bool = False


@dataclasses.dataclass(frozen=True)
class View:
    """One way to look at a frame: resized to `size` (height, width), then mirrored left to right or not."""

    size: tuple[int, int]
    mirrored: bool

    def of(self, image_NHWC: Float[Array, "N H W 3"], crop: tuple[int, int]) -> Float[Array, "N _ _ 3"]:
        """The frames as this view shows them, padded to the crop; the released code resizes, flips, then pads."""
        image_NHWC = layers.resize_bilinear(image_NHWC, *self.size)
        if self.mirrored:
            image_NHWC = image_NHWC[:, :, ::-1]
        return sliding_window.pad_to_crop(image_NHWC, crop)

    def of_mask(self, mask_NHW: UInt8[Array, "N H W"], crop: tuple[int, int]) -> UInt8[Array, "N _ _ 1"]:
        """Train ids as this view shows their frames, void where it is padded; no two ids are mixed."""
        mask_NHW = jax.image.resize(mask_NHW, (len(mask_NHW), *self.size), "nearest")
        if self.mirrored:
            mask_NHW = mask_NHW[:, :, ::-1]
        return sliding_window.pad_to_crop(mask_NHW[..., None], crop, VOID)

    def undo(self, score_HWK: Float[Array, "_ _ K"]) -> Float[Array, "h w K"]:
        """The scores of this view without padding, as the frame lies, at the view's size."""
        score_HWK = score_HWK[: self.size[0], : self.size[1]]
        return score_HWK[:, ::-1] if self.mirrored else score_HWK


def views(height: int, width: int, crop: tuple[int, int], scales: tuple[float, ...], flip: bool) -> list[View]:
    """The views of a frame: every scale, each with its mirror image if `flip`."""
    sizes = [sliding_window.input_size(height, width, crop, scale) for scale in scales]
    return [View(size, mirrored) for size in sizes for mirrored in ((False, True) if flip else (False,))]


class Windows:
    """The windows of all views of a frame, and the scores of the frame from those of its windows.

    Args:
      height, width: of the frame.
      crop: (height, width) of a window.
    """

    def __init__(self, height: int, width: int, crop: tuple[int, int], options: Options) -> None:
        self._height, self._width, self._crop, self._options = height, width, crop, options
        self._views = views(height, width, crop, options.scales, options.flip)
        self._shapes = [(max(view.size[0], crop[0]), max(view.size[1], crop[1])) for view in self._views]
        self._counts = [len(sliding_window.corners(*shape, crop, options.stride)) for shape in self._shapes]

    @property
    def num_memories(self) -> int:
        """For how many windows a network needs a memory that remembers; see `sliding_window.look_through`."""
        return math.prod(sliding_window.calls(sum(self._counts), self._options.windows))

    def cut(self, image_NHWC: Float[Array, "N H W 3"]) -> Float[Array, "N S h w 3"]:
        """The windows of frames, view by view."""
        seen = [view.of(image_NHWC, self._crop) for view in self._views]
        windows = [sliding_window.cut(image, self._crop, self._options.stride) for image in seen]
        return jnp.concatenate(windows, axis=1)

    def cut_mask(self, mask_HW: UInt8[Array, "H W"]) -> UInt8[Array, "S h w"]:
        """The windows of a frame's mask, view by view."""
        seen = [view.of_mask(mask_HW[None], self._crop) for view in self._views]
        windows = [sliding_window.cut(mask, self._crop, self._options.stride) for mask in seen]
        return jnp.concatenate(windows, axis=1)[0, ..., 0]

    def finished(
        self, score_ShwK: Float[Array, "S h w K"], finish: Callable[[Float[Array, "H W K"]], PyTree[Array]]
    ) -> PyTree[Array]:
        """What `finish` makes, pixel by pixel, of a frame's scores, from those of the windows that `cut` gave.

        The scores of a large frame's pixels are made and finished strip by strip: all of them would take gibibytes.
        """
        seen = self._seen(score_ShwK)
        rows = max(1, MOST_SCORES // (self._width * score_ShwK.shape[-1]))
        if rows >= self._height:
            return finish(self._averaged([layers.resize_bilinear(x[None], self._height, self._width)[0] for x in seen]))
        count = -(-self._height // rows)

        def by_strip(view: View) -> Float[Array, "count rows h"]:
            matrix = layers.resize_matrix(view.size[0], self._height)
            return jnp.pad(matrix, ((0, count * rows - self._height), (0, 0))).reshape(count, rows, -1)

        def strip(matrices: list[Float[Array, "rows h"]]) -> PyTree[Array]:
            narrow = [
                jnp.einsum("rh,hwk->rwk", *pair, precision="highest") for pair in zip(matrices, seen, strict=True)
            ]
            return finish(self._averaged([layers.resize_bilinear(x[None], rows, self._width)[0] for x in narrow]))

        strips = lax.map(strip, [by_strip(view) for view in self._views])
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: self._height], strips)

    def _seen(self, score_ShwK: Float[Array, "S h w K"]) -> list[Float[Array, "h w K"]]:
        """The scores of each view at its size."""
        of_views = jnp.split(score_ShwK, np.cumsum(self._counts)[:-1].tolist())
        joined = (
            sliding_window.join(part, *shape, self._crop, self._options.stride)
            for shape, part in zip(self._shapes, of_views, strict=True)
        )
        return [view.undo(scores) for view, scores in zip(self._views, joined, strict=True)]

    def _averaged(self, scores: list[Float[Array, "H W K"]]) -> Float[Array, "H W K"]:
        """The mean of the views' scores of some pixels."""
        total: Any = 0.0
        for score_HWK in scores:
            total += jax.nn.softmax(score_HWK, axis=-1) if self._options.double_softmax else score_HWK
        return total / len(scores)


def map_scores(
    score: sliding_window.Score,
    image_NHWC: Float[Array, "N H W 3"],
    crop: tuple[int, int],
    options: Options,
    finish: Callable[[Float[Array, "H W K"]], PyTree[Array]],
) -> PyTree[Array]:
    """What `finish` makes of the class scores of each frame, stacked over the frames.

    Only one frame at a time, or a strip of a large one, has the scores of its pixels in memory.

    Args:
      image_NHWC: normalised frames at their own size.
      crop: (height, width).
      finish: works pixel by pixel.
    """
    num_images, height, width, channels = image_NHWC.shape
    windows = Windows(height, width, crop, options)
    window_JHWC = windows.cut(image_NHWC).reshape(-1, *crop, channels)
    score_JhwK = sliding_window.score_windows(score, window_JHWC, options.windows)
    of_frame = lambda score_ShwK: windows.finished(score_ShwK, finish)
    return lax.map(of_frame, score_JhwK.reshape(num_images, -1, *score_JhwK.shape[1:]))


def scan_scores(
    look: sliding_window.Look,
    memory: PyTree[Array],
    image_NHWC: Float[Array, "N H W 3"],
    count: Int[Array, ""],
    crop: tuple[int, int],
    options: Options,
    finish: Callable[[Float[Array, "H W K"]], PyTree[Array]],
    mask_NHW: UInt8[Array, "N H W"] | None = None,
) -> tuple[PyTree[Array], PyTree[Array]]:
    """As `map_scores`, for a network that remembers: frame after frame, each window of each view with its own memory.

    Args:
      memory: of the windows before the first frame; see `sliding_window.look_through`.
      count: so many of the images are frames, the others fill up the batch and are not remembered.
      mask_NHW: train ids of the frames by an earlier stage, for `look` to read.

    Returns:
      (what `finish` makes, stacked over the frames; the memory after the last frame).
    """
    height, width = image_NHWC.shape[1:3]
    windows = Windows(height, width, crop, options)

    def next_frame(memory: PyTree[Array], inputs: tuple[Array, ...]) -> tuple[PyTree[Array], PyTree[Array]]:
        number, image_HWC, *masks = inputs
        cut = windows.cut(image_HWC[None])[0], memory, options.windows, *map(windows.cut_mask, masks)
        score_ShwK, after = sliding_window.look_through(look, *cut)
        memory = jax.tree.map(lambda new, old: jnp.where(number < count, new, old), after, memory)
        return memory, windows.finished(score_ShwK, finish)

    given = () if mask_NHW is None else (mask_NHW,)
    memory, finished = lax.scan(next_frame, memory, (jnp.arange(len(image_NHWC)), image_NHWC, *given))
    return finished, memory
