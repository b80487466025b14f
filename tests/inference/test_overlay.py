"""Pictures of predictions."""

import numpy as np
import pytest

from vspw_jax.classes import vspw
from vspw_jax.inference import overlay
from vspw_jax.inference.overlay import Painter

CLASSES = vspw.classes()
PAINTER = Painter(CLASSES)


def test_colours_are_mixed_in_and_void_shows_the_frame():
    image = np.full((4, 6, 3), 100, np.uint8)
    label = np.repeat(np.array([[28, 60, 255]], np.uint8), 2, axis=1).repeat(4, axis=0)
    mixed = Painter(CLASSES, 0.6).overlay(image, label)
    palette = CLASSES.picture_palette.astype(float)
    np.testing.assert_array_equal(mixed[0, 0], (0.4 * 100 + 0.6 * palette[28]).round())
    np.testing.assert_array_equal(mixed[0, 2], (0.4 * 100 + 0.6 * palette[60]).round())
    np.testing.assert_array_equal(mixed[:, 4:], 100)
    np.testing.assert_array_equal(Painter(CLASSES, 0).overlay(image, label), image)


def test_a_line_stands_where_classes_meet():
    """Also between classes whose colours are nearly those of the frame: it is much darker, or much lighter."""
    label = np.zeros((8, 8), np.uint8)
    label[2:6, 2:6] = np.arange(16).reshape(4, 4)[1:2, 1:2] + 60
    for class_id in range(vspw.NUM_CLASSES):
        label[label != 255] = np.where(label[label != 255] == label[0, 0], class_id, (class_id + 1) % vspw.NUM_CLASSES)
        image = CLASSES.picture_palette[label]  # So that mixing changes nothing.
        seen = PAINTER.overlay(image, label).astype(int)
        lines = np.abs(seen - image).sum(axis=-1) > 0
        assert lines[2:6, 5].all() and lines[5, 2:6].all() and lines[1, 2:6].all() and lines[2:6, 1].all()
        assert lines.sum() == 15
        assert np.abs(seen - image)[lines].mean(axis=-1).min() > 50


def test_another_opacity_is_another_drawing():
    assert Painter(CLASSES, 0.5).identity() != Painter(CLASSES, 0.6).identity()


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((48, 64), (480, 640)),
        ((480, 854), (480, 854)),
        ((1080, 1920), (1080, 1920)),
        ((1, 2000), (3, 6000)),
        ((400, 12000), (256, 7680)),
        ((1, 40000), (1, 7680)),
        ((20000, 2), (7680, 1)),
    ],
)
def test_a_frame_of_any_size_can_be_drawn(size, drawn):
    assert overlay.drawn_size(*size, about=480) == drawn
    frame = overlay.scaled(np.zeros((*size, 3), np.uint8), 480)
    label = overlay.scaled(np.full(size, 7, np.uint8), 480)
    assert frame.shape[:2] == label.shape == drawn and (label == 7).all()
    film = PAINTER.beside(frame, frame, [7])
    assert max(film.shape) <= 16384 and film.shape[0] >= 10 * overlay.LINE_HEIGHT


def test_pictures_of_several_widths_stand_below_each_other():
    pictures = [np.zeros((4, width, 3), np.uint8) for width in (7, 9)]
    assert overlay.stacked(pictures).shape == (8, 9, 3)


def test_commonest_classes_come_first_and_void_never():
    label = np.array([5] * 3 + [9] * 5 + [255] * 9 + [0])
    assert overlay.commonest(label) == [9, 5, 0]
    assert overlay.commonest(label, most=2) == [9, 5]


def test_legend_shows_each_class_in_its_colour_as_far_as_it_fits():
    panel = PAINTER.legend([28, 60, 18], 2 * overlay.LINE_HEIGHT + 5)
    palette = CLASSES.picture_palette
    assert panel.shape == (2 * overlay.LINE_HEIGHT + 5, overlay.LEGEND_WIDTH, 3)
    shown = [(panel == palette[class_id]).all(axis=-1).any() for class_id in (28, 60, 18)]
    assert shown == [True, True, False]


def test_comparison_has_three_pictures_and_a_legend():
    image = np.zeros((40, 60, 3), np.uint8)
    label = np.zeros((40, 60), np.uint8)
    picture = PAINTER.comparison(image, label, label, height=80)
    assert picture.shape == (overlay.LEAST_HEIGHT, 3 * 120 + overlay.LEGEND_WIDTH, 3)
