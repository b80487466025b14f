"""Keeps the class scores of a split while it is evaluated."""

import collections
import contextlib
import io

import jax
from PIL import Image

from vspw_jax.inference import scores
from vspw_jax.inference.threads import WriteBehind
from vspw_jax.parallel import processes

THREADS = 2
"""That write files."""


class _Recorder:
    """A predictor whose frames are those of videos, in order; what it scores goes to a `scores.Writer`."""

    def __init__(self, predictor, frames, videos, store, write):
        self.batch = predictor.batch
        self._predictor, self._store, self._write = predictor, store, write
        self._names = (
            (video.name, frames[number]["frame"])
            for video in videos
            for number in range(video.start, video.start + video.count)
        )

    def start(self, images):
        """As `Predictor.start`; the labels must be taken in the order of the frames."""
        return _Recorded(self._predictor.start(images), self.save)

    def save(self, compacts):
        """Stores the scores of the next frames."""
        for compact in compacts:
            name = next(self._names)
            self._store.enter(*name, compact.values.shape[:2])
            self._write(self._store.save, *name, compact)


class _Recorded:
    """A `Result` whose scores are saved as its labels are taken."""

    def __init__(self, result, save):
        self._result, self._save = result, save

    def labels(self):
        """Train ids (N, H, W) uint8."""
        self._save(self._result.scores())
        return self._result.labels()


def _needed(frames, num_classes, top):
    """Bytes of the scores of a split; a video's frames are of the size of its first."""
    total = 0
    for video in frames.videos:
        width, height = Image.open(io.BytesIO(frames[video.start]["image_jpeg"])).size
        total += video.count * scores.frame_bytes(height, width, num_classes, top)
    return total


@contextlib.contextmanager
def recorded(predictor, frames, videos, folder):
    """Gives a predictor for this process's videos of a split, in order, that leaves their scores in `folder`.

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
        yield _Recorder(predictor, frames, videos, store, write)
    entered = collections.ChainMap(*processes.gathered(store.videos))
    if jax.process_index() == 0:
        store.videos = {video.name: entered[video.name] for video in frames.videos}
        store.close()
