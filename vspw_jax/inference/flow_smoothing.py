"""Smooths a video's class scores: a frame's are averaged with those of the frame before, moved along optical flow.

Paper 000 (arXiv 2306.03508, conclusion) tried such a step and dropped it, and says no more. What is here: flow by
OpenCV's DIS in both directions; a pixel takes part where the two agree (equation 5 of Sundaram, Brox and Keutzer,
Dense Point Trajectories by GPU-Accelerated Large Displacement Optical Flow, ECCV 2010) and the colours do; a cut, where
too few pixels do, begins anew. Of the frames before, one frame's scores are held.
Shapes: H and W pixels, N frames, K classes.
"""

from collections.abc import Sequence
from typing import Protocol

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, UInt8
from ml_collections import ConfigDict

from vspw_jax.inference.predictor import Result
from vspw_jax.sampling import bilinear

MOST_COLOUR = 25
"""By so much, of 255, a pixel's channels may differ from those of where it was, on average."""
LEAST_SEEN = 0.5
"""Of a frame's pixels, this share must be seen in the frame before; else there was a cut between them."""

Frame = UInt8[np.ndarray, "H W 3"]
Flow = Float32[np.ndarray, "H W 2"]


def _moved(image: np.ndarray, flow: Flow) -> np.ndarray:
    """What stands at each pixel's place plus its flow (x, y); beyond the image -1."""
    y, x = np.indices(flow.shape[:2], dtype=np.float32)
    place = x + flow[..., 0], y + flow[..., 1]
    return cv2.remap(image, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(-1, -1, -1))


def agree(backward: Flow, forward: Flow) -> Bool[np.ndarray, "H W"]:
    """Where the flow to the frame before, and from there back, leads to where it began."""
    returned = _moved(forward, backward)
    gap, lengths = backward + returned, (backward**2 + returned**2).sum(axis=-1)
    height, width = backward.shape[:2]
    y, x = np.indices((height, width), dtype=np.float32)
    x, y = x + backward[..., 0], y + backward[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return inside & ((gap**2).sum(axis=-1) < 0.01 * lengths + 0.5)


class FlowBefore:
    """Where the pixels of a frame were in the frame before."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, frame: Frame, before: Frame) -> tuple[Flow, Bool[np.ndarray, "H W"]]:
        """(flow to the frame before, which pixels are seen there too); none is where a cut lies between them."""
        here, there = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (frame, before))
        flow = lambda one, other: self._dis.calc(one, other, None)  # type: ignore[call-overload]
        backward, forward = flow(here, there), flow(there, here)
        changed = np.abs(_moved(before.astype(np.float32), backward) - frame).mean(axis=-1)
        seen = agree(backward, forward) & (changed < MOST_COLOUR)
        return backward, seen if seen.mean() >= LEAST_SEEN else np.zeros_like(seen)


@jax.jit
def averaged(
    score_HWK: Float[Array, "H W K"],
    before_HWK: Float[Array, "H W K"],
    flow_HW2: Float[Array, "H W 2"],
    seen_HW: Bool[Array, "H W"],
    weight: Float[Array, ""],
) -> Float[Array, "H W K"]:
    """Scores, averaged with those before where a pixel is seen there too: `weight` is the share of what was before."""
    height, width, _ = score_HWK.shape
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    places = (jnp.stack([x, y], axis=-1) + flow_HW2 + 0.5) / jnp.array([width, height])
    moved_HWK = bilinear.sample(before_HWK.astype(jnp.float32), places.reshape(-1, 2)).reshape(score_HWK.shape)
    share = weight * seen_HW[..., None]
    return ((1 - share) * score_HWK + share * moved_HWK).astype(score_HWK.dtype)


class Labelled(Protocol):
    """A `Result`, or what stands before one."""

    def labels(self) -> UInt8[np.ndarray, "N H W"]:
        """Train ids."""


class Smoothing:
    """Labels of a video's frames from results in order, smoothed if `evaluate.flow_weight` is above 0.

    A frame of another size, like the first one, stands by itself.
    """

    def __init__(self, options: ConfigDict) -> None:
        self._weight, self._flow = options.flow_weight, FlowBefore()
        self._frame: Frame | None = None
        self._score_HWK: Array | None = None

    def labels(self, frames: Sequence[Frame], result: Labelled) -> UInt8[np.ndarray, "N H W"]:
        """Train ids of the next frames; waits until the devices are done."""
        if not self._weight:
            return result.labels()
        assert isinstance(result, Result)  # Scores that are saved are not smoothed: `check_options` refuses both.
        return np.stack([self._next(*pair) for pair in zip(frames, result.full_scores(), strict=True)])

    def _next(self, frame: Frame, score_HWK: Float[Array, "H W K"]) -> UInt8[np.ndarray, "H W"]:
        if self._frame is not None and self._frame.shape == frame.shape:
            assert self._score_HWK is not None
            score_HWK = averaged(score_HWK, self._score_HWK, *self._flow(frame, self._frame), self._weight)
        self._frame, self._score_HWK = frame, score_HWK
        return np.asarray(score_HWK.argmax(axis=-1)).astype(np.uint8)
