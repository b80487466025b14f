"""Augmentation of clips, equal for all frames of a clip where geometry and colour are concerned.

The rules and their order are mmseg's (open-mmlab/mmsegmentation mmseg/datasets/pipelines/transforms.py): resize, crop,
flip, photometric distortion, normalisation, padding.
Shapes: T frames, H and W pixels. Images are uint8 RGB until normalised; labels uint8 train ids, void 255.
"""

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


def resize_clip(images, labels, height, width):
    """Bilinear for images, nearest for labels."""
    size = (width, height)
    images = [cv2.resize(image, size, interpolation=cv2.INTER_LINEAR) for image in images]
    labels = [cv2.resize(label, size, interpolation=cv2.INTER_NEAREST) for label in labels]
    return np.stack(images), np.stack(labels)


def choose_crop(labels_THW, crop, max_share, rng):
    """Top and left of a crop (height, width) in which no class covers `max_share` or more of the labelled pixels.

    After CROP_TRIES tries the last one is taken, as mmseg does. What exceeds the clip is cut off.
    """
    height, width = labels_THW.shape[1:]
    for _ in range(CROP_TRIES):
        top = rng.integers(0, max(height - crop[0], 0) + 1)
        left = rng.integers(0, max(width - crop[1], 0) + 1)
        window = labels_THW[:, top : top + crop[0], left : left + crop[1]]
        counts = np.bincount(window.ravel(), minlength=256)[:VOID]
        if (counts > 0).sum() > 1 and counts.max() / counts.sum() < max_share:
            break
    return top, left


def distort_colours(images_THWC, rng):
    """mmseg's PhotoMetricDistortion, drawn once a clip: each step with probability one half.

    Brightness +-32, contrast x0.5..1.5 (before or after the next two), saturation x0.5..1.5, hue +-18 of 180.
    """
    draws = {name: rng.random() < 0.5 for name in ("brightness", "contrast_first", "contrast", "saturation", "hue")}
    brightness, contrast = rng.uniform(-32, 32), rng.uniform(0.5, 1.5)
    saturation, hue = rng.uniform(0.5, 1.5), rng.integers(-18, 18)

    def scale(image, factor=1.0, offset=0.0):
        return cv2.convertScaleAbs(np.maximum(image * np.float32(factor) + np.float32(offset), 0))

    def distort(image):
        if draws["brightness"]:
            image = scale(image, offset=brightness)
        if draws["contrast"] and draws["contrast_first"]:
            image = scale(image, contrast)
        if draws["saturation"] or draws["hue"]:
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            if draws["saturation"]:
                hsv[..., 1] = scale(hsv[..., 1], saturation)
            if draws["hue"]:
                hsv[..., 0] = (hsv[..., 0].astype(np.int32) + hue) % 180
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if draws["contrast"] and not draws["contrast_first"]:
            image = scale(image, contrast)
        return image

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
    ratio = rng.uniform(*config.resize_ratio)
    images, labels = resize_clip(
        images, labels, *fitted_size(*labels[0].shape, *(int(side * ratio + 0.5) for side in config.base_size))
    )
    top, left = choose_crop(labels, crop, config.max_class_share, rng)
    images = images[:, top : top + crop[0], left : left + crop[1]]
    labels = labels[:, top : top + crop[0], left : left + crop[1]]
    if rng.random() < 0.5:
        images, labels = images[:, :, ::-1], labels[:, :, ::-1]
    if config.photometric:
        images = distort_colours(np.ascontiguousarray(images), rng)
    images, labels = pad(normalise(images), labels, crop)
    return images, labels.astype(np.int32)
