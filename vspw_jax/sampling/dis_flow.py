"""Optical flow by OpenCV's DIS (Kroeger and others, Fast Optical Flow using Dense Inverse Search, ECCV 2016)."""

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

LEAST_SIDE = 12
"""Pixels of the shortest side that it takes."""


class DisFlow:
    """Flow between frames, preset medium."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        following: UInt8[np.ndarray, "H W 3"],
        where: tuple[str, str] | None = None,
    ) -> Float32[np.ndarray, "H W 2"]:
        """Where each pixel of an image goes, as (x, y) pixels. `where` is for other sources of flow."""
        first, second = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (image, following))
        return self._dis.calc(first, second, None)  # type: ignore[call-overload]  # OpenCV's stubs lack the None.
