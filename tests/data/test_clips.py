"""Which frames make a clip."""

import numpy as np
import pytest

from configs import multi_dataset, nce
from vspw_jax.console.errors import UserError
from vspw_jax.data import clips
from vspw_jax.data.records import Video

VIDEO = Video("v", start=100, count=10)


@pytest.mark.parametrize(
    ("first", "frames", "gap", "wanted"),
    [
        (3, 1, 1, [3]),
        (3, 2, 1, [3, 4]),
        (3, 2, 4, [3, 7]),
        (1, 4, 2, [1, 3, 5, 7]),
        (9, 2, 1, [8, 9]),
        (9, 4, 3, [0, 3, 6, 9]),
        (5, 4, 7, [0, 3, 6, 9]),
    ],
    ids=["one", "two", "gap", "four", "drawn back", "all of it", "gap shrinks"],
)
def test_frames_lie_in_order_within_the_video(first, frames, gap, wanted):
    assert clips.Layout(frames, gap).records(VIDEO, first, None) == [100 + frame for frame in wanted]


def test_a_video_shorter_than_the_clip_repeats_its_last_frame():
    assert clips.Layout(4, 5).records(Video("v", 7, 3), 2, None) == [7, 8, 9, 9]
    assert clips.Layout(4, 1).records(Video("v", 7, 1), 0, None) == [7, 7, 7, 7]


@pytest.mark.parametrize(
    ("last", "frames", "gap", "wanted"),
    [(9, 1, 1, [9]), (5, 3, 2, [1, 3, 5]), (3, 4, 2, [0, 0, 1, 3]), (0, 3, 1, [0, 0, 0])],
    ids=["one", "gap", "start", "first"],
)
def test_a_clip_up_to_the_chosen_frame_repeats_the_first(last, frames, gap, wanted):
    layout = clips.Layout(frames, gap, chosen="last")
    assert layout.records(VIDEO, last, None) == [100 + frame for frame in wanted]


def test_a_reference_is_as_far_away_as_is_asked_on_either_side():
    layout, rng = clips.Layout(3, chosen="last", reference_distance=(3, 4)), np.random.default_rng(0)
    drawn = [layout.records(VIDEO, 4, rng) for _ in range(100)]
    assert {reference for reference, *_ in drawn} == {100, 101, 107, 108}
    assert {tuple(others) for _, *others in drawn} == {(103, 104)}


@pytest.mark.parametrize(("frame", "reference"), [(2, 9), (8, 0)])
def test_where_no_frame_is_so_far_away_the_farthest_is_the_reference(frame, reference):
    layout = clips.Layout(2, reference_distance=(30, 60))
    assert layout.records(VIDEO, frame, np.random.default_rng(0)) == [100 + reference, 100 + frame]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (dict(chosen="middle"), "data.chosen is 'middle'"),
        (dict(reference_distance=(5,)), r"is \(5,\): expected the least and the most"),
        (dict(reference_distance=(6, 5)), "expected the least and the most"),
        (dict(reference_distance=(5, 6), frames=1), "data.frames of at least 2"),
    ],
)
def test_what_makes_no_clip_is_refused(fields, says):
    config = nce.get_config("demo").data
    config.update(fields)
    with pytest.raises(UserError, match=says):
        clips.check(config)


def test_an_unknown_epoch_of_a_member_is_refused():
    config = multi_dataset.get_config("demo").data
    clips.check(config)
    config.mixture.coco_stuff.epoch = "day"
    with pytest.raises(UserError, match="data.mixture.coco_stuff.epoch is 'day': expected one of frame, video"):
        clips.check(config)


VIDEOS = (Video("a", 0, 3), Video("b", 3, 1), Video("c", 4, 6))


FILTERED = (Video("a", 0, 3), Video("b", 8, 1), Video("c", 20, 6))
"""Record numbers with holes: frames between them are left out."""


@pytest.mark.parametrize(("videos", "numbers"), [(VIDEOS, [*range(10)]), (FILTERED, [0, 1, 2, 8, *range(20, 26)])])
def test_a_frame_epoch_has_every_frame_once(videos, numbers):
    epoch = clips.FrameEpoch(videos)
    chosen = [epoch.choose(number, None) for number in range(len(epoch))]
    assert [video.start + first for video, first in chosen] == numbers


def test_a_video_epoch_has_every_video_once_at_any_frame():
    epoch, rng = clips.VideoEpoch(VIDEOS), np.random.default_rng(0)
    assert len(epoch) == 3
    firsts = {epoch.choose(2, rng)[1] for _ in range(200)}
    assert epoch.choose(1, rng) == (VIDEOS[1], 0)
    assert firsts == set(range(6))
