"""Drawn video with exact labels: textured scenes, moving objects, a moving camera, changing light.

A class can be told by its texture, shape and place. By default it has a typical colour too, as in the world; with
colours "shared" all classes draw theirs from one distribution, which is harder. The same (seed, number, colours) always
gives the same clip.
Shapes: T frames, H and W pixels.
"""

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from data_prep.drawing import textures
from data_prep.drawing.textures import Size

BANDS = {
    "street": ("sky", "building", "grass", "road"),
    "coast": ("sky", "mountain", "sea", "sand"),
    "room": ("wall", "floor"),
}
"""What each scene consists of, from top to bottom."""

OBJECTS = {
    "street": ("car", "person", "tree", "unnamed"),
    "coast": ("ship_or_boat", "person", "ball", "tree"),
    "room": ("painting_or_poster", "person", "ball", "unnamed"),
}
"""What moves in each scene. "unnamed" belongs to no class: its pixels are NO_CLASS."""

CLASSES = tuple(sorted({name for names in (*BANDS.values(), *OBJECTS.values()) for name in names} - {"unnamed"}))
"""Names of the classes that occur, as in `vspw_jax.classes.vspw`; a clip's labels are indices into them."""

NO_CLASS = 255


@dataclasses.dataclass
class Sprite:
    """An object and its path: positions (x, y) and sizes in frame heights, angles in degrees, phases in radians."""

    colour_HWC: Float32[np.ndarray, "H W 3"]
    alpha_HW: Float32[np.ndarray, "H W"]
    label: int
    start: Float[np.ndarray, "2"]
    velocity: Float[np.ndarray, "2"]
    size: float
    growth: float
    swing: float
    spin: float
    phase: float

    def placement(self, time: float, unit: int) -> Float[np.ndarray, "2 3"]:
        """The matrix from the sprite's pixels to the world's at a time in 0..1."""
        scale = self.size * (1 + self.growth * np.sin(2 * time + self.phase)) * unit / self.alpha_HW.shape[0]
        angle = self.swing * np.sin(4 * time + self.phase) + self.spin * time
        centre = self.alpha_HW.shape[0] / 2
        matrix = cv2.getRotationMatrix2D((centre, centre), angle, scale)
        matrix[:, 2] += (self.start + self.velocity * time) * unit - centre
        return matrix


def _label_of(name: str) -> int:
    return NO_CLASS if name == "unnamed" else CLASSES.index(name)


def _background(
    rng: np.random.Generator, scene: str, shape: Size, unit: int, colours: str
) -> tuple[Float32[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """The scene's bands, each with an uneven upper edge: colours and labels."""
    height, width = shape
    names = BANDS[scene]
    colour, label = np.zeros((*shape, 3), np.float32), np.full(shape, NO_CLASS, np.uint8)
    edges = np.cumsum([0, *rng.uniform(0.7, 1.3, len(names) - 1)]) / len(names) * height
    rows = np.arange(height)[:, None]
    for name, edge in zip(names, edges, strict=True):
        roughness = {"mountain": 0.3, "building": 0.25}.get(name, 0.04)
        bumps = textures.smooth_noise(rng, (1, width), 1, unit / 3) - 0.5
        if name == "building":
            bumps = np.round(bumps * 6) / 6
        below = np.broadcast_to(rows >= (edge + roughness * unit * bumps if edge else 0), shape)
        colour = np.where(below[..., None], textures.paint(rng, name, shape, unit, colours), colour)
        label[below] = _label_of(name)
    return colour, label


def _sprite(rng: np.random.Generator, scene: str, unit: int, world_width: float, colours: str) -> Sprite:
    name = rng.choice(OBJECTS[scene])
    size = int(unit * 0.6)
    alpha = textures.silhouette(name, size)
    spins = name in ("ball", "unnamed", "painting_or_poster")
    return Sprite(
        colour_HWC=textures.paint(rng, name, (size, size), unit, colours),
        alpha_HW=alpha,
        label=_label_of(name),
        start=np.array([rng.uniform(0.1, world_width - 0.1), rng.uniform(0.35, 1.15)]),
        velocity=rng.uniform((-0.8, -0.15), (0.8, 0.15)),
        size=rng.uniform(0.3, 0.6),
        growth=rng.uniform(0, 0.3),
        swing=rng.uniform(3, 12),
        spin=rng.uniform(-180, 180) if spins else 0.0,
        phase=rng.uniform(0, 2 * np.pi),
    )


def _draw(
    sprite: Sprite,
    colour: Float32[np.ndarray, "H W 3"],
    label: UInt8[np.ndarray, "H W"],
    matrix: Float[np.ndarray, "2 3"],
) -> None:
    """Pastes a sprite onto the world in place."""
    size = colour.shape[1::-1]
    alpha = cv2.warpAffine(sprite.alpha_HW, matrix, size, flags=cv2.INTER_LINEAR)
    paint = cv2.warpAffine(sprite.colour_HWC, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    colour += alpha[..., None] * (paint - colour)
    label[alpha > 0.5] = sprite.label


def _camera(rng: np.random.Generator, shape: Size, world_shape: Size) -> Callable[[float], Float[np.ndarray, "2 3"]]:
    """A function from time in 0..1 to the matrix from frame to world: pan, zoom and a slight roll."""
    height, width = shape
    slack = np.array(world_shape[::-1]) - (width, height)
    start, end = rng.uniform(0.1, 0.9, (2, 2)) * slack
    zoom, roll, phase = rng.uniform(0, 0.15), rng.uniform(0, 4), rng.uniform(0, 2 * np.pi)

    def at(time: float) -> Float[np.ndarray, "2 3"]:
        centre = (width / 2, height / 2)
        matrix = cv2.getRotationMatrix2D(
            centre, roll * np.sin(3 * time + phase), 1 - zoom * np.sin(2 * time + phase) ** 2
        )
        matrix[:, 2] += start + (end - start) * 0.5 * time
        return matrix

    return at


def _develop(
    rng: np.random.Generator, colour: Float32[np.ndarray, "H W 3"], light: Float32[np.ndarray, "3"], blur: float
) -> UInt8[np.ndarray, "H W 3"]:
    """The picture after light, blur and sensor noise."""
    colour = cv2.GaussianBlur(colour * light, (0, 0), blur) if blur > 0.3 else colour * light
    noise = rng.normal(0, 0.02, colour.shape)
    return (255 * (colour + noise).clip(0, 1)).round().astype(np.uint8)


def clip(
    seed: int, number: int, num_frames: int, height: int, width: int, colours: str = "typical"
) -> tuple[UInt8[np.ndarray, "T H W 3"], UInt8[np.ndarray, "T H W"]]:
    """Draws a clip.

    Args:
      seed, number: together they fix the clip.
      num_frames, height, width: its size.
      colours: a key of `textures.COLOURS`.

    Returns:
      RGB images, and labels: indices into CLASSES or NO_CLASS.
    """
    rng = np.random.default_rng([seed, number])
    scene = tuple(BANDS)[number % len(BANDS)]
    world_shape = (int(1.25 * height), int(1.25 * width + 0.5 * height))
    background, ground = _background(rng, scene, world_shape, height, colours)
    sprites = [_sprite(rng, scene, height, world_shape[1] / height, colours) for _ in range(rng.integers(3, 7))]
    camera = _camera(rng, (height, width), world_shape)
    tint, drift = rng.uniform(0.85, 1.1, 3), rng.uniform(0, 2 * np.pi)
    blur = rng.uniform(0, 0.8)

    images, labels = [], []
    for time in np.arange(num_frames) / 15:
        colour, label = background.copy(), ground.copy()
        for sprite in sprites:
            _draw(sprite, colour, label, sprite.placement(time, height))
        to_world, size = camera(time), (width, height)
        view = cv2.warpAffine(
            colour, to_world, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
        )
        labels.append(
            cv2.warpAffine(
                label, to_world, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
            )
        )
        light = (tint * (0.85 + 0.2 * np.sin(2 * time + drift))).astype(np.float32)
        images.append(_develop(rng, view, light, blur))
    return np.stack(images), np.stack(labels)
