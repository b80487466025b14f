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


def choose_clip(videos, number, epoch, rng):
    """(video, first frame) of an epoch's element `number`.

    Args:
      epoch: "video" counts every video once an epoch, at a random frame (as paper 001 and sssegmentation's
        VSPWDataset); "frame" counts every frame once, as the start of a clip.
    """
    if epoch == "video":
        video = videos[number]
        return video, int(rng.integers(video.count))
    ends = np.cumsum([video.count for video in videos])
    video = videos[int(np.searchsorted(ends, number, side="right"))]
    return video, number - video.start


def epoch_length(videos, epoch):
    """Elements of an epoch; see `choose_clip`."""
    return len(videos) if epoch == "video" else sum(video.count for video in videos)
