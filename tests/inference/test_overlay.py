"""Pictures of predictions."""

import numpy as np

from vspw_jax.classes import vspw
from vspw_jax.inference import overlay


def test_colours_are_mixed_in_and_void_shows_the_frame():
    image = np.full((2, 2, 3), 100, np.uint8)
    label = np.array([[28, 28], [60, 255]], np.uint8)
    mixed = overlay.overlay(image, label, opacity=0.6)
    palette = vspw.picture_colours().astype(float)
    np.testing.assert_array_equal(mixed[0, 0], (0.4 * 100 + 0.6 * palette[28]).round())
    np.testing.assert_array_equal(mixed[1, 0], (0.4 * 100 + 0.6 * palette[60]).round())
    np.testing.assert_array_equal(mixed[1, 1], [100, 100, 100])


def test_commonest_classes_come_first_and_void_never():
    label = np.array([5] * 3 + [9] * 5 + [255] * 9 + [0])
    assert overlay.commonest(label) == [9, 5, 0]
    assert overlay.commonest(label, most=2) == [9, 5]


def test_legend_shows_each_class_in_its_colour_as_far_as_it_fits():
    panel = overlay.legend([28, 60, 18], 2 * overlay.LINE_HEIGHT + 5)
    palette = vspw.picture_colours()
    assert panel.shape == (2 * overlay.LINE_HEIGHT + 5, overlay.LEGEND_WIDTH, 3)
    shown = [(panel == palette[class_id]).all(axis=-1).any() for class_id in (28, 60, 18)]
    assert shown == [True, True, False]


def test_comparison_has_three_pictures_and_a_legend():
    image = np.zeros((40, 60, 3), np.uint8)
    label = np.zeros((40, 60), np.uint8)
    picture = overlay.comparison(image, label, label, height=80)
    assert picture.shape == (80, 3 * 120 + overlay.LEGEND_WIDTH, 3)
