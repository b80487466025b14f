"""Which frames keep their labels."""

import numpy as np
import pytest

from configs import nce
from vspw_jax.console.errors import UserError
from vspw_jax.data import labelled_frames

INDEX = (("a", 8), ("b", 1), ("c", 40))
ALL_N = np.ones(49, bool)


def kept(rule, seed=0, index=INDEX, has_mask_N=ALL_N):
    return np.flatnonzero(labelled_frames.labelled(rule, seed, index, has_mask_N)).tolist()


@pytest.mark.parametrize(("rule", "wanted"), [("all", [*range(49)]), ("first", [0, 8, 9]), ("middle", [4, 8, 29])])
def test_a_rule_keeps_certain_frames_of_each_video(rule, wanted):
    assert kept(rule) == wanted


def test_what_is_drawn_depends_on_the_seed_and_the_videos_name_alone():
    drawn = kept("drawn")
    assert [np.searchsorted([8, 9], frame, side="right") for frame in drawn] == [0, 1, 2]
    assert [frame - 9 for frame in drawn[2:]] == kept("drawn", index=(("c", 40),), has_mask_N=np.ones(40, bool))
    assert len({kept("drawn", seed)[2] for seed in range(20)}) > 10
    assert kept("drawn", index=(("d", 8), *INDEX[1:])) != drawn


def test_a_share_is_of_each_video_and_a_larger_one_keeps_the_frames_of_a_smaller():
    quarter, half = kept("0.25"), kept("0.5")
    assert [sum(first <= frame < end for frame in quarter) for first, end in ((0, 8), (8, 9), (9, 49))] == [2, 1, 10]
    assert len(half) == 4 + 1 + 20 and set(kept("drawn")) < set(quarter) < set(half)


def test_a_frame_without_a_mask_is_never_labelled():
    has_mask_N = ALL_N.copy()
    has_mask_N[[0, 1, 8]] = False
    assert kept("first", has_mask_N=has_mask_N) == [2, 9]
    assert kept("all", has_mask_N=has_mask_N) == [*range(2, 8), *range(9, 49)]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (dict(labelled_frames="last"), "is 'last': expected one of all, drawn, first, middle, or a share"),
        (dict(labelled_frames="1.5"), "is '1.5': expected one of all"),
        (dict(labelled_frames="nan"), "is 'nan': expected one of all"),
        (
            dict(labelled_frames="first", min_mapped=0.5),
            "data.min_mapped is 0.5, which leaves frames out by their label",
        ),
        (dict(labelled_frames="first", frames=3, frame_gap=2), "3 frames 2 apart .* Set --config.data.chosen=last"),
    ],
)
def test_what_keeps_no_labels_is_refused(fields, says):
    config = nce.get_config("demo").data
    config.update(fields)
    with pytest.raises(UserError, match=says):
        labelled_frames.check(config)
