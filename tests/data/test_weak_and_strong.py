"""The two views of a teacher and its student: one geometry, and colours as Pillow makes them."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from configs import upernet_mean_teacher
from vspw_jax.console.errors import UserError
from vspw_jax.data import pipeline, views, weak_and_strong

CROP = (56, 40)


@pytest.fixture
def config(generated_records):
    """Clips of two frames, half of them unlabelled, whose frames do not fill the crop."""
    config = upernet_mean_teacher.get_config("demo").data
    config.update(records=str(generated_records), frames=2)
    config.augment.update(base_size=(40, 30), resize_ratio=(0.5, 1.5), max_class_share=1.0)
    return config


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.3, 1.5])
@pytest.mark.parametrize(
    ("ours", "pillows"),
    [
        (weak_and_strong.brightness, ImageEnhance.Brightness),
        (weak_and_strong.contrast, ImageEnhance.Contrast),
        (weak_and_strong.saturation, ImageEnhance.Color),
    ],
)
def test_colours_are_those_of_pillow_to_a_level(image, ours, pillows, factor):
    expected = np.asarray(pillows(Image.fromarray(image)).enhance(factor)).astype(int)
    assert np.abs(ours(image, factor) - expected).max() <= (2 if ours is weak_and_strong.saturation else 1)


def test_a_third_of_a_turn_makes_red_green():
    red = np.full((2, 2, 3), (200, 20, 20), np.uint8)
    np.testing.assert_allclose(weak_and_strong.hue(red, 1 / 3), np.full((2, 2, 3), (20, 200, 20)), atol=3)
    np.testing.assert_array_equal(weak_and_strong.hue(red, -2 / 3), weak_and_strong.hue(red, 1 / 3))


def test_draws_are_as_often_and_as_far_as_the_config_says(config):
    rng = np.random.default_rng(0)
    fields = config.augment.strong
    fields.update(jitter=(0.5, 0.4, 0.3, 0.25), jitter_chance=0.8, grey_chance=0.2, blur_chance=0.5)
    drawn = [weak_and_strong.random_colours(fields, rng) for _ in range(2000)]
    assert np.mean([bool(one.jitter) for one in drawn]) == pytest.approx(0.8, abs=0.03)
    assert np.mean([one.grey for one in drawn]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([one.blur > 0 for one in drawn]) == pytest.approx(0.5, abs=0.03)
    assert all(one.blur == 0 or 0.1 <= one.blur <= 2 for one in drawn)
    values = np.array([[value for _, value in sorted(one.jitter)] for one in drawn if one.jitter])
    np.testing.assert_allclose(values.min(axis=0), [0.5, 0.6, 0.7, -0.25], atol=0.01)
    np.testing.assert_allclose(values.max(axis=0), [1.5, 1.4, 1.3, 0.25], atol=0.01)
    assert len({tuple(step for step, _ in one.jitter) for one in drawn if one.jitter}) == 24


def test_grey_and_blur(image):
    grey = weak_and_strong.StrongColours(grey=True).of(image)
    expected = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    assert np.abs(grey.astype(int) - expected).max() <= 1
    dot = np.zeros((21, 21, 3), np.uint8)
    dot[10, 10] = 255
    blurred = weak_and_strong.StrongColours(blur=1.5).of(dot)[..., 0].astype(float)
    offset = np.arange(21) - 10
    assert np.sqrt((blurred.sum(axis=0) * offset**2).sum() / blurred.sum()) == pytest.approx(1.5, abs=0.15)


def batches(config, steps=4):
    stream = pipeline.training_batches(config, 4, CROP, seed=1)
    made = [next(stream) for _ in range(steps)]
    stream.close()
    return {name: np.concatenate([batch[name] for batch in made]) for name in made[0]}


def test_views_share_their_geometry_and_differ_in_colours(config):
    """Where nothing strong is drawn the two are equal; else the weak one stays and the labels stay."""
    plain = {"jitter_chance": 0.0, "grey_chance": 0.0, "blur_chance": 0.0}
    strong = batches(config)
    config.augment.strong.update(plain)
    same = batches(config)
    for batch in (strong, same):
        np.testing.assert_array_equal(batch["strong_label_BTHW"], batch["label_BTHW"])
    np.testing.assert_array_equal(same["strong_image_BTHWC"], same["image_BTHWC"])
    np.testing.assert_array_equal(strong["image_BTHWC"], same["image_BTHWC"])
    changed = (strong["strong_image_BTHWC"] != strong["image_BTHWC"]).any(axis=(1, 2, 3, 4))
    assert changed.mean() > 0.6
    beyond = ~(strong["image_BTHWC"] != 0).any(axis=-1)
    np.testing.assert_array_equal(strong["strong_image_BTHWC"][beyond], 0)


def test_unlabelled_pixels_are_those_of_frames_and_of_clips_without_labels(config):
    batch = batches(config)
    shown = (batch["image_BTHWC"] != 0).any(axis=-1)
    unlabelled = batch["unlabelled_BTHW"]
    has_label = (batch["label_BTHW"] != 255).any(axis=(1, 2, 3))
    of_clip = unlabelled.any(axis=(1, 2, 3))
    assert of_clip.sum() == 8 and not (of_clip & has_label).any()
    np.testing.assert_array_equal(unlabelled[of_clip], shown[of_clip])
    assert not unlabelled[~of_clip].any() and not shown.all() and shown.any()


def test_a_strong_view_without_its_section_is_refused(config):
    views.check(config)
    del config.augment.strong
    with pytest.raises(UserError, match=r"no section data.augment.strong. Add .* data.strong\(\)"):
        views.check(config)


def test_a_stream_without_unlabelled_clips_tells_of_none(config):
    config.unlabelled_share = 0.0
    assert set(batches(config, 1)) == {
        *(prefix + name for prefix in ("", "strong_") for name in views.ARRAYS),
        views.BATCH,
    }
