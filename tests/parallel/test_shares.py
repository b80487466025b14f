"""Which videos each of several processes takes."""

from vspw_jax.data import records
from vspw_jax.inference.sources import Source
from vspw_jax.parallel import shares


def loads_of(videos, count):
    """Frames of each share, of shares that hold every video once and in its order."""
    each = [shares.share(videos, count, process) for process in range(count)]
    assert sorted(video.name for own in each for video in own) == sorted(video.name for video in videos)
    assert all([videos.index(video) for video in own] == sorted(map(videos.index, own)) for own in each)
    return [sum(video.count or 0 for video in own) for own in each]


def test_shares_are_even_and_hold_every_video_once():
    videos = [records.Video(f"v{n}", 0, count) for n, count in enumerate((3, 30, 5, 5, 20, 9, 1))]
    for count, most in {1: 73, 2: 37, 3: 30, 9: 30}.items():
        assert max(loads_of(videos, count)) == most


def test_videos_whose_frames_are_not_counted_are_shared_too():
    video = lambda name, count: Source(name, lambda: iter(()), count, name)
    assert loads_of([video(f"v{n}", None) for n in range(4)], 4) == [0] * 4
    assert all(len(shares.share([video(f"v{n}", None) for n in range(4)], 4, process)) == 1 for process in range(4))
    mixed = [video("a", 10), video("b", None), video("c", 10), video("d", 10)]
    assert sorted(loads_of(mixed, 2)) == [10, 20]
    assert loads_of([], 2) == [0, 0]
