"""Colours for pictures that people look at: far from each other as eyes see them."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

STEP = 15
"""Between the levels of a channel from which colours are chosen."""
LIGHTNESS, CHROMA = (35, 90), 25
"""What stands out over a frame: neither nearly black nor nearly white, and not grey, for void shows the frame."""


def lab(rgb_N3: UInt8[np.ndarray, "N 3"]) -> Float32[np.ndarray, "N 3"]:
    """CIELAB, in which equal distances look about equal (CIE 15)."""
    return cv2.cvtColor(rgb_N3[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]


def spread(count: int, first: Sequence[tuple[int, int, int]]) -> UInt8[np.ndarray, "count 3"]:
    """So many colours that begin with `first`: each further one is the farthest from all before it."""
    levels = np.arange(0, 256, STEP, dtype=np.uint8)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    place = lab(rgb)
    chroma = np.hypot(place[:, 1], place[:, 2])
    stands_out = (place[:, 0] >= LIGHTNESS[0]) & (place[:, 0] <= LIGHTNESS[1]) & (chroma >= CHROMA)
    rgb, place = rgb[stands_out], place[stands_out]
    chosen = [np.array(colour, np.uint8) for colour in first]
    away = lambda colour: np.linalg.norm(place - lab(colour[None]), axis=1)
    distance = np.min([away(colour) for colour in chosen], axis=0)
    while len(chosen) < count:
        chosen.append(rgb[distance.argmax()])
        distance = np.minimum(distance, away(chosen[-1]))
    return np.stack(chosen[:count])
