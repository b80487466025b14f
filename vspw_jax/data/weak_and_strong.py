"""Two views of a clip for a teacher and its student: the same geometry, and stronger colours in the second.

The strong view is UniMatch's (LiheYoung/UniMatch dataset/semi.py and transform.py), on top of what the weak one has:
torchvision's ColorJitter, its steps in a drawn order, then RandomGrayscale, then a Gaussian blur. Each is drawn once a
clip, as the weak view's colours are. Brightness, contrast and saturation blend with black, the mean grey level and the
grey image as Pillow's ImageEnhance does, which ColorJitter calls. Hue moves in OpenCV's 180 steps; Pillow has 256.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar

import cv2
import numpy as np
from ml_collections import ConfigDict

from vspw_jax.data import transforms
from vspw_jax.data.transforms import Image


def _grey(image: Image) -> Image:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def brightness(image: Image, factor: float) -> Image:
    """0 is black, 1 the image."""
    return cv2.LUT(image, transforms.scaled(np.arange(256), factor))


def contrast(image: Image, factor: float) -> Image:
    """0 is the mean grey level, 1 the image."""
    mean = int(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return cv2.LUT(image, transforms.scaled(np.arange(256), factor, (1 - factor) * mean))


def saturation(image: Image, factor: float) -> Image:
    """0 is the grey image, 1 the image."""
    return cv2.addWeighted(image, factor, _grey(image), 1 - factor, 0)


def hue(image: Image, turns: float) -> Image:
    """Turned around the circle of hues."""
    return transforms.through_hsv(image, 0, ((np.arange(256) + round(180 * turns)) % 180).astype(np.uint8))


JITTER: tuple[Callable[[Image, float], Image], ...] = (brightness, contrast, saturation, hue)
"""The steps of ColorJitter in the order of its arguments."""


@dataclasses.dataclass(frozen=True)
class StrongColours:
    """One draw.

    Attributes:
      jitter: (number of a step of `JITTER`, its value) in the order in which they come.
      grey: whether colours are lost.
      blur: the deviation of the blur in pixels; 0 is none.
    """

    jitter: tuple[tuple[int, float], ...] = ()
    grey: bool = False
    blur: float = 0.0

    def of(self, image: Image) -> Image:
        """The image with these colours."""
        for step, value in self.jitter:
            image = JITTER[step](image, value)
        if self.grey:
            image = _grey(image)
        return cv2.GaussianBlur(image, (0, 0), self.blur) if self.blur else image


def random_colours(config: ConfigDict, rng: np.random.Generator) -> StrongColours:
    """Draws `StrongColours`; `config` is `config.data.augment.strong`."""
    jittered, grey, blurred = rng.random(3) < (config.jitter_chance, config.grey_chance, config.blur_chance)
    factors = [float(rng.uniform(max(1 - width, 0), 1 + width)) for width in config.jitter[:3]]
    turns = float(rng.uniform(-config.jitter[3], config.jitter[3]))
    steps = tuple((int(step), (*factors, turns)[step]) for step in rng.permutation(len(JITTER)))
    sigma = float(rng.uniform(*config.blur_sigma))
    return StrongColours(steps if jittered else (), bool(grey), sigma if blurred else 0.0)


@dataclasses.dataclass(frozen=True)
class StrongView(transforms.View):
    """A view whose colours are strong."""

    strong: StrongColours

    def paint(self, shown: Image, out: np.ndarray) -> None:
        """See `View.paint`."""
        super().paint(self.strong.of(shown), out)


class WeakAndStrong:
    """The weak view, which the labels are learned on, and the strong one; see `views.Scheme`."""

    prefixes: ClassVar[tuple[str, ...]] = ("", "strong_")

    @staticmethod
    def draw(
        labels: Sequence[transforms.Label], config: ConfigDict, crop: transforms.Size, rng: np.random.Generator
    ) -> Sequence[transforms.View]:
        """See `views.Scheme`."""
        weak = transforms.random_view(labels, config, crop, rng)
        return weak, StrongView(**vars(weak), strong=random_colours(config.strong, rng))
