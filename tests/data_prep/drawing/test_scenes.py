"""Drawn video: exact labels, many classes, motion, and the same clip for the same seed."""

import numpy as np
import pytest

from data_prep.drawing import objects, scenes
from vspw_jax.classes import vspw


@pytest.fixture(scope="module")
def drawn():
    return [scenes.clip(0, number, 8, 60, 96) for number in range(12)]


def test_all_classes_occur_in_a_few_clips(drawn):
    found = np.unique(np.concatenate([np.unique(labels) for _, labels in drawn]))
    assert set(found) - {scenes.NO_CLASS} == set(range(len(scenes.CLASSES)))
    assert len(scenes.CLASSES) >= 12 and set(scenes.CLASSES) <= set(vspw.classes().names)


@pytest.mark.parametrize("scene", scenes.BANDS)
def test_objects_stand_in_their_places_the_nearest_in_front(scene):
    rng = np.random.default_rng(0)
    edges = scenes._edges(rng, scene, 150)
    sprites = [sprite for _ in range(20) for sprite in scenes._sprites(rng, scene, edges, 2.5, 120, "typical")]
    for sprite in sprites:
        band = scenes.BANDS[scene].index(scenes.OBJECTS[scene][sprite.name])
        foot = sprite.start[1] * 120 if sprite.kind.hangs else (sprite.start[1] + 0.45 * sprite.size) * 120
        assert edges[band] < foot < edges[band + 1]
    sprites = scenes._sprites(rng, scene, edges, 2.5, 120, "typical")
    lowest = [sprite.start[1] + sprite.size / 2 for sprite in sprites]
    assert lowest == sorted(lowest)


def test_a_tree_stays_and_a_ball_rolls_as_far_as_it_goes():
    def placed(name, time):
        rng = np.random.default_rng(1)
        sprite = objects.sprite(rng, name, (0.6, 1.2), 2.5, 120, "typical")
        side = sprite.alpha_HW.shape[0]
        matrix = sprite.placement(time, 120)
        return sprite, matrix @ (side / 2, side / 2, 1) / 120, np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))

    _, start, _ = placed("tree", 0.0)
    _, later, turn = placed("tree", 1.0)
    np.testing.assert_allclose(start, later, atol=1e-6)
    assert abs(turn) <= objects.KINDS["tree"].sway + 1
    ball, start, _ = placed("ball", 0.0)
    _, later, turn = placed("ball", 0.2)
    way = later[0] - start[0]
    assert way == pytest.approx(0.2 * ball.velocity)
    assert np.radians(turn) * ball.size / 2 == pytest.approx(way)  # Arc and way are alike, clockwise to the right.


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
