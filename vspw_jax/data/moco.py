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
from PIL import Image

from vspw_jax.data import colour_jitter, transforms

AREA = (0.2, 1.0)
"""Of the frame that a crop shows."""
ASPECT = (3 / 4, 4 / 3)
"""Width by height of that part."""
TRIES = 10
FLIPPED = 0.5
"""The probability."""
COLOURS = ConfigDict(
    dict(jitter=(0.4, 0.4, 0.4, 0.1), jitter_chance=0.8, grey_chance=0.2, blur_chance=0.5, blur_sigma=(0.1, 2.0))
)
"""See `colour_jitter.random_colours`."""


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


@dataclasses.dataclass(frozen=True)
class View:
    """One draw of what a crop shows of a frame, and how: see `views.View`."""

    box: Box
    crop: transforms.Size
    flipped: bool
    colours: colour_jitter.Colours

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
    return View(random_box(*frame, rng), crop, bool(rng.random() < FLIPPED), colour_jitter.random_colours(COLOURS, rng))


class Two:
    """Two views, as MoCo v2 augments; of the labels only the size is looked at."""

    prefixes: ClassVar[tuple[str, ...]] = ("", "second_")
    section: ClassVar[str] = ""
    divide_frames: ClassVar[bool] = False

    @staticmethod
    def draw(
        labels: Sequence[transforms.Label], config: ConfigDict, crop: transforms.Size, rng: np.random.Generator
    ) -> Sequence[View]:
        """See `views.Scheme`; `config` is not read: MoCo's augmentation has no fields."""
        height, width = labels[0].shape
        return random_view((height, width), crop, rng), random_view((height, width), crop, rng)


class TwoFrames(Two):
    """The same, but each of the first half of a clip's frames or of the second: what moves between them differs too."""

    divide_frames: ClassVar[bool] = True
