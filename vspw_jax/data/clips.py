"""Which frames make a clip."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, choose
from vspw_jax.data.records import Video

CHOSEN = ("first", "last")
"""Which frame of a clip it is that an epoch chooses."""


def _from_first(video: Video, first: int, num_frames: int, gap: int) -> list[int]:
    """Frames from `first` on. If the clip would end beyond the video, `first` becomes smaller. If the video is too
    short for the gap, the gap becomes smaller. If it has fewer frames than the clip, the last one repeats."""
    if num_frames > 1:
        gap = min(gap, max((video.count - 1) // (num_frames - 1), 1))
    first = max(min(first, video.count - 1 - (num_frames - 1) * gap), 0)
    return np.minimum(first + gap * np.arange(num_frames), video.count - 1).tolist()


def _to_last(video: Video, last: int, num_frames: int, gap: int) -> list[int]:
    """Frames up to `last`. Before the video's first frame that one repeats, as a network sees it at inference."""
    return np.maximum(last - gap * np.arange(num_frames)[::-1], 0).tolist()


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a clip lies around the frame that an epoch chooses.

    Attributes:
      num_frames: of a clip, a reference frame included.
      gap: records from one frame to the next.
      chosen: one of CHOSEN.
      reference_distance: where it is (least, most), the clip's first frame is a reference, drawn from the frames of
        the video that are so far away from the chosen one, before or after it. Of a video that has none it is the
        first or the last frame, whichever is farther. () is a clip without a reference.
    """

    num_frames: int
    gap: int = 1
    chosen: str = "first"
    reference_distance: tuple[int, ...] = ()

    def records(self, video: Video, frame: int, rng: np.random.Generator) -> list[int]:
        """Record numbers of a clip of `video` for which `frame` of it was chosen."""
        has_reference = bool(self.reference_distance) and self.num_frames > 1
        reference = [self._reference(video, frame, rng)] if has_reference else []
        others = _from_first if self.chosen == "first" else _to_last
        frames = reference + others(video, frame, self.num_frames - len(reference), self.gap)
        return [video.start + number for number in frames]

    def _reference(self, video: Video, frame: int, rng: np.random.Generator) -> int:
        least, most = self.reference_distance
        distance = np.abs(np.arange(video.count) - frame)
        (near_enough,) = np.nonzero((least <= distance) & (distance <= most))
        return int(rng.choice(near_enough)) if len(near_enough) else int(distance.argmax())


def layout(config: ConfigDict, num_frames: int, gap: int) -> Layout:
    """The layout of clips of `num_frames`; `config` is `config.data`, as `check` lets it pass."""
    return Layout(num_frames, gap, config.chosen, tuple(config.reference_distance))


def check(config: ConfigDict) -> None:
    """Raises UserError where `config.data` makes no clips."""
    choose(dict.fromkeys(CHOSEN), config.chosen, "data.chosen")
    choose(EPOCHS, config.epoch, "data.epoch")
    for name, member in config.mixture.items():
        choose(EPOCHS, member.epoch, f"data.mixture.{name}.epoch")
    distance = tuple(config.reference_distance)
    if distance and (len(distance) != 2 or distance[0] > distance[1]):
        raise UserError(
            f"data.reference_distance is {distance}: expected the least and the most number of frames, such as "
            "--config.data.reference_distance='(10, 60)', or () for clips without a reference frame."
        )
    if distance and config.frames < 2:
        raise UserError(
            f"data.reference_distance is {distance}, but a clip has {config.frames} frame, of which the reference "
            "would be one: expected data.frames of at least 2. Set --config.data.frames=2 or more."
        )


Eligible = Bool[np.ndarray, " N"]
"""Which of a split's records an epoch may choose."""


def _with_frames(
    videos: Sequence[Video], eligible_N: Eligible | None
) -> list[tuple[Video, range | Int[np.ndarray, " n"]]]:
    """The videos that have eligible frames (default: all are), each with these frames' places in it."""
    if eligible_N is None:
        return [(video, range(video.count)) for video in videos]
    found = [(video, np.flatnonzero(eligible_N[video.start : video.start + video.count])) for video in videos]
    return [(video, frames) for video, frames in found if len(frames)]


class VideoEpoch:
    """Every video once, a random frame of it (as paper 001 and sssegmentation's VSPWDataset count)."""

    def __init__(self, videos: Sequence[Video], eligible_N: Eligible | None = None) -> None:
        self._videos = _with_frames(videos, eligible_N)

    def __len__(self) -> int:
        return len(self._videos)

    def choose(self, number: int, rng: np.random.Generator) -> tuple[Video, int]:
        """(video, frame of it) of the epoch's element `number`."""
        video, frames = self._videos[number]
        return video, int(frames[rng.integers(len(frames))])


class FrameEpoch:
    """Every frame once."""

    def __init__(self, videos: Sequence[Video], eligible_N: Eligible | None = None) -> None:
        self._videos = _with_frames(videos, eligible_N)
        self._ends = np.cumsum([len(frames) for _, frames in self._videos])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def choose(self, number: int, rng: np.random.Generator) -> tuple[Video, int]:
        """(video, frame of it) of the epoch's element `number`."""
        index = int(np.searchsorted(self._ends, number, side="right"))
        video, frames = self._videos[index]
        return video, int(frames[int(number - self._ends[index]) + len(frames)])


EPOCHS: dict[str, type[VideoEpoch] | type[FrameEpoch]] = {"video": VideoEpoch, "frame": FrameEpoch}
"""How an epoch is counted, by its name in a config."""
