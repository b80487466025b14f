"""The training stream as a PyTorch DataLoader: mmseg's pipeline, its operations in its order, with OpenCV.

Resize, RandomCrop, RandomFlip, PhotoMetricDistortion, Normalize, Pad and the move to channels first, each on whole
arrays as mmseg 0.x makes them (open-mmlab/mmsegmentation mmseg/datasets/pipelines/transforms.py); the frames of a clip
share their draws, as in vspw_jax. For benchmarks/input.py.
"""

import cv2
import numpy as np
import torch

from vspw_jax.data import clips, records, transforms

MEAN = np.float64(transforms.IMAGE_MEAN.reshape(1, -1))
INVERSE_STD = 1 / np.float64(transforms.IMAGE_STD.reshape(1, -1))


def crop_of(label, crop, max_share, rng):
    """A window of the resized label in which no class covers too much, of eleven."""
    height, width = label.shape
    for last in range(11):
        top = rng.integers(0, max(height - crop[0], 0) + 1)
        left = rng.integers(0, max(width - crop[1], 0) + 1)
        window = slice(top, top + crop[0]), slice(left, left + crop[1])
        if last == 10 or max_share >= 1:
            break
        values, counts = np.unique(label[window], return_counts=True)
        counts = counts[values != 255]
        if len(counts) > 1 and counts.max() / counts.sum() < max_share:
            break
    return window


def convert(image, alpha=1.0, beta=0.0):
    return np.clip(image.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)


def through_hsv(image, channel, change):
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[:, :, channel] = change(hsv[:, :, channel])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def distort(image, colours):
    if colours.brightness is not None:
        image = convert(image, beta=colours.brightness)
    if colours.contrast is not None and colours.contrast_first:
        image = convert(image, colours.contrast)
    if colours.saturation is not None:
        image = through_hsv(image, 1, lambda levels: convert(levels, colours.saturation))
    if colours.hue is not None:
        image = through_hsv(image, 0, lambda levels: (levels.astype(int) + colours.hue) % 180)
    if colours.contrast is not None and not colours.contrast_first:
        image = convert(image, colours.contrast)
    return image


def normalise(image):
    """mmcv.imnormalize."""
    image = image.astype(np.float32)
    cv2.subtract(image, MEAN, image)
    cv2.multiply(image, INVERSE_STD, image)
    return image


def pad(pixels, crop, value):
    below, right = crop[0] - pixels.shape[0], crop[1] - pixels.shape[1]
    return cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_CONSTANT, value=value)


class Clips(torch.utils.data.Dataset):
    """Clip of a number: float32 (T, 3, H, W), int64 (T, H, W)."""

    def __init__(self, config, crop):
        self.config, self.crop = config, crop
        self.frames = records.Frames(config.records, "train")
        self.epoch = clips.FrameEpoch(self.frames.videos)

    def __len__(self):
        return 10**6

    def __getitem__(self, number):
        rng, options = np.random.default_rng(number), self.config.augment
        layout = clips.layout(self.config, self.config.frames, self.config.frame_gap)
        numbers = layout.records(*self.epoch.choose(int(rng.integers(len(self.epoch))), rng), rng)
        images, labels = zip(*(self.frames.image_and_label(number) for number in numbers), strict=True)
        height, width = transforms.random_size(*labels[0].shape, options, rng)
        labels = [cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST) for label in labels]
        images = [cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR) for image in images]
        window = crop_of(labels[0], self.crop, options.max_class_share, rng)
        images, labels = [image[window] for image in images], [label[window] for label in labels]
        if rng.random() < 0.5:
            images, labels = [cv2.flip(image, 1) for image in images], [cv2.flip(label, 1) for label in labels]
        colours = transforms.random_colours(rng) if options.photometric else transforms.Colours()
        images = [pad(normalise(distort(image, colours)), self.crop, 0) for image in images]
        labels = [pad(label, self.crop, 255) for label in labels]
        image_TCHW = np.stack([np.ascontiguousarray(image.transpose(2, 0, 1)) for image in images])
        return torch.from_numpy(image_TCHW), torch.from_numpy(np.stack(labels).astype(np.int64))


def one_thread(_):
    """As mmseg sets it for its workers."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def batches(config, batch, crop, workers):
    """Batches of clips in random order, from that many processes."""
    return torch.utils.data.DataLoader(
        Clips(config, crop), batch, num_workers=workers, prefetch_factor=2, worker_init_fn=one_thread, drop_last=True
    )
