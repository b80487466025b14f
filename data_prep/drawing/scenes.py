"""Drawn video with exact labels: textured scenes, objects that stand and move in them, a moving camera, changing light.

A class can be told by its texture, shape and place. By default it has a typical colour too, as in the world; with
colours "shared" all classes draw theirs from one distribution, which is harder. With disturbances "drawn" some frames
need their neighbours. The same (seed, number, colours, disturbances) always gives the same clip.
Shapes: T frames, H and W pixels.
"""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from data_prep.drawing import colours as palettes
from data_prep.drawing import disturbances as disturbing
from data_prep.drawing import objects, textures
from data_prep.drawing.textures import Size

BANDS = {
    "street": ("sky", "building", "grass", "road"),
    "coast": ("sky", "mountain", "sea", "sand"),
    "room": ("wall", "floor"),
}
"""What each scene consists of, from top to bottom."""

OBJECTS = {
    "street": {"car": "road", "person": "grass", "tree": "grass", "unnamed": "road"},
    "coast": {"ship_or_boat": "sea", "person": "sand", "ball": "sand", "tree": "sand"},
    "room": {"painting_or_poster": "wall", "person": "floor", "ball": "floor", "unnamed": "floor"},
}
"""What is in each scene, and on which of its bands. "unnamed" belongs to no class: its pixels are NO_CLASS."""

CLASSES = tuple(sorted({name for names in (*BANDS.values(), *OBJECTS.values()) for name in names} - {"unnamed"}))
"""Names of the classes that occur, as in `vspw_jax.classes.vspw`; a clip's labels are indices into them."""

PASSERS = ("car", "person")
"""What may pass close to the camera, in the scenes where it is."""

NO_CLASS = 255

FRAMES_A_SECOND = 15


def _label_of(name: str) -> int:
    return NO_CLASS if name == "unnamed" else CLASSES.index(name)


def _edges(rng: np.random.Generator, scene: str, height: int) -> list[float]:
    """Upper edge of each band in pixels, and below the last one the world's end."""
    bands = len(BANDS[scene])
    return [*(np.cumsum([0, *rng.uniform(0.7, 1.3, bands - 1)]) / bands * height), height]


def _skyline(rng: np.random.Generator, name: str, width: int, unit: int) -> Float[np.ndarray, " W"]:
    """How far a band's upper edge lies below its mean, in pixels: roofs in steps, peaks, or nearly level."""
    bumps = textures.smooth_noise(rng, (1, width), 1, unit / 3)[0] - 0.5
    if name == "building":
        bumps = np.round(bumps * 6) / 6
    return {"mountain": 0.3, "building": 0.25}.get(name, 0.04) * unit * bumps


def _background(
    rng: np.random.Generator, scene: str, edges: list[float], shape: Size, unit: int, colours: str
) -> tuple[Float32[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """The scene's bands: colours and labels."""
    colour, label = np.zeros((*shape, 3), np.float32), np.full(shape, NO_CLASS, np.uint8)
    rows = np.arange(shape[0])[:, None]
    for name, edge in zip(BANDS[scene], edges[:-1], strict=True):
        skyline = _skyline(rng, name, shape[1], unit)
        painted = palettes.paint(rng, name, shape, unit, colours)
        if name == "building":  # Each next house has the other one's colours.
            other = np.cumsum(np.diff(skyline, prepend=skyline[:1]) != 0) % 2 == 1
            painted[:, other] = palettes.paint(rng, name, shape, unit, colours)[:, other]
        below = np.broadcast_to(rows >= (edge + skyline if edge else 0), shape)
        colour = np.where(below[..., None], painted, colour)
        label[below] = _label_of(name)
    return colour, label


def _sprites(
    rng: np.random.Generator, scene: str, edges: list[float], width: float, unit: int, colours: str
) -> list[objects.Sprite]:
    """Three to six objects, the farthest first; none comes twice before all have come."""
    homes, bands = OBJECTS[scene], BANDS[scene]
    names = [*rng.permutation(list(homes)), *rng.permutation(list(homes))][: rng.integers(3, 7)]
    places = {name: (edge / unit, end / unit) for name, edge, end in zip(bands, edges[:-1], edges[1:], strict=True)}
    sprites = [objects.sprite(rng, name, places[homes[name]], width, unit, colours) for name in names]
    return sorted(sprites, key=lambda sprite: sprite.start[1] + sprite.size / 2)


def _draw(
    sprite: objects.Sprite,
    time: float,
    unit: int,
    colour: Float32[np.ndarray, "H W 3"],
    label: UInt8[np.ndarray, "H W"],
) -> None:
    """Pastes a sprite and its shadow in place, onto the world or, what passes before the camera, onto the frame."""
    size = colour.shape[1::-1]
    if not sprite.kind.hangs:
        dark = cv2.warpAffine(objects.shade(sprite.alpha_HW.shape[0]), sprite.shadow_placement(time, unit), size)
        colour *= 1 - dark[..., None]
    matrix = sprite.placement(time, unit)
    alpha = cv2.warpAffine(sprite.alpha_HW, matrix, size, flags=cv2.INTER_LINEAR)
    paint = cv2.warpAffine(sprite.colour_HWC, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    colour += alpha[..., None] * (paint - colour)
    label[alpha > 0.5] = _label_of(sprite.name)


def _camera(rng: np.random.Generator, shape: Size, world_shape: Size) -> Callable[[float], Float[np.ndarray, "2 3"]]:
    """A function from time to the matrix from frame to world: pan, zoom and a slight roll."""
    height, width = shape
    slack = np.array(world_shape[::-1]) - (width, height)
    start, end = rng.uniform((0.1, 0.4), (0.9, 1.0), (2, 2)) * slack
    zoom, roll, phase = rng.uniform(0, 0.15), rng.uniform(0, 4), rng.uniform(0, 2 * np.pi)

    def at(time: float) -> Float[np.ndarray, "2 3"]:
        centre = (width / 2, height / 2)
        matrix = cv2.getRotationMatrix2D(
            centre, roll * np.sin(3 * time + phase), 1 - zoom * np.sin(2 * time + phase) ** 2
        )
        matrix[:, 2] += start + (end - start) * 0.5 * time
        return matrix

    return at


def _light(rng: np.random.Generator, width: int) -> Callable[[float], Float32[np.ndarray, "W 3"]]:
    """A function from time to the light on each column: it has a tint, comes from one side, and drifts."""
    tint, drift, slope = rng.uniform(0.9, 1.1, 3), rng.uniform(0, 2 * np.pi), rng.uniform(-0.12, 0.12)
    sides = 1 + slope * np.linspace(-1, 1, width)[:, None]
    return lambda time: (tint * sides * (0.9 + 0.15 * np.sin(2 * time + drift))).astype(np.float32)


def _develop(
    rng: np.random.Generator, colour: Float32[np.ndarray, "H W 3"], light: Float32[np.ndarray, "W 3"], blur: float
) -> UInt8[np.ndarray, "H W 3"]:
    """The picture after light, blur and sensor noise."""
    colour = cv2.GaussianBlur(colour * light, (0, 0), blur) if blur > 0.3 else colour * light
    noise = rng.normal(0, 0.015, colour.shape)
    return (255 * (colour + noise).clip(0, 1)).round().astype(np.uint8)


def clip(
    seed: int,
    number: int,
    num_frames: int,
    height: int,
    width: int,
    colours: str = "typical",
    disturbances: str = "none",
) -> tuple[UInt8[np.ndarray, "T H W 3"], UInt8[np.ndarray, "T H W"]]:
    """Draws a clip.

    Args:
      seed, number: together they fix the clip.
      num_frames, height, width: its size.
      colours: a key of `colours.COLOURS`.
      disturbances: a key of `disturbances.DISTURBANCES`; the scene is the same whatever it is.

    Returns:
      RGB images, and labels: indices into CLASSES or NO_CLASS.
    """
    rng = np.random.default_rng([seed, number])
    scene = tuple(BANDS)[number % len(BANDS)]
    world_shape = (int(1.25 * height), int(1.25 * width + 0.5 * height))
    edges = _edges(rng, scene, world_shape[0])
    background, ground = _background(rng, scene, edges, world_shape, height, colours)
    sprites = _sprites(rng, scene, edges, world_shape[1] / height, height, colours)
    camera, light = _camera(rng, (height, width), world_shape), _light(rng, width)
    blur = rng.uniform(0, 0.6)
    disturbed = disturbing.DISTURBANCES[disturbances](
        np.random.default_rng([seed, number, 1]),
        num_frames,
        disturbing.View((height, width), [name for name in PASSERS if name in OBJECTS[scene]], colours),
    )

    images, labels = [], []
    for time, disturbance in zip(np.arange(num_frames) / FRAMES_A_SECOND, disturbed, strict=True):
        colour, label = background.copy(), ground.copy()
        for sprite in sprites:
            _draw(sprite, time, height, colour, label)
        view, size, beyond = camera(time), (width, height), cv2.BORDER_REFLECT
        colour = cv2.warpAffine(colour, view, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=beyond)
        label = cv2.warpAffine(label, view, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderMode=beyond)
        if disturbance.passer:
            _draw(disturbance.passer, disturbance.moment, height, colour, label)
        images.append(_develop(rng, disturbance.blurred(colour), light(time) * disturbance.light, blur))
        labels.append(label)
    return np.stack(images), np.stack(labels)
