"""Keeps the class scores of a split while it is evaluated."""

import collections
import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Array, PyTree, UInt8

from vspw_jax.data.records import Frames, Video
from vspw_jax.files import pictures
from vspw_jax.inference import scores
from vspw_jax.inference.predictor import Predictor, Result
from vspw_jax.inference.threads import WriteBehind
from vspw_jax.parallel import processes

THREADS = 2
"""How many write files."""


class Recorder:
    """A predictor that takes the frames of `videos` in order; their scores go to a `scores.Writer`."""

    def __init__(
        self, predictor: Predictor, frames: Frames, videos: Sequence[Video], store: scores.Writer, write: WriteBehind
    ) -> None:
        self.batch, self.remembers, self.options = predictor.batch, predictor.remembers, predictor.options
        self._predictor, self._store, self._write = predictor, store, write
        self._names = (
            (video.name, frames[number]["frame"])
            for video in videos
            for number in range(video.start, video.start + video.count)
        )

    def first_memory(self, height: int, width: int) -> PyTree[Array]:
        """See `Predictor.first_memory`."""
        return self._predictor.first_memory(height, width)

    def start(
        self,
        images: Sequence[UInt8[np.ndarray, "H W 3"]],
        memory: PyTree[Array] = (),
        masks: Sequence[UInt8[np.ndarray, "H W"]] | None = None,
    ) -> "Recorded":
        """As `Predictor.start`; the labels must be taken in the order of the frames."""
        given = (memory, *(() if masks is None else (masks,))) if self.remembers else ()
        return Recorded(self._predictor.start(images, *given), self.save)

    def save(self, compacts: list[scores.Compact]) -> None:
        """Stores the scores of the next frames."""
        for compact in compacts:
            name = next(self._names)
            self._store.enter(*name, compact.values.shape[:2])
            self._write(self._store.save, *name, compact)


class Recorded:
    """A `Result` whose scores are saved as its labels are taken."""

    def __init__(self, result: Result, save: Callable[[list[scores.Compact]], None]) -> None:
        self._result, self._save = result, save

    @property
    def memory(self) -> PyTree[Array]:
        """See `Result.memory`."""
        return self._result.memory

    def labels(self) -> UInt8[np.ndarray, "N H W"]:
        """Train ids."""
        self._save(self._result.scores())
        return self._result.labels()


def _needed(frames: Frames, num_classes: int, top: int) -> int:
    """Bytes of the scores of a split; all frames of a video have the size of its first."""
    total = 0
    for video in frames.videos:
        width, height = pictures.size(frames[video.start]["image_jpeg"])
        total += video.count * scores.frame_bytes(height, width, num_classes, top)
    return total


@contextlib.contextmanager
def recorded(
    predictor: Predictor, frames: Frames, videos: Sequence[Video], folder: pathlib.Path
) -> Iterator[Predictor | Recorder]:
    """Gives a predictor for `videos`, this process's of a split, in order; it leaves their scores in `folder`.

    Without `evaluate.save_scores` it is the predictor itself. UserError where the disk has no room.
    """
    if not predictor.options.save_scores:
        yield predictor
        return
    num_classes, top = predictor.num_classes, predictor.top_classes
    hint = "choose another --workdir=DIR"
    if jax.process_index() == 0:  # While it looks at a folder, no other process writes there.
        print(scores.check_room(folder, _needed(frames, num_classes, top), hint), flush=True)
    data = {"split": frames.split, "fingerprint": frames.fingerprint}
    store = scores.Writer(folder, {**predictor.identity(), **data}, num_classes, top)
    with WriteBehind(THREADS, 2 * predictor.batch) as write:
        yield Recorder(predictor, frames, videos, store, write)
    entered = collections.ChainMap(*processes.gathered(store.videos))
    if jax.process_index() == 0:
        store.videos = {video.name: entered[video.name] for video in frames.videos}
        store.close()
