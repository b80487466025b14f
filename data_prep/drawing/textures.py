"""Textures and outlines of the classes that `scenes.py` draws.

A texture is a pattern in 0..1 by pixel. `unit` is the frame's height; the texture's features scale with it.
An outline is the shape of an object in a square; its points are in percent of the side.
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
}

OUTLINES = {
    "car": (
        ("polygon", (2, 55), (18, 52), (30, 32), (68, 32), (82, 52), (98, 58), (98, 76), (2, 76)),
        ("ellipse", (24, 76), (11, 11)),
        ("ellipse", (76, 76), (11, 11)),
    ),
    "person": (
        ("ellipse", (50, 12), (10, 12)),
        (
            "polygon",
            (34, 24),
            (66, 24),
            (72, 60),
            (62, 60),
            (63, 98),
            (52, 98),
            (50, 66),
            (48, 98),
            (37, 98),
            (38, 60),
            (28, 60),
        ),
    ),
    "tree": (
        ("polygon", (45, 50), (55, 50), (57, 98), (43, 98)),
        ("ellipse", (50, 22), (24, 20)),
        ("ellipse", (32, 40), (24, 18)),
        ("ellipse", (68, 42), (22, 19)),
    ),
    "ship_or_boat": (
        ("polygon", (4, 66), (96, 66), (80, 88), (18, 88)),
        ("polygon", (48, 8), (86, 60), (48, 60)),
        ("polygon", (43, 18), (43, 60), (16, 60)),
    ),
    "ball": (("ellipse", (50, 50), (47, 47)),),
    "painting_or_poster": (("polygon", (6, 14), (94, 14), (94, 86), (6, 86)),),
    "unnamed": (("polygon", (10, 40), (40, 8), (60, 30), (92, 26), (80, 60), (90, 92), (46, 78), (14, 90)),),
}


TYPICAL = {
    "sky": (208, 0.45, 0.85),
    "building": (22, 0.35, 0.6),
    "road": (230, 0.08, 0.4),
    "grass": (95, 0.6, 0.55),
    "mountain": (275, 0.25, 0.45),
    "sea": (190, 0.7, 0.5),
    "sand": (45, 0.45, 0.85),
    "wall": (50, 0.15, 0.85),
    "floor": (28, 0.55, 0.4),
    "tree": (125, 0.65, 0.35),
    "ship_or_boat": (0, 0.12, 0.9),
    "ball": (355, 0.8, 0.75),
}
"""Hue in degrees, saturation and value of classes that have a colour in the world. A car, clothes and a painting have
any."""

HUE_SPREAD, SHADE_SPREAD = 35.0, 0.12
"""Standard deviations around them, of the hue in degrees, of saturation and value. What falls below a saturation of 0
becomes vivid: a road in four, a wall in nine."""


def shared_colours(rng: np.random.Generator, name: str) -> Float[np.ndarray, "2 3"]:
    """Two colours as (hue, saturation, value), a darker and a lighter one: one distribution for all classes."""
    hue, saturation = rng.uniform(0, 360, 2), rng.uniform(0.15, 0.75, 2)
    value = np.array([rng.uniform(0.2, 0.55), rng.uniform(0.6, 0.95)])
    return np.stack([hue, saturation, value], axis=-1)


def typical_colours(rng: np.random.Generator, name: str) -> Float[np.ndarray, "2 3"]:
    """Two colours as (hue, saturation, value) around the class's own, of those that have one."""
    if name not in TYPICAL:
        return shared_colours(rng, name)
    hue, saturation, value = rng.normal(TYPICAL[name], (HUE_SPREAD, SHADE_SPREAD, SHADE_SPREAD))
    contrast = rng.uniform(0.1, 0.3)
    if saturation < 0:
        saturation = 1.0  # Of pale classes some regions are vivid, so that grey alone does not give them away.
    return np.array([((hue + rng.normal(0, 10)) % 360, saturation, value + side * contrast / 2) for side in (-1, 1)])


COLOURS = {"typical": typical_colours, "shared": shared_colours}
"""How the colours of a region are drawn: as in the world, grass mostly green, or so that no colour tells a class."""


def colour_pair(rng: np.random.Generator, name: str, colours: str) -> Float32[np.ndarray, "2 3"]:
    """Two RGB colours in 0..1 for a class, a darker and a lighter one in random order."""
    pair = COLOURS[colours](rng, name)
    pair[:, 1:] = pair[:, 1:].clip(0.03, 0.97)
    return rng.permutation(cv2.cvtColor(pair.astype(np.float32)[None], cv2.COLOR_HSV2RGB)[0])


def paint(rng: np.random.Generator, name: str, shape: Size, unit: float, colours: str) -> Float32[np.ndarray, "H W 3"]:
    """The texture of a class in two newly drawn colours in 0..1; see `COLOURS`."""
    first, second = colour_pair(rng, name, colours)
    pattern = TEXTURES[name](rng, shape, unit * rng.uniform(0.85, 1.15))[..., None]
    return (first * (1 - pattern) + second * pattern).astype(np.float32)


def silhouette(name: str, size: int) -> Float32[np.ndarray, "size size"]:
    """The outline of an object, 1 inside."""
    mask = np.zeros((size, size), np.uint8)
    for kind, *points in OUTLINES[name]:
        pixels = np.array(points) * size // 100
        if kind == "polygon":
            cv2.fillPoly(mask, [pixels.astype(np.int32)], 1)
        else:
            centre, axes = pixels.tolist()
            cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, -1)
    return mask.astype(np.float32)
