"""Which of some videos each of several processes takes: a video's frames stay together, and in their order."""

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Counted(Protocol):
    """A video; its number of frames is None where that is not known beforehand."""

    @property
    def count(self) -> int | None:
        """Frames."""


Video = TypeVar("Video", bound=Counted)


def share(videos: Sequence[Video], count: int, number: int) -> tuple[Video, ...]:
    """Share `number` of `count` shares of videos, in their order.

    Each video is in one share; all shares have about as many frames. A video whose frames are not counted is taken to
    have as many as the longest.
    """
    longest = max((video.count or 0 for video in videos), default=0) or 1
    frames = [longest if video.count is None else video.count for video in videos]
    load = [0] * count
    shares: list[list[int]] = [[] for _ in range(count)]
    for place in sorted(range(len(videos)), key=lambda place: -frames[place]):
        least = load.index(min(load))
        load[least] += frames[place]
        shares[least].append(place)
    return tuple(videos[place] for place in sorted(shares[number]))
