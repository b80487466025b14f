"""Which frames make a clip."""

import numpy as np
import pytest

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
    assert clips.clip_records(VIDEO, first, frames, gap) == [100 + frame for frame in wanted]


def test_a_video_shorter_than_the_clip_repeats_its_last_frame():
    assert clips.clip_records(Video("v", 7, 3), 2, 4, 5) == [7, 8, 9, 9]
    assert clips.clip_records(Video("v", 7, 1), 0, 4, 1) == [7, 7, 7, 7]


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
