"""Smooths a video's class scores: a frame's are averaged with those of the frame before, moved along optical flow.

Paper 000 (arXiv 2306.03508, conclusion) tried such a step and dropped it, and says no more. What is here: flow by
OpenCV's DIS in both directions; a pixel takes part where the two agree (equation 5 of Sundaram, Brox and Keutzer,
Dense Point Trajectories by GPU-Accelerated Large Displacement Optical Flow, ECCV 2010) and the colours do; a cut, where
too few pixels do, begins anew. Of the frames before, one frame's scores are held, in half precision.
Shapes: H and W pixels, N frames, K classes.
"""

from collections.abc import Sequence
from typing import Protocol

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, UInt8
from ml_collections import ConfigDict

from vspw_jax.inference.predictor import Result
from vspw_jax.sampling import bilinear
from vspw_jax.sampling.dis_flow import LEAST_SIDE, DisFlow

MOST_COLOUR = 25
"""By so much, of 255, a pixel's channels may differ from those of where it was, on average."""
LEAST_SEEN = 0.5
"""Of a frame's pixels, this share must be seen in the frame before; else there was a cut between them."""

Frame = UInt8[np.ndarray, "H W 3"]
Flow = Float32[np.ndarray, "H W 2"]


def _places(flow: Flow) -> tuple[Float32[np.ndarray, "H W"], Float32[np.ndarray, "H W"]]:
    """(x, y) of each pixel plus its flow."""
    y, x = np.indices(flow.shape[:2], dtype=np.float32)
    return x + flow[..., 0], y + flow[..., 1]


def _moved(image: np.ndarray, flow: Flow) -> np.ndarray:
    """What stands at each pixel's place plus its flow; beyond the image 0."""
    return cv2.remap(image, *_places(flow), cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def agree(backward: Flow, forward: Flow) -> Bool[np.ndarray, "H W"]:
    """Where the flow to the frame before, and from there back, leads to where it began."""
    returned = _moved(forward, backward)
    gap, lengths = backward + returned, (backward**2 + returned**2).sum(axis=-1)
    (height, width), (x, y) = backward.shape[:2], _places(backward)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return inside & ((gap**2).sum(axis=-1) < 0.01 * lengths + 0.5)


def seen_before(frame: Frame, before: Frame, flow: DisFlow) -> tuple[Flow, Bool[np.ndarray, "H W"]] | None:
    """(flow to the frame before, which pixels are seen there too); None where too few are, as across a cut."""
    if frame.shape != before.shape or min(frame.shape[:2]) < LEAST_SIDE:
        return None
    backward, forward = flow(frame, before), flow(before, frame)
    changed = np.abs(_moved(before.astype(np.float32), backward) - frame).mean(axis=-1)
    seen = agree(backward, forward) & (changed < MOST_COLOUR)
    return (backward, seen) if seen.mean() >= LEAST_SEEN else None


@jax.jit
def averaged(
    score_HWK: Float[Array, "H W K"],
    before_HWK: Float[Array, "H W K"],
    flow_HW2: Float[Array, "H W 2"],
    seen_HW: Bool[Array, "H W"],
    weight: Float[Array, ""],
) -> Float[Array, "H W K"]:
    """Scores, averaged with those before where a pixel is seen there too: `weight` is the share of what was before.

    A row after the other, so that the samples of one alone are held.
    """
    height, width, _ = score_HWK.shape

    def row(inputs: tuple[Array, ...]) -> Float[Array, "W K"]:
        y, score_WK, flow_W2, seen_W = inputs
        place_W2 = jnp.stack([jnp.arange(width), jnp.full(width, y)], axis=-1) + flow_W2 + 0.5
        moved_WK = bilinear.sample(before_HWK, place_W2 / jnp.array([width, height]))
        share = weight * seen_W[:, None]
        return ((1 - share) * score_WK + share * moved_WK).astype(score_WK.dtype)

    return lax.map(row, (jnp.arange(height), score_HWK, flow_HW2, seen_HW))


class Labelled(Protocol):
    """A `Result`, or what stands before one."""

    def labels(self) -> UInt8[np.ndarray, "N H W"]:
        """Train ids."""


class Smoothing:
    """Labels of a video's frames from results in order, smoothed if `evaluate.flow_weight` is above 0.

    A frame in which too little of the frame before is seen, or whose size is another, stands by itself, like the first.
    """

    def __init__(self, options: ConfigDict) -> None:
        self._weight, self._flow = options.flow_weight, DisFlow()
        self._last: Frame | None = None
        self._score_HWK: Array | None = None

    def labels(self, frames: Sequence[Frame], result: Labelled) -> UInt8[np.ndarray, "N H W"]:
        """Train ids of the next frames; waits until the devices are done."""
        if not self._weight:
            return result.labels()
        assert isinstance(result, Result)  # Scores that are saved are not smoothed: `check_options` refuses both.
        before = [self._last, *frames[:-1]]
        seen = [  # While the devices still work on the scores.
            None if last is None else seen_before(frame, last, self._flow)
            for frame, last in zip(frames, before, strict=True)
        ]
        self._last = frames[-1]
        smooth = [self._next(*pair) for pair in zip(result.full_scores(), seen, strict=True)]
        alone = result.labels()
        return np.stack([own if label is None else np.asarray(label) for own, label in zip(alone, smooth, strict=True)])

    def _next(self, score_HWK: Float[Array, "H W K"], seen: tuple[np.ndarray, np.ndarray] | None) -> Array | None:
        """The labels of a frame that is averaged, still on the device."""
        if seen is None:
            self._score_HWK = score_HWK
            return None
        self._score_HWK = averaged(score_HWK, self._score_HWK, *seen, self._weight)
        return self._score_HWK.argmax(axis=-1).astype(jnp.uint8)
