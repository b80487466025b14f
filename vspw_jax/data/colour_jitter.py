"""Colours of an image changed as contrastive and semi-supervised learning do: jittered, made grey, blurred.

Source: torchvision's ColorJitter and RandomGrayscale on PIL images, and Pillow's GaussianBlur, in the order that
facebookresearch/moco main_moco.py (`--aug-plus`) and LiheYoung/UniMatch dataset/semi.py have them. Pillow does the
work, so levels are rounded where theirs are.
"""

import dataclasses

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageEnhance, ImageFilter


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
"""The steps of ColorJitter in the order of its arguments: three by a factor, hue by a share of the circle."""


@dataclasses.dataclass(frozen=True)
class Colours:
    """One draw of what becomes of an image's colours.

    Attributes:
      jitter: (place in `JITTER`, factor or shift) in the order in which they come; empty for none.
      grey: whether it becomes grey.
      sigma: of its blur, in pixels; 0 is none. Pillow blurs by boxes, three times, which is near a Gaussian.
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


def random_colours(config: ConfigDict, rng: np.random.Generator) -> Colours:
    """Each step with its chance; the four of the jitter in random order.

    Args:
      config: jitter (how far brightness, contrast and saturation go from 1, and hue from 0), jitter_chance,
        grey_chance, blur_chance, blur_sigma (least and most).
    """
    centres = np.array([1.0, 1.0, 1.0, 0.0])
    least = np.maximum(centres - config.jitter, [0.0, 0.0, 0.0, -np.inf])
    amounts = rng.uniform(least, centres + config.jitter)
    jitter = tuple((int(number), float(amounts[number])) for number in rng.permutation(len(JITTER)))
    jittered, grey, blurred = rng.random(3) < (config.jitter_chance, config.grey_chance, config.blur_chance)
    sigma = float(rng.uniform(*config.blur_sigma))
    return Colours(jitter if jittered else (), bool(grey), sigma if blurred else 0.0)
