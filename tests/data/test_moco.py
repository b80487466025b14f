"""MoCo v2's augmentation: its laws written out anew, and labels that stay under their pixels."""

import colorsys
import itertools

import numpy as np
import pytest
from PIL import Image

from configs import nce
from vspw_jax.data import moco, pipeline, transforms, views

CROP = (32, 40)
PLAIN = moco.Colours()


def levels(normalised):
    return normalised * transforms.IMAGE_STD + transforms.IMAGE_MEAN


def shown(view, image, label):
    out = np.empty((*view.crop, 3), np.float32), np.empty(view.crop, np.int32)
    view.show(image, label, *out)
    return levels(out[0]), out[1]


def over_crop(of_axis, axis):
    return np.broadcast_to(of_axis.reshape([(-1, 1), (1, -1)][axis]), CROP)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("height", "width"), [(60, 80), (25, 30), (240, 200)])
def test_every_label_is_that_of_its_pixel(height, width, seed):
    """Image and label hold a pixel's column, then its row: larger and smaller than the crop, flipped and not."""
    view = moco.random_view((height, width), CROP, np.random.default_rng(seed))
    view = moco.View(view.box, CROP, seed % 2 == 1, PLAIN)
    for axis, (first, length, crop) in enumerate(
        [(view.box.top, view.box.height, CROP[0]), (view.box.left, view.box.width, CROP[1])]
    ):
        place = np.broadcast_to(np.arange([height, width][axis]).reshape([(-1, 1), (1, -1)][axis]), (height, width))
        image, label = shown(view, np.stack([place.astype(np.uint8)] * 3, -1), place.astype(np.uint8))
        centre = first + (np.arange(crop) + 0.5) * length / crop
        centre = centre[::-1] if view.flipped and axis == 1 else centre
        np.testing.assert_array_equal(label, over_crop(np.floor(centre), axis))
        # Pixel n spans n to n + 1. Beyond the box's edge there is nothing to blend with.
        edge = int(np.ceil(crop / length)) + 1
        inner = (slice(edge, -edge),) * 2
        np.testing.assert_allclose(image[inner][..., 0], over_crop(centre, axis)[inner] - 0.5, atol=0.51)


def test_boxes_are_of_every_size_and_aspect_that_moco_allows():
    rng = np.random.default_rng(0)
    boxes = [moco.random_box(300, 300, rng) for _ in range(2000)]
    area = np.array([box.height * box.width for box in boxes]) / 300**2
    aspect = np.array([box.width / box.height for box in boxes])
    assert 0.195 < area.min() < 0.21 and 0.9 < area.max() <= 1
    assert 0.74 < aspect.min() < 0.77 and 1.3 < aspect.max() < 1.35
    assert abs(np.log(aspect).mean()) < 0.02
    assert {box.top == 0 for box in boxes} == {True, False}
    assert all(box.top + box.height <= 300 and box.left + box.width <= 300 for box in boxes)
    # No draw fits a strip: the largest part in its middle of the nearest aspect.
    assert moco.random_box(20, 2000, rng) == moco.Box(0, (2000 - 27) // 2, 20, 27)
    assert moco.random_box(2000, 21, rng) == moco.Box((2000 - 28) // 2, 0, 28, 21)


def test_steps_have_their_probabilities_and_the_jitter_any_order():
    rng = np.random.default_rng(1)
    drawn = [moco.random_colours(rng) for _ in range(4000)]
    share = lambda of: np.mean([of(colours) for colours in drawn])
    assert share(lambda c: bool(c.jitter)) == pytest.approx(0.8, abs=0.03)
    assert share(lambda c: c.grey) == pytest.approx(0.2, abs=0.03)
    assert share(lambda c: c.sigma > 0) == pytest.approx(0.5, abs=0.03)
    orders = {tuple(number for number, _ in colours.jitter) for colours in drawn if colours.jitter}
    assert orders == set(itertools.permutations(range(4)))
    amounts = np.array([[amount for _, amount in sorted(colours.jitter)] for colours in drawn if colours.jitter])
    np.testing.assert_allclose(amounts.min(axis=0), [0.6, 0.6, 0.6, -0.1], atol=0.01)
    np.testing.assert_allclose(amounts.max(axis=0), [1.4, 1.4, 1.4, 0.1], atol=0.01)
    sigmas = [colours.sigma for colours in drawn if colours.sigma]
    assert min(sigmas) >= 0.1 and max(sigmas) <= 2.0 and np.mean(sigmas) == pytest.approx(1.05, abs=0.05)


def blend(degenerate, image, factor):
    """Pillow's: cut to whole levels, not rounded."""
    degenerate = np.asarray(degenerate, np.float32)
    return np.clip(degenerate + np.float32(factor) * (image.astype(np.float32) - degenerate), 0, 255).astype(np.uint8)


def luma(image):
    return (image.astype(np.int64) @ [19595, 38470, 7471] + 2**15) >> 16


def turned(image, shift):
    """Hue, saturation and value of 256 levels each, pixel by pixel."""
    out = np.empty_like(image)
    for place in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*(int(level) / 255 for level in image[place]))
        h, s = (int(h * 255 + 1e-4) + int(shift * 255)) % 256, int(s * 255 + 1e-4)
        rgb = colorsys.hsv_to_rgb((h / 255) % 1.0, s / 255, v)
        out[place] = [int(level * 255 + 0.5) for level in rgb]
    return out


@pytest.fixture
def image():
    return np.random.default_rng(2).integers(0, 256, (16, 20, 3), np.uint8)


@pytest.mark.parametrize("factor", [0.6, 0.83, 1.0, 1.4])
def test_brightness_contrast_and_saturation_are_blends(image, factor):
    found = lambda number: np.asarray(moco.Colours(jitter=((number, factor),)).of(Image.fromarray(image)))
    np.testing.assert_array_equal(found(0), blend(0, image, factor))
    np.testing.assert_array_equal(found(1), blend(int(luma(image).mean() + 0.5), image, factor))
    np.testing.assert_array_equal(found(2), blend(np.stack([luma(image)] * 3, -1), image, factor))


@pytest.mark.parametrize("shift", [-0.1, -0.03, 0.0, 0.1])
def test_hue_is_turned_by_whole_levels_of_256(image, shift):
    found = np.asarray(moco.Colours(jitter=((3, shift),)).of(Image.fromarray(image))).astype(int)
    close = np.abs(found - turned(image, shift)).max(axis=-1) <= 1
    assert close.mean() > 0.99  # A hue that is a whole level in float64 may be below it in Pillow's float32.


def boxes(image, sigma):
    """Three boxes along each axis whose ends count in part, each rounded."""
    variance = sigma**2 / 3
    whole = int((np.sqrt(12 * variance + 1) - 1) // 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    weights = np.array([part, *[1.0] * (2 * whole + 1), part]) / (2 * (whole + part) + 1)
    blurred = image.astype(np.float64)
    for axis in (1, 1, 1, 0, 0, 0):
        reach = whole + 1
        padded = np.pad(blurred, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode="edge")
        length = image.shape[axis]
        blurred = np.floor(sum(w * padded.take(range(n, n + length), axis) for n, w in enumerate(weights)) + 0.5)
    return blurred


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.3, 2.0])
def test_grey_and_blur(image, sigma):
    blurred = np.asarray(moco.Colours(sigma=sigma).of(Image.fromarray(image)))
    np.testing.assert_allclose(blurred, boxes(image, sigma), atol=1.0)
    grey = np.asarray(moco.Colours(grey=True).of(Image.fromarray(image)))
    np.testing.assert_array_equal(grey, np.stack([luma(image)] * 3, -1))


def test_a_batch_holds_both_views_the_same_from_any_step_on(generated_records):
    config = nce.get_config("demo").data
    config.records, config.views, config.frames = str(generated_records), "two", 2

    def batches(first_step):
        stream = pipeline.training_batches(config, 4, CROP, seed=5, first_step=first_step)
        try:
            return [next(stream) for _ in range(2)]
        finally:
            stream.close()

    (_, second), (again, _) = batches(0), batches(1)
    like = views.shapes(config, CROP, 4)
    assert {name: (x.shape, x.dtype) for name, x in second.items()} == {n: (x.shape, x.dtype) for n, x in like.items()}
    for name, value in second.items():
        np.testing.assert_array_equal(value, again[name])
    assert np.abs(second["image_BTHWC"] - second["second_image_BTHWC"]).mean() > 0.1
    assert (second["label_BTHW"] != second["second_label_BTHW"]).mean() > 0.1
    assert set(np.unique(second["second_label_BTHW"])) <= {*range(124), 255}
