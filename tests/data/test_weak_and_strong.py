"""The two views of a teacher and its student: one geometry, and other colours."""

import numpy as np
import pytest

from configs import upernet_mean_teacher
from vspw_jax.console.errors import UserError
from vspw_jax.data import pipeline, views

CROP = (56, 40)


@pytest.fixture
def config(generated_records):
    """Clips of two frames, half of them unlabelled, whose frames do not fill the crop."""
    config = upernet_mean_teacher.get_config("demo").data
    config.update(records=str(generated_records), frames=2)
    config.augment.update(base_size=(40, 30), resize_ratio=(0.5, 1.5), max_class_share=1.0)
    return config


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
