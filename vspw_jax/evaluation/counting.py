"""Takes every frame of a stream of predicted videos, with or without counting it, and shows progress."""

from collections.abc import Callable, Iterable

from vspw_jax.console.progress import progress
from vspw_jax.evaluation.predicted_videos import PredictedVideo
from vspw_jax.metrics.counts import VideoCounts, VideoMeter
from vspw_jax.metrics.temporal_consistency import Flow

Done = Callable[[str, VideoCounts | None], None]
"""Function of a video's name and its counts, None where it has no masks; called when all of it was predicted."""


def count_videos(
    videos: Iterable[PredictedVideo],
    num_classes: int,
    total: int,
    flow_of: Callable[[str], Flow | None],
    done: Done = lambda *_: None,
) -> list[VideoCounts]:
    """The counts of videos, in one pass over them.

    Args:
      num_classes: of the network.
      total: frames of all videos.
      flow_of: see `temporal_consistency.flow_of_first`.
    """
    counts = []
    bar = progress(description="evaluating", unit="frame", total=total)
    for video, frames in videos:
        meter = VideoMeter(video, num_classes, flow_of(video))
        for frame in frames:
            meter.add(*frame)
            bar.update()
        counts.append(meter.counts())
        done(video, counts[-1])
    bar.close()
    return counts


def run_through(videos: Iterable[PredictedVideo], total: int, done: Done = lambda *_: None) -> None:
    """Takes the frames of videos that have no masks, so that nothing can be counted."""
    bar = progress(description="predicting", unit="frame", total=total)
    for video, frames in videos:
        for _ in frames:
            bar.update()
        done(video, None)
    bar.close()
