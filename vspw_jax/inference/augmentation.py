"""Test-time augmentation: scores averaged over sizes of a frame and its mirror image.

The windows of all views go through the network together, a few at a time. The network is therefore compiled once,
however many views there are. Source: open-mmlab/mmsegmentation MultiScaleFlipAug and `aug_test`; czczup/ViT-Adapter
segmentation/configs/ade20k/mask2former_beitv2_adapter_large_896_80k_ade20k_ms.py, EncoderDecoderMask2FormerAug, which
takes the padding off. arXiv 2306.03508, section 3.2, flips. Shapes: N frames, S windows of a frame, J windows in all,
H and W pixels, h and w cells, K classes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from vspw_jax.inference import sliding_window
from vspw_jax.models import layers


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

    def undo(self, score_HWK: Float[Array, "H W K"], height: int, width: int) -> Float[Array, "height width K"]:
        """The scores of this view as scores of the frame."""
        score_HWK = score_HWK[: self.size[0], : self.size[1]]
        if self.mirrored:
            score_HWK = score_HWK[:, ::-1]
        return layers.resize_bilinear(score_HWK[None], height, width)[0]


def views(height: int, width: int, crop: tuple[int, int], scales: tuple[float, ...], flip: bool) -> list[View]:
    """The views of a frame: every scale, each with its mirror image if `flip`."""
    sizes = [sliding_window.input_size(height, width, crop, scale) for scale in scales]
    return [View(size, mirrored) for size in sizes for mirrored in ((False, True) if flip else (False,))]


def map_scores(
    score: sliding_window.Score,
    image_NHWC: Float[Array, "N H W 3"],
    crop: tuple[int, int],
    options: Options,
    finish: Callable[[Float[Array, "H W K"]], PyTree[Array]],
) -> PyTree[Array]:
    """What `finish` makes of the class scores of each frame, stacked over the frames.

    Only one frame at a time has the scores of all its pixels in memory.

    Args:
      image_NHWC: normalised frames at their own size.
      crop: (height, width).
    """
    num_images, height, width, _ = image_NHWC.shape
    chosen = views(height, width, crop, options.scales, options.flip)
    seen = [view.of(image_NHWC, crop) for view in chosen]
    windows = [sliding_window.cut(image, crop, options.stride) for image in seen]
    ends = np.cumsum([window_NSHWC.shape[1] for window_NSHWC in windows])[:-1].tolist()
    window_JHWC = jnp.concatenate(windows, axis=1).reshape(-1, *crop, image_NHWC.shape[-1])
    score_JhwK = sliding_window.score_windows(score, window_JHWC, options.windows)

    def of_frame(score_ShwK: Float[Array, "S h w K"]) -> PyTree[Array]:
        total: Any = 0.0
        for view, image, part in zip(chosen, seen, jnp.split(score_ShwK, ends), strict=True):
            joined = sliding_window.join(part, image.shape[1], image.shape[2], crop, options.stride)
            scores = view.undo(joined, height, width)
            total += jax.nn.softmax(scores, axis=-1) if options.double_softmax else scores
        return finish(total / len(chosen))

    return lax.map(of_frame, score_JhwK.reshape(num_images, -1, *score_JhwK.shape[1:]))
