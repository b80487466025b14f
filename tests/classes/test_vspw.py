"""Colours of classes in pictures."""

import colorsys

import numpy as np

from data_prep.drawing import scenes
from vspw_jax.classes import vspw


def test_classes_of_a_scene_are_told_apart():
    """Far apart in colour, which VSPW's own are not: its sky and grass differ by 10."""
    ids = {name: vspw.names().index(name) for name in scenes.CLASSES}
    colours, own = vspw.picture_colours().astype(int), vspw.palette().astype(int)
    distance = lambda table, one, other: np.abs(table[ids[one]] - table[ids[other]]).max()
    assert distance(own, "sky", "grass") <= 10
    for names, moving in zip(scenes.BANDS.values(), scenes.OBJECTS.values(), strict=True):
        together = [name for name in (*names, *moving) if name != "unnamed"]
        for number, one in enumerate(together):
            for other in together[:number]:
                assert distance(colours, one, other) > 75, (one, other)


def test_the_colours_are_those_of_their_hue_saturation_and_value():
    hues = [(30 + number * 315.5) % 360 / 360 for number in range(vspw.NUM_CLASSES)]
    depths = [(0.85, 0.95), (0.5, 0.85), (0.95, 0.6)]
    expected = [colorsys.hsv_to_rgb(hue, *depths[number % 3]) for number, hue in enumerate(hues)]
    np.testing.assert_allclose(vspw.picture_colours()[: vspw.NUM_CLASSES], np.multiply(expected, 255), atol=0.51)
    assert not vspw.picture_colours()[vspw.NUM_CLASSES :].any()
