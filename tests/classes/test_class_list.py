"""Classes: their names, their colours, and what is no list of classes."""

import numpy as np
import pytest

from vspw_jax.classes import class_list, unnamed, vspw
from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError

RED = (255, 0, 0)


def test_arrays_have_a_row_for_each_value_of_a_label():
    classes = ClassList(("a", "b"), (RED, (1, 2, 3)), ((4, 5, 6), (7, 8, 9)))
    assert classes.picture_palette.shape == classes.palette.shape == (256, 3)
    assert classes.palette[:2].tolist() == [[4, 5, 6], [7, 8, 9]] and not classes.palette[2:].any()
    assert [classes.name(number) for number in (0, 1, 2)] == ["a", "b", "class 2"]
    assert ClassList.from_json(classes.to_json()) == classes


@pytest.mark.parametrize(
    ("names", "colours", "message"),
    [
        ((), (), "There are 0 classes: expected 1 to 255"),
        (("a", "a"), (RED, RED), "Two classes are called 'a'"),
        (("a", "b"), (RED,), "2 classes have 1 colours, 2 in files"),
    ],
)
def test_what_is_no_list_is_refused(names, colours, message):
    with pytest.raises(UserError, match=message):
        ClassList(names, colours, ((0, 0, 0),) * len(names))


def test_colours_that_are_not_stated_are_far_from_those_that_are():
    classes = class_list.coloured(["a", "b", "c"], {"b": RED})
    assert classes.colours[1] == RED and len(set(classes.colours)) == 3
    assert classes.file_colours == classes.colours
    assert min(np.abs(np.subtract(classes.colours[n], RED)).max() for n in (0, 2)) > 60


def test_names_that_stand_twice_are_told_apart():
    assert class_list.told_apart(["screen", "door", "screen", "screen"]) == [
        "screen",
        "door",
        "screen (2)",
        "screen (3)",
    ]


def test_every_known_number_of_classes_has_names():
    for number in (*unnamed.BY_NUMBER, vspw.NUM_CLASSES, 7):
        assert len(unnamed.by_number(number)[0]) == number


def test_a_network_is_scored_on_its_own_classes_alone():
    own = class_list.coloured(["road", "car"])
    class_list.check_same(own, own, "data")
    with pytest.raises(UserError, match=r"The network tells apart 2 classes \(road, car\), data has 124 others"):
        class_list.check_same(own, vspw.classes(), "data")
