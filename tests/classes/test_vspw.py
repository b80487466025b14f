"""Colours of classes in pictures."""

import numpy as np
import pytest

from data_prep.drawing import scenes
from vspw_jax.classes import colours, vspw

COMMON = (
    *("sky", "grass", "road", "tree", "wall", "floor", "person"),
    *("sea", "sand", "mountain", "building", "car", "ceiling", "water"),
)


def test_classes_of_a_scene_are_told_apart():
    """Those of the drawn videos, which the demo shows, may be rare in the world."""
    for names, moving in zip(scenes.BANDS.values(), scenes.OBJECTS.values(), strict=True):
        together = [vspw.classes().names.index(name) for name in (*names, *moving) if name != "unnamed"]
        assert nearest(vspw.classes().picture_palette[together]) > 30


def test_commonest_classes_differ_most_and_every_class_has_its_own_colour():
    """In CIELAB, by the formulas of CIE 15; VSPW's palette: 6 between the commonest, 0 between all."""
    ids = [vspw.classes().names.index(name) for name in COMMON]
    assert nearest(vspw.classes().palette[ids]) < 6
    assert nearest(vspw.classes().picture_palette[ids]) > 35
    assert nearest(vspw.classes().picture_palette[: vspw.NUM_CLASSES]) > 16
    assert not vspw.classes().picture_palette[vspw.NUM_CLASSES :].any()


def nearest(colours):
    """The smallest distance between two colours."""
    linear = np.where(colours <= 0.04045 * 255, colours / 255 / 12.92, ((colours / 255 + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    x, y, z = np.cbrt(xyz / [0.9505, 1, 1.089]).T
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
    return np.linalg.norm(lab[:, None] - lab, axis=-1)[~np.eye(len(lab), dtype=bool)].min()


@pytest.mark.parametrize("count", [1, 2, 19, 255])
def test_colours_for_any_number_of_classes(count):
    found = colours.spread(count, [(120, 205, 255)])
    assert found.shape == (count, 3) and len(np.unique(found, axis=0)) == count
    np.testing.assert_array_equal(found[:2], colours.spread(2, [(120, 205, 255)])[:count])
