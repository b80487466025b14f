"""Which frames make a clip."""

import numpy as np


def clip_records(video, first, num_frames, gap):
    """Record numbers of a clip: `num_frames` frames, `gap` apart, from frame `first` of the video.

    `first` is drawn back so that the clip ends within the video; in a video too short for the gap the gap
    shrinks, and in one with fewer frames than the clip the last frame repeats.
    """
    if num_frames > 1:
        gap = min(gap, max((video.count - 1) // (num_frames - 1), 1))
    first = max(min(first, video.count - 1 - (num_frames - 1) * gap), 0)
    frames = np.minimum(first + gap * np.arange(num_frames), video.count - 1)
    return (video.start + frames).tolist()


class VideoEpoch:
    """Every video once, at a random frame (as paper 001 and sssegmentation's VSPWDataset count)."""

    def __init__(self, videos):
        self._videos = videos

    def __len__(self):
        return len(self._videos)

    def choose(self, number, rng):
        """(video, first frame) of the epoch's element `number`."""
        video = self._videos[number]
        return video, int(rng.integers(video.count))


class FrameEpoch:
    """Every frame once, as the start of a clip."""

    def __init__(self, videos):
        self._videos, self._ends = videos, np.cumsum([video.count for video in videos])

    def __len__(self):
        return int(self._ends[-1])

    def choose(self, number, rng):
        """(video, first frame) of the epoch's element `number`."""
        index = int(np.searchsorted(self._ends, number, side="right"))
        video = self._videos[index]
        return video, int(number - self._ends[index] + video.count)


EPOCHS = {"video": VideoEpoch, "frame": FrameEpoch}
"""How an epoch is counted, by its name in a config."""
