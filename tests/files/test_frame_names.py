"""Frames come in the order in which people count; names that leave it open are refused or said."""

import random

import pytest

from vspw_jax.console.errors import UserError
from vspw_jax.files import frame_names

IN_ORDER = [
    ["1", "2", "10", "100"],
    ["frame_9999", "frame_10000"],
    ["0", "00000001", "2"],
    ["shot1_2", "shot1_10", "shot2_1", "shot10_1"],
    ["a", "a0", "a1", "ab", "b"],
    ["1.5", "1.25"],
    [f"{number:05d}" for number in range(50)],
    ["9" * 200, "1" + "0" * 200],
]


@pytest.mark.parametrize("names", IN_ORDER)
def test_numbers_are_counted(names):
    mixed = random.Random(0).sample(names, len(names))
    assert frame_names.in_order(mixed, "v") == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1", "01"], "Several frames of v have the same number: .*1.* and .*1"),
        (["f_7", "f_007", "f_8"], "have the same number"),
        (["x" * 241], "x{60}... of a frame of v has 241 bytes, 240 are allowed"),
        (["ä" * 121], "has 242 bytes"),
        (["a\udcff"], r"'a\\udcff' of a frame of 'v' is not UTF-8"),
    ],
)
def test_names_that_cannot_be_used_are_refused(names, message):
    with pytest.raises(UserError, match=message):
        frame_names.in_order(names, "v")


def test_names_of_videos_that_cannot_be_used_are_refused():
    frame_names.check_video("ä" * 120, "--input")
    with pytest.raises(UserError, match=r"ä{60}... of a video of clips has 242 bytes, 240 are allowed. Rename it."):
        frame_names.check_video("ä" * 121, "clips")
    with pytest.raises(UserError, match=r"'a\\udcff' of a video of 'clips' is not UTF-8. Rename it."):
        frame_names.check_video("a\udcff", "clips")


def test_files_of_one_name_are_refused():
    assert frame_names.by_stem(["a/2.jpg", "a/1.png"], "a") == {"2": "a/2.jpg", "1": "a/1.png"}
    with pytest.raises(UserError, match="Several frames of a are called 1: 1.jpg and 1.png. Rename"):
        frame_names.by_stem(["a/1.png", "a/1.jpg"], "a")


def test_several_kinds_of_names_are_said():
    assert frame_names.open_order([("v", ["1", "2", "10"]), ("w", ["a_1", "a_2"]), ("x", ["only"])]) == ""
    said = frame_names.open_order([("v", ["1", "2"]), ("w", ["frame_1", "frame_2", "take_1"])])
    assert "of several kinds: w (frame_#, take_#; first frame_1, last take_1)" in said


@pytest.mark.parametrize("names", [["1.5", "1.25", "1.75"], ["t_0,9.a", "t_0,10.a"], ["9.9s", "10.5s", "10.10s"]])
def test_decimals_of_several_lengths_are_said(names):
    ordered = frame_names.in_order(names, "v")
    said = frame_names.open_order([("v", ordered), ("w", ["1", "2"])])
    assert f"decimals are of several lengths: v (first {ordered[0]}, last {ordered[-1]})." in said
    assert "several kinds" not in said


@pytest.mark.parametrize(
    "names",
    [
        ["1.25", "1.50", "1.75", "10.00"],
        ["1.5", "2.25", "3.125"],  # The order is the same.
        ["2024.1.9", "2024.1.10", "2024.12.9", "2024.12.10"],  # A date or an address has no decimals.
        ["clip.9", "clip.10"],
        ["v2-9", "v2-10"],
    ],
)
def test_numbers_that_are_no_decimals_or_whose_order_is_sure_are_not_said(names):
    assert frame_names.in_order(names, "v") == names and frame_names.open_order([("v", names)]) == ""
