"""Textures of the classes that `scenes.py` draws: patterns in 0..1 by pixel.

`unit` is the frame's height; the texture's features scale with it.
"""

import cv2
import numpy as np
from jaxtyping import Float, Float32

Size = tuple[int, int]
"""Height and width."""

Pattern = Float[np.ndarray, "H W"]


def smooth_noise(rng: np.random.Generator, shape: Size, cell_y: float, cell_x: float) -> Pattern:
    """Noise in 0..1 of `shape`, with features of about cell_y by cell_x pixels."""
    height, width = shape
    grid = rng.random((int(height / cell_y) + 3, int(width / cell_x) + 3), dtype=np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def _pixels(shape: Size) -> Float32[np.ndarray, "2 H W"]:
    """Rows and columns of the pixels."""
    return np.mgrid[: shape[0], : shape[1]].astype(np.float32)


def clouds(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Lighter below, with wide soft patches."""
    y, _ = _pixels(shape)
    return 0.6 * y / shape[0] + 0.4 * smooth_noise(rng, shape, unit / 5, unit / 2)


def windows(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Panes in rows and columns."""
    y, x = _pixels(shape)
    panes = (y % (unit / 10) > unit / 25) & (x % (unit / 12) > unit / 28)
    return 0.75 * panes + 0.25 * smooth_noise(rng, shape, unit / 4, unit / 4)


def asphalt(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Fine noise, and a broken line along the middle."""
    y, x = _pixels(shape)
    lane = (np.abs(y - shape[0] * 0.45) < unit / 40) & (x % (unit / 3) < unit / 6)
    return 0.4 * smooth_noise(rng, shape, 1.2, 1.2) + 0.6 * lane


def blades(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Narrow upright strokes."""
    return smooth_noise(rng, shape, unit / 14, 1.5)


def rock(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Slanting bands, bent."""
    y, x = _pixels(shape)
    return (np.sin((x + y) / unit * 40 + 6 * smooth_noise(rng, shape, unit / 6, unit / 6)) > 0).astype(np.float32)


def waves(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Level bands, bent."""
    y, _ = _pixels(shape)
    return 0.5 + 0.5 * np.sin(y / unit * 75 + 5 * smooth_noise(rng, shape, unit / 12, unit / 4))


def grains(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Single light pixels."""
    return (rng.random(shape) > 0.8).astype(np.float32)


def bricks(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Light joints, every other row moved by half a brick."""
    y, x = _pixels(shape)
    row = y // (unit / 11)
    joint = (y % (unit / 11) < unit / 60) | ((x + row % 2 * unit / 9) % (unit / 4.5) < unit / 60)
    return 0.8 * joint + 0.2 * smooth_noise(rng, shape, unit / 8, unit / 8)


def tiles(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """A chessboard whose rows grow towards the viewer."""
    y, x = _pixels(shape)
    squares = (np.log1p(y / unit * 4) // 0.2 + x // (unit / 9)) % 2
    return 0.85 * squares + 0.15 * smooth_noise(rng, shape, unit / 8, unit / 8)


def leaves(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Small blobs."""
    return (smooth_noise(rng, shape, unit / 30, unit / 30) > 0.5).astype(np.float32)


def stripes_across(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Five level stripes."""
    return (_pixels(shape)[0] % (shape[0] / 5) < shape[0] / 10).astype(np.float32)


def stripes_down(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Six upright stripes."""
    return (_pixels(shape)[1] % (shape[1] / 6) < shape[1] / 12).astype(np.float32)


def shading(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Lighter from top to bottom."""
    return _pixels(shape)[0] / shape[0]


def sectors(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Three dark and three light sectors."""
    y, x = _pixels(shape)
    return (np.sin(3 * np.arctan2(y - shape[0] / 2, x - shape[1] / 2)) > 0).astype(np.float32)


def frames(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Nested rectangles."""
    y, x = _pixels(shape)
    distance = np.maximum(np.abs(y / shape[0] - 0.5), np.abs(x / shape[1] - 0.5))
    return (distance * 12 % 2 < 1).astype(np.float32)


def blotches(rng: np.random.Generator, shape: Size, unit: float) -> Pattern:
    """Soft patches."""
    return smooth_noise(rng, shape, unit / 10, unit / 10)


TEXTURES = {
    "sky": clouds,
    "building": windows,
    "road": asphalt,
    "grass": blades,
    "mountain": rock,
    "sea": waves,
    "sand": grains,
    "wall": bricks,
    "floor": tiles,
    "tree": leaves,
    "person": stripes_across,
    "ship_or_boat": stripes_down,
    "car": shading,
    "ball": sectors,
    "painting_or_poster": frames,
    "unnamed": blotches,
    "glass": shading,
    "hull": shading,
    "skin": shading,
    "trunk": shading,
    "tyre": shading,
}
"""By class, or by part of an object."""
