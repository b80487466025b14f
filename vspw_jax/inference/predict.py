"""Predicts a video: masks, overlays with a legend, videos of them; goes on where an earlier run was stopped.

Frames are read ahead in a thread, a batch is always begun before the one before it is taken from the devices, and
pictures are drawn and written in threads behind; see `threads.py`.
"""

import contextlib
import dataclasses
import itertools

import numpy as np
from PIL import Image

from vspw_jax.console.progress import progress
from vspw_jax.files import mask_png
from vspw_jax.files.whole_files import whole_file
from vspw_jax.inference import overlay, scores
from vspw_jax.inference.prediction_folder import PredictionFolder
from vspw_jax.inference.threads import WriteBehind, one_ahead, read_ahead
from vspw_jax.inference.video import video_writer

OVERLAY_HEIGHT = 480
THREADS = 2
"""That draw and write pictures."""
FILMS = {"overlay.mp4": overlay.with_legend, "side_by_side.mp4": overlay.beside}
"""How a picture of each video is made of frame, overlay and the legend's classes."""


@dataclasses.dataclass(frozen=True)
class Item:
    """A frame on its way; `label` where an earlier run has predicted it."""

    name: str
    image: np.ndarray
    time: int
    label: np.ndarray | None


def _items(source, folder, store):
    """The frames of a source; one is kept that has its mask, and its scores where they are wanted."""
    for name, image, time in source.frames():
        kept = not store or store.path(source.name, name).exists()
        yield Item(name, image, time, folder.mask(name, image.shape[:2]) if kept else None)


def _batches(items, size):
    """Runs of at most `size` frames of one picture size, all of them kept or none."""
    for _, run in itertools.groupby(items, key=lambda item: (item.image.shape, item.label is None)):
        while batch := list(itertools.islice(run, size)):
            yield batch


def _draw(item, label, shown, path, films):
    """The pictures of a frame for `films`; writes its overlay."""
    coloured = overlay.enlarge(overlay.overlay(item.image, label), OVERLAY_HEIGHT)
    frame = overlay.enlarge(item.image, OVERLAY_HEIGHT)
    if not path.exists():
        with whole_file(path) as partial:
            Image.fromarray(overlay.with_legend(frame, coloured, shown)).save(partial, quality=92)
    return [FILMS[film](frame, coloured, shown) for film in films]


class _Output:
    """Writes what was predicted, in threads behind the caller; to be used as a context.

    Args:
      folder: a `PredictionFolder`.
      source: of the frames.
      store: `scores.Writer` or None.
      films: names in FILMS.
      most: frames that may be waiting; 0 for none, and no threads.
    """

    def __init__(self, folder, source, store, films, most):
        self._folder, self._source, self._store, self._films = folder, source, store, films
        self._most, self._shown, self._stack = most, (), contextlib.ExitStack()

    def __enter__(self):
        enter = self._stack.enter_context
        writer = lambda film: video_writer(self._folder.path / film, self._source.rate, self._source.unit)
        self._append = [enter(writer(film)) for film in self._films]
        self._write = enter(WriteBehind(THREADS if self._most else 0, self._most))
        self._film = enter(WriteBehind(1 if self._most else 0, self._most))  # Left first: it waits for the pictures.
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def add(self, item, label, compact):
        """Takes the next frame, its train ids and, where they are wanted and new, its scores."""
        if self._store:
            self._store.enter(self._source.name, item.name, label.shape)
        if compact:
            self._write(self._store.save, self._source.name, item.name, compact)
        # Classes keep their line in the legend once they have appeared.
        self._shown += tuple(class_id for class_id in overlay.commonest(label) if class_id not in self._shown)
        path = self._folder.overlay_path(item.name)
        pictures = self._write(_draw, item, label, self._shown, path, self._films)
        self._film(self._append_pictures, pictures, item.time)
        if item.label is None:
            self._write(mask_png.save, label, self._folder.mask_path(item.name))

    def _append_pictures(self, pictures, time):
        for append, picture in zip(self._append, pictures.result(), strict=True):
            append(picture, time)


def _store(predictor, source, folder, identity):
    """Where scores go, or None."""
    if not predictor.options.save_scores:
        return None
    return scores.Writer(folder.path / "scores", identity, predictor.num_classes, predictor.top_classes)


def _checked_room(batches, predictor, source, store):
    """The batches; says before the first how large the scores will be, and that there is room for them."""
    for number, batch in enumerate(batches):
        if store and not number:
            size = scores.frame_bytes(*batch[0].image.shape[:2], predictor.num_classes, predictor.top_classes)
            print(
                scores.check_room(store.folder, size * (source.count or 1), "choose another --output=DIR"), flush=True
            )
        yield batch


def predict_source(predictor, source, output, side_by_side=False, overlap=True):
    """Predicts every frame of a video that an earlier run into the same folder has not.

    Args:
      predictor: a `Predictor` with weights.
      source: a `sources.Source`.
      output: folder; see `prediction_folder.py`.
      side_by_side: whether there is to be a video of frame and overlay beside each other.
      overlap: whether reading, predicting and writing go on at the same time.

    Returns:
      The number of frames that were predicted now.

    Raises:
      UserError: the folder holds predictions of another model or input; nothing can be read; no room for scores.
    """
    identity = {"input": source.name, "fingerprint": source.fingerprint, **predictor.identity()}
    folder, films = PredictionFolder(output, identity), list(FILMS)[: 1 + side_by_side]
    if folder.is_whole(films):
        return 0
    store = _store(predictor, source, folder, identity)
    most = 2 * predictor.batch if overlap else 0

    def begin(batch):
        new = batch[0].label is None
        return batch, predictor.start([item.image for item in batch]) if new else None

    count = predicted = 0
    bar = progress(description=f"predicting {source.name}", unit="frame", total=source.count)
    with (
        contextlib.closing(bar),
        read_ahead(_items(source, folder, store), most) as items,
        _Output(folder, source, store, films, most) as written,
    ):
        batches = _checked_room(_batches(items, predictor.batch), predictor, source, store)
        for batch, result in (one_ahead if overlap else map)(begin, batches):
            labels = result.labels() if result else [item.label for item in batch]
            compacts = result.scores() if result and store else [None] * len(batch)
            for item, label, compact in zip(batch, labels, compacts, strict=True):
                written.add(item, label, compact)
                bar.update()
            count, predicted = count + len(batch), predicted + (len(batch) if result else 0)
    if store:
        store.close()
    folder.finish(count)
    return predicted
