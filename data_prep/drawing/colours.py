"""Colours of what `scenes.py` draws: those that a class has in the world, or one distribution for all classes."""

import cv2
import numpy as np
from jaxtyping import Float, Float32

from data_prep.drawing import textures
from data_prep.drawing.textures import Size

TYPICAL: dict[str, tuple[float | None, float, float]] = {
    "sky": (210, 0.4, 0.9),
    "building": (20, 0.35, 0.6),
    "road": (230, 0.06, 0.4),
    "grass": (95, 0.6, 0.55),
    "mountain": (275, 0.2, 0.45),
    "sea": (195, 0.7, 0.5),
    "sand": (42, 0.45, 0.85),
    "wall": (50, 0.12, 0.85),
    "floor": (28, 0.55, 0.4),
    "tree": (125, 0.65, 0.35),
    "ship_or_boat": (0, 0.06, 0.92),
    "ball": (355, 0.8, 0.75),
    "car": (None, 0.75, 0.7),
    "glass": (200, 0.25, 0.7),
    "hull": (15, 0.6, 0.35),
    "skin": (22, 0.4, 0.75),
    "trunk": (25, 0.5, 0.3),
    "tyre": (0, 0.05, 0.12),
}
"""Hue in degrees (None: any), saturation and value of classes, and of parts of objects, that have a colour in the
world. Clothes and a painting have any."""

HUE_SPREAD, SHADE_SPREAD = 22.0, 0.09
"""Standard deviations around them, of the hue in degrees, of saturation and value."""


def shared_colours(rng: np.random.Generator, name: str) -> Float[np.ndarray, "2 3"]:
    """Two colours as (hue, saturation, value), a darker and a lighter one: one distribution for all classes."""
    hue, saturation = rng.uniform(0, 360, 2), rng.uniform(0.15, 0.75, 2)
    value = np.array([rng.uniform(0.2, 0.55), rng.uniform(0.6, 0.95)])
    return np.stack([hue, saturation, value], axis=-1)


def typical_colours(rng: np.random.Generator, name: str) -> Float[np.ndarray, "2 3"]:
    """Two colours as (hue, saturation, value) around the class's own, of those that have one."""
    if name not in TYPICAL:
        return shared_colours(rng, name)
    mean_hue, *shade = TYPICAL[name]
    hue = rng.uniform(0, 360) if mean_hue is None else rng.normal(mean_hue, HUE_SPREAD)
    saturation, value = rng.normal(shade, SHADE_SPREAD)
    contrast = rng.uniform(0.2, 0.35)
    return np.array(
        [((hue + rng.normal(0, 10)) % 360, abs(saturation), value + side * contrast / 2) for side in (-1, 1)]
    )


COLOURS = {"typical": typical_colours, "shared": shared_colours}
"""How the colours of a region are drawn: as in the world, grass mostly green, or so that no colour tells a class."""


def colour_pair(rng: np.random.Generator, name: str, colours: str) -> Float32[np.ndarray, "2 3"]:
    """Two RGB colours in 0..1 for a class, a darker and a lighter one in random order."""
    pair = COLOURS[colours](rng, name)
    pair[:, 1:] = pair[:, 1:].clip(0.03, 0.97)
    return rng.permutation(cv2.cvtColor(pair.astype(np.float32)[None], cv2.COLOR_HSV2RGB)[0])


def paint(rng: np.random.Generator, name: str, shape: Size, unit: float, colours: str) -> Float32[np.ndarray, "H W 3"]:
    """The texture of a class, or of a part of an object, in two newly drawn colours in 0..1; see `COLOURS`."""
    first, second = colour_pair(rng, name, colours)
    pattern = textures.TEXTURES[name](rng, shape, unit * rng.uniform(0.85, 1.15))[..., None]
    return (first * (1 - pattern) + second * pattern).astype(np.float32)
