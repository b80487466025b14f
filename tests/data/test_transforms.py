"""Augmentation: the same for all frames of a clip, image and label together; distributions in closed form."""

import colorsys
import itertools

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import stats

from vspw_jax.data import records, transforms

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


def test_size_is_a_uniform_ratio_of_the_base_size():
    """Against the uniform law, then exactly: sides are cut to whole pixels, so that 5..19 are equally likely."""
    rng = np.random.default_rng(0)
    fine = ConfigDict(dict(base_size=(10**6, 10**6), resize_ratio=(0.5, 2.0)))
    ratios = [transforms.random_size(10**6, 10**6, fine, rng)[0] / 10**6 for _ in range(4000)]
    assert stats.kstest(ratios, stats.uniform(0.5, 1.5).cdf).pvalue > 0.01

    coarse = ConfigDict(dict(base_size=(10, 10), resize_ratio=(0.5, 2.0)))
    sizes = [transforms.random_size(10, 10, coarse, rng)[0] for _ in range(6000)]
    values, counts = np.unique(sizes, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(5, 20))
    assert stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("base_size", [(853, 480), (480, 853)])
def test_base_size_counts_its_longer_side_for_the_longer_side(base_size):
    config = ConfigDict(dict(base_size=base_size, resize_ratio=(1.3, 1.3)))
    rng = np.random.default_rng(0)
    # 853 * 1.3 = 1108.9 and 480 * 1.3 = 624 bound the sides; the shorter one decides at 3:2, the longer at 2:1.
    assert transforms.random_size(1000, 1500, config, rng) == (624, 936)
    assert transforms.random_size(1000, 2000, config, rng) == (554, 1108)
    assert transforms.random_size(1920, 1080, config, rng) == (1108, 623)


def test_each_colour_step_has_probability_one_half_and_its_own_law():
    rng = np.random.default_rng(1)
    draws = [transforms.random_colours(rng) for _ in range(8000)]
    names = ("brightness", "contrast", "saturation", "hue")
    taken = [tuple(getattr(d, name) is not None for name in names) + (d.contrast_first,) for d in draws]
    counts = [taken.count(combination) for combination in itertools.product((False, True), repeat=5)]
    assert stats.chisquare(counts).pvalue > 0.01
    for name, law in (("brightness", (-32, 64)), ("contrast", (0.5, 1)), ("saturation", (0.5, 1))):
        values = [getattr(draw, name) for draw in draws if getattr(draw, name) is not None]
        assert stats.kstest(values, stats.uniform(*law).cdf).pvalue > 0.01
    values, counts = np.unique([draw.hue for draw in draws if draw.hue is not None], return_counts=True)
    np.testing.assert_array_equal(values, np.arange(-18, 18))
    assert stats.chisquare(counts).pvalue > 0.01


COLOURS = np.random.default_rng(2).integers(0, 256, (400, 3), dtype=np.uint8)
COLOURS[:8] = list(itertools.product((0, 255), repeat=3))


def converted(values, alpha=1.0, beta=0.0):
    """mmseg's convert(), in float64: scaled, clipped, cut to whole levels."""
    return np.floor(np.clip(values.astype(np.float64) * alpha + beta, 0, 255))


def through_hsv(rgb, saturation=1.0, hue=0):
    """One pass through HSV by the textbook, from the whole levels of hue (180) and saturation (255) that OpenCV keeps.

    Those levels are checked too: within one of the textbook's.
    """
    levels = cv2.cvtColor(rgb.astype(np.uint8)[None], cv2.COLOR_RGB2HSV)[0].astype(float)
    exact = np.array([colorsys.rgb_to_hsv(*(colour / 255.0)) for colour in rgb]) * (180, 255, 255)
    assert (np.abs((levels - exact + 90) % 180 - 90)[:, 0] <= 1).all() and (np.abs(levels - exact)[:, 1:] <= 1).all()
    levels[:, 0] = (levels[:, 0] + hue) % 180
    levels[:, 1] = converted(levels[:, 1], saturation)
    return 255 * np.array([colorsys.hsv_to_rgb(*level) for level in levels / (180, 255, 255)])


@pytest.mark.parametrize("first", [True, False])
def test_colours_are_as_a_float_reference_has_them(first):
    """Every step alone and levels in order, within the one level by which OpenCV's 8-bit HSV differs."""

    def distort(**steps):
        return transforms.distort_colours(COLOURS[:, None], transforms.Colours(**steps))[:, 0].astype(float)

    np.testing.assert_array_equal(distort(), COLOURS)
    np.testing.assert_array_equal(distort(brightness=-20.3), converted(COLOURS, beta=-20.3))
    np.testing.assert_array_equal(distort(contrast=1.37, contrast_first=first), converted(COLOURS, 1.37))
    np.testing.assert_array_equal(
        distort(brightness=20.7, contrast=0.6, contrast_first=first), converted(converted(COLOURS, beta=20.7), 0.6)
    )
    for steps in (dict(saturation=0.55), dict(saturation=1.45), dict(hue=-18), dict(hue=17)):
        np.testing.assert_allclose(distort(**steps), through_hsv(COLOURS, **steps), atol=1.0)
    saturated = dict(contrast=1.375, saturation=0.5, contrast_first=first)
    expected = (
        through_hsv(converted(COLOURS, 1.375), 0.5) if first else converted(np.rint(through_hsv(COLOURS, 0.5)), 1.375)
    )
    np.testing.assert_allclose(distort(**saturated), expected, atol=1.0 if first else 1.375 + 1)


def test_saturation_and_hue_each_pass_through_hsv():
    """Two passes with 8 bits between, as in mmseg: not always what one pass gives."""
    image = COLOURS[:, None]
    both = transforms.distort_colours(image, transforms.Colours(saturation=0.6, hue=11))
    in_turn = transforms.distort_colours(image, transforms.Colours(saturation=0.6))
    in_turn = transforms.distort_colours(in_turn, transforms.Colours(hue=11))
    np.testing.assert_array_equal(both, in_turn)


def test_what_lies_beyond_the_frame_is_mean_colour_and_void():
    config = CONFIG.copy_and_resolve_references()
    config.update(base_size=(36, 24), resize_ratio=(1.0, 1.0))
    image, label = coloured_label(np.random.default_rng(1))
    images, labels = transforms.augment([image], [label], config, CROP, np.random.default_rng(0))
    assert (labels[0, 24:] == 255).all() and (labels[0, :, 36:] == 255).all()
    assert (labels[0, :24, :36] != 255).all()
    assert (images[0, 24:] == 0).all() and (images[0, :, 36:] == 0).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("base_size", [(36, 24), (96, 64), (200, 120)], ids=["small", "same", "large"])
def test_a_crop_shows_its_place_in_the_resized_frame(base_size, seed):
    """Red and green tell a pixel's place in the frame: within one of its pixels of where resizing first puts it."""
    height, width = 64, 96
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([2 * columns, 2 * rows, 0 * rows], axis=-1).astype(np.uint8)
    label = ((rows // 16 * 6 + columns // 16) % 7).astype(np.uint8)
    config = CONFIG.copy_and_resolve_references()
    config.base_size = base_size
    rng = np.random.default_rng(seed)
    size = transforms.random_size(height, width, config, rng)
    top, left = transforms.choose_crop([label], CROP, config.max_class_share, rng, size)
    flipped = rng.random() < 0.5
    ((shown,), (labels,)) = transforms.augment([image], [label], config, CROP, np.random.default_rng(seed))

    places = []
    for first, length, source, scaled in zip((top, left), CROP, (height, width), size, strict=True):
        wanted = (np.arange(first, min(first + length, scaled)) + 0.5) * source / scaled - 0.5
        places.append(wanted.clip(0, source - 1))
    shown = (shown * transforms.IMAGE_STD + transforms.IMAGE_MEAN)[: len(places[0]), : len(places[1]), :2] / 2
    shown = shown[:, ::-1] if flipped else shown
    assert np.abs(shown[..., 0] - places[1]).max() < 1 and np.abs(shown[..., 1] - places[0][:, None]).max() < 1
    labels = labels[: len(places[0]), : len(places[1])]
    labels = labels[:, ::-1] if flipped else labels
    nearest = label[np.rint(shown[..., 1]).astype(int), np.rint(shown[..., 0]).astype(int)]
    assert (nearest == labels).mean() > 0.75  # Edges apart, image and label are cut alike.


@pytest.mark.parametrize(
    ("height", "size", "shrink"),
    [
        (480, 480, 1),
        (480, 241, 1),
        (480, 240, 2),
        (480, 121, 2),
        (480, 120, 4),
        (1080, 66, 8),
        (481, 240, 2),
        (48, 96, 1),
    ],
)
def test_frames_are_shrunk_no_further_than_they_are_resized(height, size, shrink):
    view = transforms.View((size, 2 * size), (0, 0), CROP, False, transforms.Colours())
    assert view.shrink(height) == shrink


@pytest.mark.parametrize("seed", range(4))
def test_a_shrunk_frame_shows_the_same_place(seed):
    """Red tells the column, green the row, through a JPEG of a size that 2 and 4 do not divide."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:301, :401]
    image = np.stack([0 * rows, 0.8 * rows, 0.6 * columns], axis=-1).round().astype(np.uint8)
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    label = np.zeros((301, 401), np.uint8)
    config = ConfigDict(dict(base_size=(140, 105), resize_ratio=(0.7, 1.3), max_class_share=1, photometric=False))
    view = transforms.random_view([label], config, CROP, rng)
    shrink = view.shrink(301)
    places = []
    for image in (records.decode_image(jpeg), records.decode_image(jpeg, shrink)):
        shown, shown_label = np.empty((*CROP, 3), np.float32), np.empty(CROP, np.int32)
        view.show(image, label, shown, shown_label)
        places.append((shown * transforms.IMAGE_STD + transforms.IMAGE_MEAN)[..., :2] / (0.6, 0.8))
    assert shrink in (2, 4) and (shown_label == 0).all()
    # Single pixels are off by the rounding of levels too, of which one is nearly two columns.
    assert np.abs(places[0] - places[1]).mean() < 0.5 * shrink + 1
    assert np.abs((places[0] - places[1]).mean(axis=(0, 1))).max() < 0.5 * shrink + 0.5


def test_size_keeps_the_aspect_within_both_sides():
    assert transforms.fitted_size(1080, 1920, 853, 480) == (480, 853)
    assert transforms.fitted_size(480, 853, 853 // 2, 240) == (240, 426)
    assert transforms.fitted_size(100, 400, 853, 480) == (213, 853)
    assert transforms.fitted_size(360, 480, 3584, 896) == (896, 1195)


def test_crops_are_uniform_over_all_places():
    label = np.arange(9 * 14, dtype=np.uint8).reshape(1, 9, 14)
    rng = np.random.default_rng(3)
    places = [transforms.choose_crop(label, (5, 11), 0.75, rng) for _ in range(3000)]
    counts = [places.count(place) for place in itertools.product(range(5), range(4))]
    assert sum(counts) == 3000 and stats.chisquare(counts).pvalue > 0.01


def test_crop_is_accepted_as_often_as_eleven_draws_allow():
    """One place of ten is varied. Ten draws are judged and an eleventh is taken unseen: 1 - 0.9^11 = 0.686."""
    label = np.zeros((1, 4, 11), np.uint8)
    label[..., -1] = 1
    rng = np.random.default_rng(4)
    lefts = np.array([transforms.choose_crop(label, (4, 2), 0.75, rng)[1] for _ in range(4000)])
    assert stats.binomtest(int((lefts == 9).sum()), 4000, 1 - 0.9**11).pvalue > 0.01
    assert stats.binomtest(int((lefts == 9).sum()), 4000, 1 - 0.9**10).pvalue < 0.001
    assert stats.chisquare(np.bincount(lefts[lefts < 9], minlength=9)).pvalue > 0.01


def test_a_share_of_one_judges_nothing():
    label = np.zeros((1, 4, 11), np.uint8)
    label[..., -1] = 1
    rng = np.random.default_rng(5)
    lefts = [transforms.choose_crop(label, (4, 2), 1.0, rng)[1] for _ in range(1000)]
    assert stats.chisquare(np.bincount(lefts, minlength=10)).pvalue > 0.01


def test_a_class_of_exactly_the_share_is_drawn_again():
    """mmseg asks for less than the share: three of four columns are too many at 0.75, not at 0.76."""
    label = np.array([[[0, 0, 0, 1]]], np.uint8)
    assert not transforms._is_varied(label, 0.75) and transforms._is_varied(label, 0.76)


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
    for seed in range(400):
        _, labels = transforms.augment([image], [label], config, (48, 72), np.random.default_rng(seed))
        flipped.append(np.array_equal(labels[0], label[:, ::-1]))
        assert flipped[-1] or np.array_equal(labels[0], label)
    assert stats.binomtest(sum(flipped), 400, 0.5).pvalue > 0.01
