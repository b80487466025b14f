"""Augmentation of clips, drawn once for each clip: geometry and colour change alike for all its frames.

The rules, their order and their distributions are mmseg's (open-mmlab/mmsegmentation 0.x mmseg/datasets/pipelines/
transforms.py): resize, crop, flip, photometric distortion, normalisation, padding. Single images go through the same,
as clips of one frame. VSS-CFFM, which is mmseg for clips, differs in two points. It judges a crop by the labels of the
last frame alone; here all frames count. It draws colours anew for each frame; here they are drawn once for each clip.
Shapes: T frames, H and W pixels. Images are uint8 RGB until normalised; labels uint8 train ids, void 255.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Int32, UInt8
from ml_collections import ConfigDict

from vspw_jax.classes.vspw import VOID


class Normalisation(NamedTuple):
    """What is subtracted from RGB levels of 0 to 255, and what they are divided by then."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""Which nearly all released checkpoints expect."""
IMAGE_MEAN, IMAGE_STD = (np.array(values, np.float32) for values in IMAGENET)

CROP_TRIES = 10

Size = tuple[int, int]
"""Height and width."""

Image = UInt8[np.ndarray, "H W 3"]
Label = UInt8[np.ndarray, "H W"]


def fitted_size(height: int, width: int, long_side: int, short_side: int) -> Size:
    """(height, width) scaled, aspect kept, to the largest that exceeds neither side (mmcv rescale_size)."""
    scale = min(long_side / max(height, width), short_side / min(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def random_size(height: int, width: int, config: ConfigDict, rng: np.random.Generator) -> Size:
    """(height, width) fitted to `base_size` times a uniform ratio, cut to whole pixels (mmseg random_sample_ratio)."""
    ratio = rng.uniform(*config.resize_ratio)
    short_side, long_side = (int(side * ratio) for side in sorted(config.base_size))
    return fitted_size(height, width, long_side, short_side)


def _is_varied(labels: Sequence[Label], max_share: float) -> bool:
    """Whether two classes or more are in sight and none covers `max_share` or more of the labelled pixels."""
    counts = np.sum([cv2.calcHist([label], [0], None, [256], [0, 256]).astype(np.int64) for label in labels], 0)[:VOID]
    return (counts > 0).sum() > 1 and counts.max() / counts.sum() < max_share


def _window(shape: Size, size: Size, top: int, left: int, crop: Size) -> tuple[tuple[slice, slice], Size]:
    """What a crop shows of a frame.

    Args:
      shape: (height, width) of the frame.
      size: (height, width) to which the frame would be resized.
      top, left, crop: place and (height, width) of the crop in the resized frame.

    Returns:
      (slices of the frame in whole pixels, the crop's size). A crop that exceeds `size` is cut off.
    """

    def side(source: int, scaled: int, first: int, length: int) -> tuple[slice, int]:
        cropped = min(length, scaled - first)
        start, end = (int(place * source / scaled + 0.5) for place in (first, first + cropped))
        return slice(min(start, source - 1), max(end, start + 1)), cropped

    (rows, height), (columns, width) = map(side, shape, size, (top, left), crop)
    return (rows, columns), (height, width)


def choose_crop(
    labels: Sequence[Label], crop: Size, max_share: float, rng: np.random.Generator, size: Size | None = None
) -> tuple[int, int]:
    """Top and left of a random crop (height, width); it is drawn again if one class covers too much of it.

    Up to CROP_TRIES draws are judged; if all fail, one more is drawn and taken unseen, as mmseg does. With `max_share`
    of 1 or more nothing is judged. What exceeds the clip is cut off.

    Args:
      labels: of the T frames; pixels are counted in them as they are (mmseg counts in resized ones).
      size: (height, width) to which they will be resized and in which the crop lies; theirs by default.
    """
    shape = labels[0].shape
    height, width = size = size or shape

    def draw() -> tuple[int, int]:
        return rng.integers(0, max(height - crop[0], 0) + 1), rng.integers(0, max(width - crop[1], 0) + 1)

    top, left = draw()
    for _ in range(CROP_TRIES if max_share < 1 else 0):
        window, _ = _window(shape, size, top, left, crop)
        if _is_varied([label[window] for label in labels], max_share):
            break
        top, left = draw()
    return top, left


@dataclasses.dataclass(frozen=True)
class Colours:
    """One draw of mmseg's PhotoMetricDistortion; None is a step left out.

    Attributes:
      brightness: grey levels to add.
      contrast, saturation: factors.
      contrast_first: whether contrast comes before saturation and hue; else it comes after them.
      hue: added to OpenCV's hue of 0..179.
    """

    brightness: float | None = None
    contrast: float | None = None
    contrast_first: bool = True
    saturation: float | None = None
    hue: int | None = None


def random_colours(rng: np.random.Generator) -> Colours:
    """Each step with probability one half; brightness +-32, contrast and saturation 0.5..1.5, hue -18..17."""
    brightness, contrast, saturation, hue, first = rng.random(5) < 0.5
    draws = rng.uniform(-32, 32), rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.5), int(rng.integers(-18, 18))
    return Colours(
        brightness=draws[0] if brightness else None,
        contrast=draws[1] if contrast else None,
        contrast_first=bool(first),
        saturation=draws[2] if saturation else None,
        hue=draws[3] if hue else None,
    )


LEVELS = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
NORMALISED = (LEVELS.astype(np.float32) - IMAGE_MEAN) / IMAGE_STD
"""By level and channel, (256, 3): the level itself, and normalised with ImageNet's statistics."""


def _scaled(levels: np.ndarray, factor: float = 1.0, offset: float = 0.0) -> UInt8[np.ndarray, "256"]:
    """Levels times a factor plus an offset, clipped and cut to whole levels (mmseg convert())."""
    return np.clip(levels * np.float32(factor) + np.float32(offset), 0, 255).astype(np.uint8)


def _through_hsv(image: Image, channel: int, table: UInt8[np.ndarray, "256"]) -> Image:
    """One pass through HSV in which a channel's levels are replaced."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def distort_colours(
    image: Image, colours: Colours, levels: np.ndarray = LEVELS, out: np.ndarray | None = None
) -> np.ndarray:
    """Applies one draw of colours, level for level as mmseg does on 8-bit images.

    All steps but the passes through HSV depend on a pixel's level alone: they are tables. The last table is `levels`.
    Saturation and hue each make a pass of their own, as in mmseg, because the rounding between them shows.

    Args:
      levels: (256, 3), what becomes of a final level by channel: LEVELS or NORMALISED.
      out: (H, W, 3) of the type of `levels` to write into, each row without gaps.
    """
    before = after = np.arange(256, dtype=np.uint8)
    if colours.brightness is not None:
        before = _scaled(before, offset=colours.brightness)
    if colours.contrast is not None and colours.contrast_first:
        before = _scaled(before, colours.contrast)
    elif colours.contrast is not None:
        after = _scaled(after, colours.contrast)
    if colours.saturation is None and colours.hue is None:
        return cv2.LUT(image, levels[after[before]][None], out)
    if colours.brightness is not None or colours.contrast_first:
        image = cv2.LUT(image, before)
    if colours.saturation is not None:
        image = _through_hsv(image, 1, _scaled(np.arange(256), colours.saturation))
    if colours.hue is not None:
        image = _through_hsv(image, 0, ((np.arange(256) + colours.hue) % 180).astype(np.uint8))
    return cv2.LUT(image, levels[after][None], out)


@dataclasses.dataclass(frozen=True)
class View:
    """One draw of what a clip shows of its frames, and how: see `views.View`.

    Attributes:
      size: (height, width) that a frame would be resized to.
      place: top and left of the crop in the resized frame.
      crop: the crop's (height, width).
      flipped: whether left and right change places.
      colours: see `Colours`.
    """

    size: Size
    place: tuple[int, int]
    crop: Size
    flipped: bool
    colours: Colours

    def shrink(self, height: int) -> int:
        """The largest of 1, 2, 4 and 8 by which frames of that height can be divided without falling below `size`."""
        return next(shrink for shrink in (8, 4, 2, 1) if shrink == 1 or self.size[0] * shrink <= height)

    def of(self, pixels: UInt8[np.ndarray, "H W ..."], interpolation: int) -> UInt8[np.ndarray, "h w ..."]:
        """What the view shows of a frame or label: it has the crop's size, or less where the frame ends."""
        window, (height, width) = _window(pixels.shape[:2], self.size, *self.place, self.crop)
        shown = cv2.resize(pixels[window], (width, height), interpolation=interpolation)
        return cv2.flip(shown, 1) if self.flipped else shown

    def show(
        self,
        image: Image,
        label: Label,
        out_image: Float32[np.ndarray, "h w 3"],
        out_label: Int32[np.ndarray, "h w"],
    ) -> None:
        """See `views.View`.

        Only the part of a frame that the crop shows is resized. So the crop's edges lie on whole pixels of the frame,
        and its place and scale differ from mmseg's by less than a pixel of the frame: mmseg resizes the whole frame
        first. The image may be shrunk. Then the difference is less than one of its own pixels, which are no larger than
        the crop's.
        """
        shown_label = self.of(label, cv2.INTER_NEAREST)
        height, width = shown_label.shape
        self.paint(self.of(image, cv2.INTER_LINEAR), out_image[:height, :width])
        out_label[:height, :width] = shown_label
        for pixels, beyond in ((out_image, 0), (out_label, VOID)):
            pixels[height:], pixels[:height, width:] = beyond, beyond

    def shown_size(self, shape: Size) -> Size:
        """(height, width) of what the view shows of a frame of that shape; what is left of the crop is padding."""
        return _window(shape, self.size, *self.place, self.crop)[1]

    def paint(self, shown: Image, out: np.ndarray) -> None:
        """Writes what the view shows of an image, in its colours and normalised, into an array of the same size."""
        distort_colours(shown, self.colours, NORMALISED, out)


def random_view(labels: Sequence[Label], config: ConfigDict, crop: Size, rng: np.random.Generator) -> View:
    """Draws a `View` of T frames by their labels; see `augment`."""
    height, width = labels[0].shape
    size = random_size(height, width, config, rng)
    place = choose_crop(labels, crop, config.max_class_share, rng, size)
    flipped = bool(rng.random() < 0.5)
    return View(size, place, crop, flipped, random_colours(rng) if config.photometric else Colours())


def augment(
    images: Sequence[Image], labels: Sequence[Label], config: ConfigDict, crop: Size, rng: np.random.Generator
) -> tuple[Float32[np.ndarray, "T h w 3"], Int32[np.ndarray, "T h w"]]:
    """A training clip from the frames of a video.

    Args:
      images, labels: of T frames, all of one size.
      config: base_size (long, short), resize_ratio (low, high), max_class_share, photometric.
      crop: (height, width) of the result.
      rng: the only source of randomness.

    Returns:
      The images, normalised, 0 beyond the frame, and the labels, void 255; both of the crop's size.
    """
    view = random_view(labels, config, crop, rng)
    image_THWC, label_THW = np.empty((len(images), *crop, 3), np.float32), np.empty((len(images), *crop), np.int32)
    for frame in zip(images, labels, image_THWC, label_THW, strict=True):
        view.show(*frame)
    return image_THWC, label_THW
