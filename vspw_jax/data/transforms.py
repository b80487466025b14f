"""Augmentation of clips, drawn once a clip: geometry and colour change alike for all its frames.

The rules, their order and their distributions are mmseg's (open-mmlab/mmsegmentation 0.x mmseg/datasets/pipelines/
transforms.py): resize, crop, flip, photometric distortion, normalisation, padding. Single images go through the same,
as clips of one frame. VSS-CFFM, mmseg for clips, differs in two points: it judges a crop by the last frame's labels
alone, here all frames count; and it draws colours anew for each frame, here for each clip.
Shapes: T frames, H and W pixels. Images are uint8 RGB until normalised; labels uint8 train ids, void 255.
"""

import dataclasses

import cv2
import numpy as np

from vspw_jax.classes import VOID

IMAGE_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
IMAGE_STD = np.array([58.395, 57.12, 57.375], np.float32)
"""ImageNet's statistics in 0..255, RGB, which all released checkpoints expect."""

CROP_TRIES = 10


def fitted_size(height, width, long_side, short_side):
    """(height, width) scaled, aspect kept, to the largest that exceeds neither side (mmcv rescale_size)."""
    scale = min(long_side / max(height, width), short_side / min(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def random_size(height, width, config, rng):
    """(height, width) fitted to `base_size` times a uniform ratio, cut to whole pixels (mmseg random_sample_ratio)."""
    ratio = rng.uniform(*config.resize_ratio)
    short_side, long_side = (int(side * ratio) for side in sorted(config.base_size))
    return fitted_size(height, width, long_side, short_side)


def resize_clip(images, labels, height, width):
    """Bilinear for images, nearest for labels."""
    size = (width, height)
    images = [cv2.resize(image, size, interpolation=cv2.INTER_LINEAR) for image in images]
    labels = [cv2.resize(label, size, interpolation=cv2.INTER_NEAREST) for label in labels]
    return np.stack(images), np.stack(labels)


def _is_varied(labels, max_share):
    """Whether two classes or more are in sight and none covers `max_share` or more of the labelled pixels."""
    counts = np.bincount(labels.ravel(), minlength=256)[:VOID]
    return (counts > 0).sum() > 1 and counts.max() / counts.sum() < max_share


def choose_crop(labels_THW, crop, max_share, rng):
    """Top and left of a random crop (height, width), drawn again where one class covers too much of it.

    The first draw and up to CROP_TRIES - 1 of its successors are judged; after as many failures the next one is taken
    unseen, as mmseg does. With `max_share` of 1 or more nothing is judged. What exceeds the clip is cut off.
    """
    height, width = labels_THW.shape[1:]

    def draw():
        return rng.integers(0, max(height - crop[0], 0) + 1), rng.integers(0, max(width - crop[1], 0) + 1)

    top, left = draw()
    for _ in range(CROP_TRIES if max_share < 1 else 0):
        if _is_varied(labels_THW[:, top : top + crop[0], left : left + crop[1]], max_share):
            break
        top, left = draw()
    return top, left


@dataclasses.dataclass(frozen=True)
class Colours:
    """One draw of mmseg's PhotoMetricDistortion; None is a step left out.

    Attributes:
      brightness: grey levels to add.
      contrast, saturation: factors.
      contrast_first: contrast comes before saturation and hue, or after them.
      hue: added to OpenCV's hue of 0..179.
    """

    brightness: float | None = None
    contrast: float | None = None
    contrast_first: bool = True
    saturation: float | None = None
    hue: int | None = None


def random_colours(rng):
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


def _scaled(values, factor=1.0, offset=0.0):
    """uint8 values times a factor plus an offset, clipped and cut to whole levels (mmseg convert())."""
    return np.clip(values * np.float32(factor) + np.float32(offset), 0, 255).astype(np.uint8).astype(np.float32)


def distort_colours(images_THWC, colours):
    """Applies one draw of colours to all frames, level for level as mmseg does on 8-bit images.

    All but the passes through HSV are functions of a level, hence tables. Saturation and hue each make a pass of their
    own, as in mmseg: the rounding in between shows.
    """
    levels = np.arange(256, dtype=np.float32)
    before = levels if colours.brightness is None else _scaled(levels, offset=colours.brightness)
    after = levels
    if colours.contrast is not None and colours.contrast_first:
        before = _scaled(before, colours.contrast)
    elif colours.contrast is not None:
        after = _scaled(after, colours.contrast)
    passes = []
    if colours.saturation is not None:
        passes.append((1, _scaled(levels, colours.saturation)))
    if colours.hue is not None:
        passes.append((0, (levels + colours.hue) % 180))

    def distort(image):
        image = image if before is levels else cv2.LUT(image, before.astype(np.uint8))
        for channel, table in passes:
            tables = np.stack([levels] * 3, axis=-1)
            tables[:, channel] = table
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            image = cv2.cvtColor(cv2.LUT(hsv, tables[None].astype(np.uint8)), cv2.COLOR_HSV2RGB)
        return image if after is levels else cv2.LUT(image, after.astype(np.uint8))

    return np.stack([distort(image) for image in images_THWC])


def normalise(images):
    """uint8 RGB to float32 with ImageNet's mean and standard deviation."""
    return (images.astype(np.float32) - IMAGE_MEAN) / IMAGE_STD


def pad(images_THWC, labels_THW, crop):
    """Pads below and right to the crop: normalised images with 0, labels with void."""
    missing = [(0, crop[0] - labels_THW.shape[1]), (0, crop[1] - labels_THW.shape[2])]
    images = np.pad(images_THWC, [(0, 0), *missing, (0, 0)])
    return images, np.pad(labels_THW, [(0, 0), *missing], constant_values=VOID)


def augment(images, labels, config, crop, rng):
    """A training clip from the frames of a video.

    Args:
      images, labels: T frames (H, W, 3) uint8 and (H, W) uint8, all of one size.
      config: base_size (long, short), resize_ratio (low, high), max_class_share, photometric.
      crop: (height, width) of the result.
      rng: numpy Generator; the only source of randomness.

    Returns:
      image (T, *crop, 3) float32, normalised; label (T, *crop) int32, void 255.
    """
    images, labels = resize_clip(images, labels, *random_size(*labels[0].shape, config, rng))
    top, left = choose_crop(labels, crop, config.max_class_share, rng)
    images = images[:, top : top + crop[0], left : left + crop[1]]
    labels = labels[:, top : top + crop[0], left : left + crop[1]]
    if rng.random() < 0.5:
        images, labels = images[:, :, ::-1], labels[:, :, ::-1]
    if config.photometric:
        images = distort_colours(np.ascontiguousarray(images), random_colours(rng))
    images, labels = pad(normalise(images), labels, crop)
    return images, labels.astype(np.int32)
