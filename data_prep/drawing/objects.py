"""What stands and moves in drawn scenes: how it looks, where it belongs, how it moves.

Lengths are in frame heights, times in seconds. Shapes have their points in percent of the side of a square.
"""

import dataclasses
import functools
from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Float, Float32

from data_prep.drawing.colours import paint

Shape = tuple
"""("polygon", (x, y), ...) or ("ellipse", (x, y), (radius along x, along y))."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """How objects of a class are.

    Attributes:
      outline: the shapes that make the object.
      parts: those of them, or on them, that have colours of their own, by their name in `colours.TYPICAL`.
      size: of the square, from the smallest to the largest, where it stands in the middle of its place.
      speed: along, from the slowest to the fastest.
      hop: how high it jumps.
      sway: how far it swings, in degrees.
      rolls: whether it turns as it moves.
      hangs: on a wall; all others stand on the ground, and have a shadow there.
    """

    outline: tuple[Shape, ...]
    parts: Mapping[str, tuple[Shape, ...]] = dataclasses.field(default_factory=dict)
    size: tuple[float, float] = (0.35, 0.5)
    speed: tuple[float, float] = (0.0, 0.0)
    hop: float = 0.0
    sway: float = 0.0
    rolls: bool = False
    hangs: bool = False


WHEELS = (("ellipse", (24, 84), (12, 12)), ("ellipse", (76, 84), (12, 12)))
TRUNK = ("polygon", (45, 50), (55, 50), (57, 97), (43, 97))
HULL = ("polygon", (4, 72), (96, 72), (80, 96), (18, 96))
HEAD = ("ellipse", (50, 12), (10, 12))
BODY = ((34, 24), (66, 24), (72, 60), (62, 60), (63, 97), (52, 97), (50, 66), (48, 97), (37, 97), (38, 60), (28, 60))

KINDS = {
    "car": Kind(
        (("polygon", (2, 60), (18, 57), (30, 34), (68, 34), (82, 57), (98, 63), (98, 84), (2, 84)), *WHEELS),
        {"tyre": WHEELS, "glass": (("polygon", (24, 56), (33, 39), (66, 39), (76, 56)),)},
        size=(0.45, 0.6),
        speed=(0.2, 0.8),
    ),
    "person": Kind((HEAD, ("polygon", *BODY)), {"skin": (HEAD,)}, size=(0.42, 0.56), speed=(0.0, 0.25), sway=3),
    "tree": Kind(
        (TRUNK, ("ellipse", (50, 22), (27, 21)), ("ellipse", (29, 42), (26, 19)), ("ellipse", (71, 43), (25, 19))),
        {"trunk": (TRUNK,)},
        size=(0.5, 0.7),
        sway=2,
    ),
    "ship_or_boat": Kind(
        (HULL, ("polygon", (48, 6), (88, 68), (48, 68)), ("polygon", (43, 16), (43, 68), (12, 68))),
        {"hull": (HULL,)},
        size=(0.4, 0.6),
        speed=(0.05, 0.3),
        sway=5,
    ),
    "ball": Kind((("ellipse", (50, 50), (47, 47)),), size=(0.26, 0.38), speed=(0.1, 0.5), hop=0.08, rolls=True),
    "painting_or_poster": Kind((("polygon", (4, 14), (96, 14), (96, 86), (4, 86)),), size=(0.35, 0.5), hangs=True),
    "unnamed": Kind(
        (("polygon", (8, 60), (30, 20), (58, 34), (90, 30), (84, 66), (92, 96), (46, 90), (12, 97)),),
        size=(0.2, 0.35),
        speed=(0.0, 0.2),
    ),
}
"""By class. "unnamed" belongs to no class."""

SHADOW: tuple[Shape, ...] = (("ellipse", (50, 95), (46, 7)),)
"""On the ground, in the square of what throws it."""


@dataclasses.dataclass
class Sprite:
    """An object and its path: the square's middle (x, y) at the start, and how it goes on."""

    name: str
    colour_HWC: Float32[np.ndarray, "H W 3"]
    alpha_HW: Float32[np.ndarray, "H W"]
    start: Float[np.ndarray, "2"]
    size: float
    stretch: float
    velocity: float
    phase: float

    @property
    def kind(self) -> Kind:
        """How objects of its class are."""
        return KINDS[self.name]

    def placement(self, time: float, unit: int) -> Float[np.ndarray, "2 3"]:
        """The matrix from the sprite's pixels to the world's."""
        side = self.alpha_HW.shape[0]
        way = self.velocity * time
        hop = self.kind.hop * abs(np.sin(5 * time + self.phase))
        turn = np.degrees(2 * way / self.size) if self.kind.rolls else self.kind.sway * np.sin(4 * time + self.phase)
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), -turn, self.size * unit / side)
        if not self.kind.rolls:
            matrix[0] *= self.stretch
        matrix[:, 2] = (self.start + (way, -hop)) * unit - matrix[:, :2] @ (side / 2, side / 2)
        return matrix

    def shadow_placement(self, time: float, unit: int) -> Float[np.ndarray, "2 3"]:
        """The same of its shadow, which stays on the ground."""
        side = self.alpha_HW.shape[0]
        scale = self.size * unit / side
        x, y = (self.start + (self.velocity * time, 0)) * unit
        return np.array([[scale, 0, x - scale * side / 2], [0, scale, y - scale * side / 2]])


def filled(shapes: tuple[Shape, ...], side: int) -> Float32[np.ndarray, "side side"]:
    """Shapes in a square, 1 inside."""
    mask = np.zeros((side, side), np.uint8)
    for form, *points in shapes:
        pixels = np.array(points) * side // 100
        if form == "polygon":
            cv2.fillPoly(mask, [pixels.astype(np.int32)], 1)
        else:
            centre, axes = pixels.tolist()
            cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, -1)
    return mask.astype(np.float32)


@functools.cache
def shade(side: int) -> Float32[np.ndarray, "side side"]:
    """The share of the light that a shadow takes, in a square of so many pixels."""
    return 0.45 * cv2.GaussianBlur(filled(SHADOW, side), (0, 0), side / 40)


def sprite(
    rng: np.random.Generator, name: str, place: tuple[float, float], width: float, unit: int, colours: str
) -> Sprite:
    """A new object of a class.

    Args:
      name: its class.
      place: upper and lower edge of the region in which it stands or hangs.
      width: of the world.
      unit: pixels of a frame's height.
      colours: a key of `colours.COLOURS`.
    """
    kind = KINDS[name]
    side = int(unit * 0.6)
    alpha, colour = filled(kind.outline, side), paint(rng, name, (side, side), unit, colours)
    for part, shapes in kind.parts.items():
        painted = paint(rng, part, (side, side), unit, colours)
        colour = np.where(filled(shapes, side)[..., None] > 0, painted, colour)
    velocity = rng.uniform(*kind.speed) * rng.choice((-1, 1))
    if velocity < 0 and not kind.rolls:
        alpha, colour = alpha[:, ::-1].copy(), colour[:, ::-1].copy()
    top, bottom = place
    near = rng.uniform()  # 0 at the far edge of its place, 1 at the near one.
    size = rng.uniform(*kind.size) * (1 if kind.hangs else 0.8 + 0.4 * near)
    foot = top + (0.45 if kind.hangs else 0.2 + 0.75 * near) * (bottom - top)
    middle = foot if kind.hangs else foot - 0.45 * size
    return Sprite(
        name=name,
        colour_HWC=colour,
        alpha_HW=alpha,
        start=np.array([rng.uniform(0.15, width - 0.15), middle]),
        size=size,
        stretch=rng.uniform(0.85, 1.15),
        velocity=velocity,
        phase=rng.uniform(0, 2 * np.pi),
    )
