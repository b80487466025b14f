"""Jitter, grey and blur: their laws written out anew, and how often they are drawn."""

import colorsys
import itertools

import numpy as np
import pytest
from PIL import Image

from configs.parts import data
from vspw_jax.data import colour_jitter, moco


def test_mocos_steps_have_their_probabilities_and_the_jitter_any_order():
    rng = np.random.default_rng(1)
    drawn = [colour_jitter.random_colours(moco.COLOURS, rng) for _ in range(4000)]
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
    found = lambda number: np.asarray(colour_jitter.Colours(jitter=((number, factor),)).of(Image.fromarray(image)))
    np.testing.assert_array_equal(found(0), blend(0, image, factor))
    np.testing.assert_array_equal(found(1), blend(int(luma(image).mean() + 0.5), image, factor))
    np.testing.assert_array_equal(found(2), blend(np.stack([luma(image)] * 3, -1), image, factor))


@pytest.mark.parametrize("shift", [-0.1, -0.03, 0.0, 0.1])
def test_hue_is_turned_by_whole_levels_of_256(image, shift):
    found = np.asarray(colour_jitter.Colours(jitter=((3, shift),)).of(Image.fromarray(image))).astype(int)
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
    blurred = np.asarray(colour_jitter.Colours(sigma=sigma).of(Image.fromarray(image)))
    np.testing.assert_allclose(blurred, boxes(image, sigma), atol=1.0)
    grey = np.asarray(colour_jitter.Colours(grey=True).of(Image.fromarray(image)))
    np.testing.assert_array_equal(grey, np.stack([luma(image)] * 3, -1))


def test_a_third_of_a_turn_makes_red_green():
    red = Image.new("RGB", (2, 2), (200, 20, 20))
    turned = np.asarray(colour_jitter.Colours(jitter=((3, 1 / 3),)).of(red))
    np.testing.assert_allclose(turned, np.full((2, 2, 3), (20, 200, 20)), atol=3)


def test_draws_are_as_often_and_as_far_as_the_config_says():
    rng = np.random.default_rng(0)
    fields = data.strong()
    fields.update(jitter=(0.5, 0.4, 0.3, 0.25), jitter_chance=0.8, grey_chance=0.2, blur_chance=0.5)
    drawn = [colour_jitter.random_colours(fields, rng) for _ in range(2000)]
    assert np.mean([bool(one.jitter) for one in drawn]) == pytest.approx(0.8, abs=0.03)
    assert np.mean([one.grey for one in drawn]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([one.sigma > 0 for one in drawn]) == pytest.approx(0.5, abs=0.03)
    assert all(one.sigma == 0 or 0.1 <= one.sigma <= 2 for one in drawn)
    values = np.array([[value for _, value in sorted(one.jitter)] for one in drawn if one.jitter])
    np.testing.assert_allclose(values.min(axis=0), [0.5, 0.6, 0.7, -0.25], atol=0.01)
    np.testing.assert_allclose(values.max(axis=0), [1.5, 1.4, 1.3, 0.25], atol=0.01)
    assert len({tuple(step for step, _ in one.jitter) for one in drawn if one.jitter}) == 24
