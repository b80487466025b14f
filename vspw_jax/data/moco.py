"""Two views of a clip as MoCo v2 augments images, each drawn anew, and their labels moved with them: scheme "two".

Source: facebookresearch/moco main_moco.py (`--aug-plus`) and moco/loader.py, on torchvision's transforms of PIL images;
paper 003 (arXiv 2106.04121), section 4.1: "the same set of augmentations as in MoCo-v2". The order is theirs: a part
of the frame resized to the crop with antialiasing, colours jittered, grey, blur, flip, normalisation. Pillow does the
work, so levels are rounded where theirs are. All frames of a clip are shown alike.
A label has the same part of the frame and the same flip; each of its pixels is the one below the crop pixel's centre.
Shapes: H and W pixels of a frame, h and w of the crop.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Float32, Int32
from ml_collections import ConfigDict
from PIL import Image, ImageEnhance, ImageFilter

from vspw_jax.data import transforms

AREA = (0.2, 1.0)
"""Of the frame that a crop shows."""
ASPECT = (3 / 4, 4 / 3)
"""Width by height of that part."""
TRIES = 10
JITTERED, GREY, BLURRED, FLIPPED = 0.8, 0.2, 0.5, 0.5
"""Probabilities."""
STRENGTH = 0.4
"""Brightness, contrast and saturation are multiplied by 1 - STRENGTH to 1 + STRENGTH."""
HUE = 0.1
"""Of the circle of hues, to either side."""
SIGMA = (0.1, 2.0)


@dataclasses.dataclass(frozen=True)
class Box:
    """A part of a frame, in whole pixels."""

    top: int
    left: int
    height: int
    width: int


def random_box(height: int, width: int, rng: np.random.Generator) -> Box:
    """torchvision's RandomResizedCrop.get_params: if no draw fits, the largest part in the middle of such an aspect."""
    for _ in range(TRIES):
        area = height * width * rng.uniform(*AREA)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w)
    least, most = ASPECT
    w, h = min(width, round(height * most)), min(height, round(width / least))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def _brightness(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _saturation(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def _hue(image: Image.Image, shift: float) -> Image.Image:
    """Pillow's hues are 256 levels of the circle; a part of a level is cut off."""
    hue, *others = image.convert("HSV").split()
    turned = np.asarray(hue) + np.int32(shift * 255).astype(np.uint8)
    return Image.merge("HSV", (Image.fromarray(turned), *others)).convert("RGB")


JITTER = (_brightness, _contrast, _saturation, _hue)


@dataclasses.dataclass(frozen=True)
class Colours:
    """One draw of what becomes of a frame's colours.

    Attributes:
      jitter: (place in `JITTER`, factor or shift) in their order; empty for none.
      grey: whether it becomes grey.
      sigma: of its blur; 0 is none. Pillow blurs by boxes, three times, which is near a Gaussian.
    """

    jitter: tuple[tuple[int, float], ...] = ()
    grey: bool = False
    sigma: float = 0.0

    def of(self, image: Image.Image) -> Image.Image:
        """The image in these colours."""
        for number, amount in self.jitter:
            image = JITTER[number](image, amount)
        if self.grey:
            image = image.convert("L").convert("RGB")
        return image.filter(ImageFilter.GaussianBlur(self.sigma)) if self.sigma else image


def random_colours(rng: np.random.Generator) -> Colours:
    """Each step with its probability; the four of the jitter in random order."""
    amounts = (*rng.uniform(1 - STRENGTH, 1 + STRENGTH, 3), rng.uniform(-HUE, HUE))
    jitter = tuple((int(number), float(amounts[number])) for number in rng.permutation(len(JITTER)))
    jittered, grey, blurred = rng.random(3) < (JITTERED, GREY, BLURRED)
    sigma = float(rng.uniform(*SIGMA))
    return Colours(jitter if jittered else (), bool(grey), sigma if blurred else 0.0)


@dataclasses.dataclass(frozen=True)
class View:
    """One draw of what a crop shows of a frame, and how: see `views.View`."""

    box: Box
    crop: transforms.Size
    flipped: bool
    colours: Colours

    def shrink(self, height: int) -> int:
        """Always 1: MoCo reads images whole, and antialiasing finds all of their pixels."""
        return 1

    def shown_size(self, shape: transforms.Size) -> transforms.Size:
        """The whole crop: nothing is padding."""
        return self.crop

    def show(
        self,
        image: transforms.Image,
        label: transforms.Label,
        out_image: Float32[np.ndarray, "h w 3"],
        out_label: Int32[np.ndarray, "h w"],
    ) -> None:
        """See `views.View`."""
        height, width = self.crop
        box, mirror = self.box, slice(None, None, -1 if self.flipped else 1)
        part = Image.fromarray(image[box.top : box.top + box.height, box.left : box.left + box.width])
        shown = np.asarray(self.colours.of(part.resize((width, height), Image.Resampling.BILINEAR)))
        cv2.LUT(np.ascontiguousarray(shown[:, mirror]), transforms.NORMALISED[None], out_image)
        rows = box.top + (2 * np.arange(height) + 1) * box.height // (2 * height)
        columns = box.left + (2 * np.arange(width) + 1) * box.width // (2 * width)
        out_label[:] = label[rows[:, None], columns[mirror]]


def random_view(frame: transforms.Size, crop: transforms.Size, rng: np.random.Generator) -> View:
    """Draws a view of frames of a size (height, width)."""
    return View(random_box(*frame, rng), crop, bool(rng.random() < FLIPPED), random_colours(rng))


class Two:
    """Two views, as MoCo v2 augments; of the labels only the size is looked at."""

    prefixes: ClassVar[tuple[str, ...]] = ("", "second_")

    @staticmethod
    def draw(
        labels: Sequence[transforms.Label], config: ConfigDict, crop: transforms.Size, rng: np.random.Generator
    ) -> Sequence[View]:
        """See `views.Scheme`; `config` is not read: MoCo's augmentation has no fields."""
        height, width = labels[0].shape
        return random_view((height, width), crop, rng), random_view((height, width), crop, rng)
