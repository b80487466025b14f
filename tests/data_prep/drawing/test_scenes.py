"""Drawn video: exact labels, many classes, motion, and the same clip for the same seed."""

import numpy as np
import pytest

from data_prep.drawing import scenes
from vspw_jax.classes import vspw


@pytest.fixture(scope="module")
def drawn():
    return [scenes.clip(0, number, 8, 60, 96) for number in range(12)]


def test_at_least_twelve_of_vspws_classes_occur(drawn):
    found = np.unique(np.concatenate([np.unique(labels) for _, labels in drawn]))
    assert len(set(found) - {scenes.NO_CLASS}) >= 12
    assert set(scenes.CLASSES) <= set(vspw.names())


def test_same_seed_same_clip_other_seed_other_clip(drawn):
    images, labels = scenes.clip(0, 4, 8, 60, 96)
    np.testing.assert_array_equal(images, drawn[4][0])
    np.testing.assert_array_equal(labels, drawn[4][1])
    assert not np.array_equal(scenes.clip(1, 4, 8, 60, 96)[0], images)


def test_frames_move_and_stay_alike(drawn):
    for images, labels in drawn:
        assert images.shape == (8, 60, 96, 3) and images.dtype == np.uint8
        kept = (labels[1:] == labels[:-1]).mean()
        assert 0.7 < kept < 1


def test_light_changes_within_a_clip(drawn):
    drifts = [np.ptp(images.mean(axis=(1, 2, 3))) for images, _ in drawn]
    assert np.median(drifts) > 2


def told_by_colour(colours):
    """The share of pixels whose class is the commonest of their coarse colour, learnt on 60 clips and tried on 12."""

    def pixels(numbers):
        clips = [scenes.clip(0, number, 1, 60, 96, colours) for number in numbers]
        colour = np.concatenate([images.reshape(-1, 3) for images, _ in clips]).astype(int) // 32
        label = np.concatenate([labels.ravel() for _, labels in clips]).astype(int)
        known = label != scenes.NO_CLASS
        return (colour @ [64, 8, 1])[known], label[known]

    colour, label = pixels(range(60))
    counts = np.zeros((512, len(scenes.CLASSES)))
    np.add.at(counts, (colour, label), 1)
    colour, label = pixels(range(60, 72))
    return (counts.argmax(axis=1)[colour] == label).mean()


def test_shared_colours_do_not_give_the_class_away():
    assert told_by_colour("shared") < 0.4


def test_typical_colours_say_something_but_not_all():
    """Grass is mostly green, and so are trees."""
    assert 0.45 < told_by_colour("typical") < 0.75
