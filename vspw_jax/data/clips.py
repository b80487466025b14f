"""Which frames make a clip."""

from collections.abc import Sequence

import numpy as np

from vspw_jax.data.records import Video


def clip_records(video: Video, first: int, num_frames: int, gap: int) -> list[int]:
    """Record numbers of a clip: `num_frames` frames, `gap` apart, from frame `first` of the video.

    If the clip would end beyond the video, `first` becomes smaller. If the video is too short for the gap, the gap
    becomes smaller. If the video has fewer frames than the clip, the last frame repeats.
    """
    if num_frames > 1:
        gap = min(gap, max((video.count - 1) // (num_frames - 1), 1))
    first = max(min(first, video.count - 1 - (num_frames - 1) * gap), 0)
    frames = np.minimum(first + gap * np.arange(num_frames), video.count - 1)
    return (video.start + frames).tolist()


class VideoEpoch:
    """Every video once, at a random frame (as paper 001 and sssegmentation's VSPWDataset count)."""

    def __init__(self, videos: Sequence[Video]) -> None:
        self._videos = videos

    def __len__(self) -> int:
        return len(self._videos)

    def choose(self, number: int, rng: np.random.Generator) -> tuple[Video, int]:
        """(video, first frame) of the epoch's element `number`."""
        video = self._videos[number]
        return video, int(rng.integers(video.count))


class FrameEpoch:
    """Every frame once, as the start of a clip."""

    def __init__(self, videos: Sequence[Video]) -> None:
        self._videos, self._ends = videos, np.cumsum([video.count for video in videos])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def choose(self, number: int, rng: np.random.Generator) -> tuple[Video, int]:
        """(video, first frame) of the epoch's element `number`."""
        index = int(np.searchsorted(self._ends, number, side="right"))
        video = self._videos[index]
        return video, int(number - self._ends[index] + video.count)


EPOCHS: dict[str, type[VideoEpoch] | type[FrameEpoch]] = {"video": VideoEpoch, "frame": FrameEpoch}
"""How an epoch is counted, by its name in a config."""
