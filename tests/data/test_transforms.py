"""Augmentation: the same for all frames of a clip, image and label together, by mmseg's rules."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from vspw_jax.data import transforms

CROP = (32, 64)
CONFIG = ConfigDict(dict(base_size=(96, 64), resize_ratio=(0.5, 2.0), max_class_share=0.75, photometric=False))


def coloured_label(rng, height=48, width=72):
    """An image whose red channel is 40 times its label, so that one tells where the other went."""
    label = np.kron(rng.integers(0, 6, (height // 8, width // 8)), np.ones((8, 8))).astype(np.uint8)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 40 * label
    return image, label


def red(image):
    return (image[..., 0] * transforms.IMAGE_STD[0] + transforms.IMAGE_MEAN[0]) / 40


@pytest.mark.parametrize("seed", range(8))
def test_frames_and_labels_of_a_clip_move_together(seed):
    image, label = coloured_label(np.random.default_rng(seed))
    images, labels = transforms.augment([image] * 4, [label] * 4, CONFIG, CROP, np.random.default_rng(seed))
    assert images.shape == (4, *CROP, 3) and images.dtype == np.float32
    assert labels.shape == (4, *CROP) and labels.dtype == np.int32
    for frame in range(1, 4):
        np.testing.assert_array_equal(images[frame], images[0])
        np.testing.assert_array_equal(labels[frame], labels[0])
    known = labels[0] != 255
    # Bilinear and nearest differ at edges alone.
    assert (np.abs(red(images[0]) - labels[0])[known] < 0.5).mean() > 0.8


def test_photometric_distortion_is_the_same_for_all_frames_and_leaves_labels():
    image, label = coloured_label(np.random.default_rng(0))
    config = CONFIG.copy_and_resolve_references()
    config.photometric = True
    plain = transforms.augment([image] * 2, [label] * 2, CONFIG, CROP, np.random.default_rng(5))
    distorted = transforms.augment([image] * 2, [label] * 2, config, CROP, np.random.default_rng(5))
    np.testing.assert_array_equal(distorted[1], plain[1])
    np.testing.assert_array_equal(distorted[0][0], distorted[0][1])
    assert not np.array_equal(distorted[0], plain[0])


def test_photometric_distortion_stays_within_its_ranges():
    """On mid-grey only brightness (+-32) and contrast (x0.5 to 1.5) show."""
    grey = np.full((1, 4, 4, 3), 128, np.uint8)
    rng = np.random.default_rng(0)
    values = np.array([transforms.distort_colours(grey, rng)[0, 0, 0, 0] for _ in range(500)])
    assert 48 <= values.min() < 65 and 205 < values.max() <= 240
    assert 0.2 < (values == 128).mean() < 0.3


def test_what_lies_beyond_the_frame_is_mean_colour_and_void():
    config = CONFIG.copy_and_resolve_references()
    config.update(base_size=(36, 24), resize_ratio=(1.0, 1.0))
    image, label = coloured_label(np.random.default_rng(1))
    images, labels = transforms.augment([image], [label], config, CROP, np.random.default_rng(0))
    assert (labels[0, 24:] == 255).all() and (labels[0, :, 36:] == 255).all()
    assert (labels[0, :24, :36] != 255).all()
    assert (images[0, 24:] == 0).all() and (images[0, :, 36:] == 0).all()


def test_size_keeps_the_aspect_within_both_sides():
    assert transforms.fitted_size(1080, 1920, 853, 480) == (480, 853)
    assert transforms.fitted_size(480, 853, 853 // 2, 240) == (240, 426)
    assert transforms.fitted_size(100, 400, 853, 480) == (213, 853)
    assert transforms.fitted_size(360, 480, 3584, 896) == (896, 1195)


def test_crop_avoids_one_class_over_most_of_it():
    """A class fills the left half: crops that it covers by three quarters or more are drawn again."""
    label = np.zeros((1, 32, 256), np.uint8)
    label[..., 128:] = np.arange(128) // 8 + 1
    shares = []
    for seed in range(100):
        _, left = transforms.choose_crop(label, (32, 64), 0.75, np.random.default_rng(seed))
        shares.append((label[..., left : left + 64] == 0).mean())
    assert np.mean(np.array(shares) < 0.75) > 0.98


def test_crop_rule_ignores_void():
    """Half void, a quarter each of two classes: no class exceeds three quarters of what is labelled."""
    label = np.full((1, 32, 64), 255, np.uint8)
    label[0, :, :16], label[0, :, 16:32] = 1, 2
    calls = []

    class Counting:
        def integers(self, low, high):
            calls.append((low, high))
            return 0

    transforms.choose_crop(label, (32, 64), 0.75, Counting())
    assert len(calls) == 2


def test_all_void_and_single_class_crops_end():
    for value in (255, 3):
        top, left = transforms.choose_crop(
            np.full((1, 40, 80), value, np.uint8), (32, 64), 0.75, np.random.default_rng(0)
        )
        assert 0 <= top <= 8 and 0 <= left <= 16


def test_flip_happens_half_of_the_time():
    image, label = coloured_label(np.random.default_rng(2))
    config = CONFIG.copy_and_resolve_references()
    config.update(base_size=(72, 48), resize_ratio=(1.0, 1.0))
    flipped = []
    for seed in range(200):
        _, labels = transforms.augment([image], [label], config, (48, 72), np.random.default_rng(seed))
        flipped.append(np.array_equal(labels[0], label[:, ::-1]))
        assert flipped[-1] or np.array_equal(labels[0], label)
    assert 0.4 < np.mean(flipped) < 0.6
