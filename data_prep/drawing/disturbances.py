"""What disturbs drawn video, so that some frames need their neighbours: something that passes close by, blur, exposure.

Stretches of one to three frames are disturbed, and a few between them are not. Over the whole video the light drifts.
Labels stay those of the scene, but for what passes, which is a thing of its own class.
Lengths are in frame heights. Shapes: H and W pixels of a frame, h and w of a kernel.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32

from data_prep.drawing import objects
from data_prep.drawing.textures import Size


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """How a frame is disturbed.

    Attributes:
      light: by what its light is multiplied, red, green and blue.
      kernel: of the blur; None for none.
      passer: what passes before the camera, with its place in the frame; None for nothing.
      moment: of its way, in frames.
    """

    light: Float32[np.ndarray, "3"] = dataclasses.field(default_factory=lambda: np.ones(3, np.float32))
    kernel: Float32[np.ndarray, "h w"] | None = None
    passer: objects.Sprite | None = None
    moment: float = 0.0

    def blurred(self, colour_HWC: Float32[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W 3"]:
        """The picture as the lens gives it."""
        if self.kernel is None:
            return colour_HWC
        return cv2.filter2D(colour_HWC, -1, self.kernel, borderType=cv2.BORDER_REFLECT)


@dataclasses.dataclass(frozen=True)
class View:
    """Whose frames are disturbed: a frame's size, the classes that may pass in the scene, a key of `COLOURS`."""

    shape: Size
    passers: Sequence[str]
    colours: str


Changes = list[dict[str, Any]]
"""Fields of `Disturbance`, for each frame of a stretch."""


def passing(rng: np.random.Generator, count: int, view: View) -> Changes:
    """Something crosses the frame so close by that it hides much of it."""
    height, width = view.shape
    sprite = objects.sprite(rng, str(rng.choice(view.passers)), (0, 1), width / height, 3 * height, view.colours)
    size, foot = rng.uniform(1.5, 2.0), rng.uniform(1.0, 1.2)
    way, towards = width / height + size, np.copysign(1, sprite.velocity)
    start = np.array([width / height / 2 - towards * way / 2, foot - 0.45 * size])
    passer = dataclasses.replace(sprite, size=size, start=start, velocity=towards * way / (count + 1))
    return [{"passer": passer, "moment": number + 1.0} for number in range(count)]


def moved(rng: np.random.Generator, count: int, view: View) -> Changes:
    """The camera is shaken: each frame is smeared along a line."""
    changes: Changes = []
    for _ in range(count):
        side = int(rng.uniform(0.5, 0.8) * view.shape[0]) | 1
        kernel, turn, reach = np.zeros((side, side), np.float32), rng.uniform(0, np.pi), side // 2
        dx, dy = round(reach * np.cos(turn)), round(reach * np.sin(turn))
        cv2.line(kernel, (reach - dx, reach - dy), (reach + dx, reach + dy), 1.0)
        changes.append({"kernel": kernel / kernel.sum()})
    return changes


def defocused(rng: np.random.Generator, count: int, view: View) -> Changes:
    """The lens looks for the distance: each point is a disc."""
    changes: Changes = []
    for _ in range(count):
        reach = int(rng.uniform(0.15, 0.25) * view.shape[0])
        disc = cv2.circle(np.zeros((2 * reach + 1,) * 2, np.float32), (reach, reach), reach, 1.0, -1)
        changes.append({"kernel": disc / disc.sum()})
    return changes


def dark(rng: np.random.Generator, count: int, view: View) -> Changes:
    """Next to no light: what is left drowns in the sensor's noise."""
    return [{"light": np.full(3, rng.uniform(0.01, 0.04))} for _ in range(count)]


def overexposed(rng: np.random.Generator, count: int, view: View) -> Changes:
    """So much light that much or nearly all is white; least where the video's own light is low."""
    return [{"light": np.full(3, rng.uniform(6, 12))} for _ in range(count)]


KINDS: tuple[Callable[[np.random.Generator, int, View], Changes], ...] = (passing, moved, defocused, dark, overexposed)
"""What may disturb a stretch of so many frames."""


def drift(rng: np.random.Generator, num_frames: int) -> Float32[np.ndarray, "T 3"]:
    """Light that falls or rises over a video, and changes its tint."""
    ends = rng.permutation([np.zeros(3), np.log(rng.uniform(0.35, 0.6) * rng.uniform(0.8, 1.2, 3))])
    share = np.linspace(0, 1, num_frames)[:, None]
    return np.exp((1 - share) * ends[0] + share * ends[1]).astype(np.float32)


def none(rng: np.random.Generator, num_frames: int, view: View) -> list[Disturbance]:
    """Every frame as it is."""
    return [Disturbance()] * num_frames


def drawn(rng: np.random.Generator, num_frames: int, view: View) -> list[Disturbance]:
    """One to four frames as they are but for their light, then stretches, with two to four such frames between them."""
    changes: Changes = [{} for _ in range(num_frames)]
    first = int(rng.integers(1, 5))
    while first < num_frames:
        count = int(rng.integers(1, 4))
        kind = KINDS[rng.integers(len(KINDS))]
        for change, new in zip(changes[first:], kind(rng, count, view), strict=False):
            change |= new
        first += count + int(rng.integers(2, 5))
    lights = drift(rng, num_frames)
    return [
        Disturbance(**{**change, "light": (light * change.get("light", 1.0)).astype(np.float32)})
        for light, change in zip(lights, changes, strict=True)
    ]


DISTURBANCES = {"none": none, "drawn": drawn}
"""How each frame of a video is disturbed."""
