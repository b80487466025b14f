"""What is drawn is held to its VERSION: how many pixels each class has, and in which mean colour, by scene.

Versions of OpenCV round differently: a few pixels at edges, fractions of a grey level in a mean.
"""

import json
import pathlib

import numpy as np
import pytest

from data_prep import generate
from data_prep.drawing import scenes

GOLDEN = pathlib.Path(__file__).with_name("golden_drawing.json")
DRAWINGS = {"typical": ("typical", "none"), "shared": ("shared", "none"), "disturbed": ("typical", "drawn")}
PIXELS, SHARE, LEVELS = 10, 0.02, 1.0
"""By how much a class may differ: in pixels, or this share of them, and in each channel of its mean colour."""


def statistics(images, labels):
    """(pixels, red, green, blue) by class."""
    return {
        str(label): [int((labels == label).sum()), *images[labels == label].mean(axis=0).round(2).tolist()]
        for label in np.unique(labels)
    }


def drawn():
    return {
        f"{kind}, {scene}": statistics(*scenes.clip(0, number, 4, 48, 64, *options))
        for kind, options in DRAWINGS.items()
        for number, scene in enumerate(scenes.BANDS)
    }


def alike(found, kept):
    """Whether two statistics of one drawing differ by no more than rounding; a class of a few pixels may be missing."""
    for label in found.keys() | kept.keys():
        (count, *colour), (expected, *mean) = (one.get(label, [0, 0, 0, 0]) for one in (found, kept))
        if abs(count - expected) > max(PIXELS, SHARE * expected):
            return False
        if min(count, expected) > 10 * PIXELS and np.abs(np.subtract(colour, mean)).max() > LEVELS:
            return False
    return True


def check(found, write):
    kept = json.loads(GOLDEN.read_text())
    if kept["version"] == generate.VERSION:
        if other := [name for name in found if not alike(found[name], kept["drawings"].get(name, {}))]:
            pytest.fail(
                f"The drawing has other pixels ({'; '.join(other)}), and the same version: raise VERSION in "
                "data_prep/generate.py, so that what was drawn before is not mixed with it. Then write these numbers "
                f"anew:\n  python -m pytest -n0 {__file__} --write-golden"
            )
    elif write:
        GOLDEN.write_text(json.dumps({"version": generate.VERSION, "drawings": found}, indent=1) + "\n")
    else:
        pytest.fail(f"VERSION was raised. Write its numbers:\n  python -m pytest -n0 {__file__} --write-golden")


def test_the_same_version_draws_the_same(request):
    check(drawn(), request.config.getoption("write_golden"))


def test_another_drawing_must_raise_the_version():
    """The texture of one class changes its colour by 2 levels, or one is shifted by a pixel."""
    name = f"typical, {next(iter(scenes.BANDS))}"
    kept = drawn()
    images, labels = scenes.clip(0, 0, 4, 48, 64)
    brighter = np.where((labels == labels[0, 0, 0])[..., None], images + 2.0, images)
    for other in (statistics(brighter, labels), statistics(images, np.roll(labels, 1, axis=1))):
        with pytest.raises(pytest.fail.Exception, match=f"other pixels \\({name}\\)(.|\n)*raise VERSION"):
            check({**kept, name: other}, write=False)
    one_pixel = labels.copy()
    one_pixel[0, 0, 0] = labels[-1, -1, -1]
    check({**kept, name: statistics(images, one_pixel)}, write=False)
