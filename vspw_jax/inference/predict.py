"""Predicts a video: masks, overlays with a legend, videos of them. It goes on where an earlier run was stopped.

Three things go on at the same time: a thread reads frames ahead, the devices predict, and threads behind draw and write
pictures; see `threads.py`. The next batch is begun before the one before it is taken from the devices.
"""

import contextlib
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Self

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vspw_jax.console.progress import progress
from vspw_jax.files import mask_png
from vspw_jax.files.whole_files import whole_file
from vspw_jax.inference import memory_file, overlay, prediction_folder, scores
from vspw_jax.inference.flow_smoothing import Smoothing
from vspw_jax.inference.in_order import InOrder
from vspw_jax.inference.overlay import Painter
from vspw_jax.inference.prediction_folder import PredictionFolder
from vspw_jax.inference.predictor import Predictor, Result
from vspw_jax.inference.sources import Source
from vspw_jax.inference.threads import WriteBehind, one_ahead, read_ahead
from vspw_jax.inference.video import video_writer

OVERLAY_HEIGHT = 480
THREADS = 2
"""How many draw and write pictures."""
FRAMES_BETWEEN_MEMORIES = 32
"""What a network remembers is kept at most so often; an interrupted run makes the frames since then again."""
FILMS = dict(zip(prediction_folder.FILMS, (Painter.with_legend, Painter.beside), strict=True))
"""By video: what makes its pictures of frame, overlay and the legend's classes."""


@dataclasses.dataclass(frozen=True)
class Item:
    """A frame on its way; `label` where an earlier run has predicted it."""

    name: str
    image: UInt8[np.ndarray, "H W 3"]
    time: int
    label: UInt8[np.ndarray, "H W"] | None


def _items(source: Source, folder: PredictionFolder, store: scores.Writer | None, most_kept: float) -> Iterator[Item]:
    """The frames of a source; with its label a frame that has its mask, and its scores where they are wanted.

    Args:
      most_kept: so many of the first frames, at most, have a label.
    """
    for number, (name, image, time) in enumerate(source.frames()):
        kept = number < most_kept and (not store or store.path(source.name, name).exists())
        yield Item(name, image, time, folder.mask(name, image.shape[:2]) if kept else None)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Runs of at most `size` frames of one picture size, all of them with a label or none."""
    for _, run in itertools.groupby(items, key=lambda item: (item.image.shape, item.label is None)):
        while batch := list(itertools.islice(run, size)):
            yield batch


def _draw(
    item: Item, label: np.ndarray, painter: Painter, shown: tuple[int, ...], path: pathlib.Path, films: Sequence[str]
) -> list[np.ndarray]:
    """The pictures of a frame for `films`; writes its overlay."""
    frame = overlay.scaled(item.image, OVERLAY_HEIGHT)
    coloured = painter.overlay(frame, overlay.scaled(label, OVERLAY_HEIGHT))
    if not path.exists():
        with whole_file(path) as partial:
            Image.fromarray(painter.with_legend(frame, coloured, shown)).save(partial, quality=92)
    return [FILMS[film](painter, frame, coloured, shown) for film in films]


class _Output:
    """Writes what was predicted, in threads behind the caller; to be used as a context.

    Args:
      source: of the frames.
      films: names in FILMS.
      painter: draws the classes.
      most: frames that may be waiting; 0 for none, and no threads.
    """

    def __init__(
        self,
        folder: PredictionFolder,
        source: Source,
        store: scores.Writer | None,
        films: Sequence[str],
        painter: Painter,
        most: int,
    ) -> None:
        self._folder, self._source, self._store, self._films = folder, source, store, films
        self._painter, self._most, self._stack = painter, most, contextlib.ExitStack()
        self._shown: tuple[int, ...] = ()
        self._remembered, self._masks = 0, list[Future[None]]()

    def __enter__(self) -> Self:
        enter = self._stack.enter_context
        writer = lambda film: video_writer(self._folder.path / film, self._source.rate, self._source.unit)
        self._append = [enter(writer(film)) for film in self._films]
        self._write = enter(WriteBehind(THREADS if self._most else 0, self._most))
        self._film = enter(WriteBehind(1 if self._most else 0, self._most))  # Left first: it waits for the pictures.
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def add(self, item: Item, label: UInt8[np.ndarray, "H W"], compact: scores.Compact | None) -> None:
        """Takes the next frame, its train ids and, where they are wanted and new, its scores."""
        if self._store:
            self._store.enter(self._source.name, item.name, label.shape)
        if self._store and compact:
            self._write(self._store.save, self._source.name, item.name, compact)
        # A class that has appeared keeps its line in the legend.
        self._shown += tuple(class_id for class_id in overlay.commonest(label) if class_id not in self._shown)
        path = self._folder.overlay_path(item.name)
        pictures = self._write(_draw, item, label, self._painter, self._shown, path, self._films)
        self._film(self._append_pictures, pictures, item.time)
        if item.label is None:
            self._masks.append(
                self._write(mask_png.save, label, self._folder.mask_path(item.name), self._painter.classes)
            )

    def remember(self, kept: memory_file.KeptMemory) -> None:
        """Keeps what is remembered after the frames that were added, once all their masks are there."""
        if len(kept.names) - self._remembered < FRAMES_BETWEEN_MEMORIES:
            return
        self._remembered, masks, self._masks = len(kept.names), self._masks, []
        self._film(self._save_memory, masks, kept)

    def _save_memory(self, masks: list[Future[None]], kept: memory_file.KeptMemory) -> None:
        for mask in masks:
            mask.result()
        memory_file.save(self._folder.path, kept)

    def _append_pictures(self, pictures: Future[list[np.ndarray]], time: int) -> None:
        for append, picture in zip(self._append, pictures.result(), strict=True):
            append(picture, time)


def _store(
    predictor: Predictor, source: Source, folder: PredictionFolder, identity: dict[str, Any]
) -> scores.Writer | None:
    """Where scores go, or None."""
    if not predictor.options.save_scores:
        return None
    return scores.Writer(folder.path / "scores", identity, predictor.num_classes, predictor.top_classes)


def _checked(
    batches: Iterable[list[Item]], predictor: Predictor, source: Source, store: scores.Writer | None
) -> Iterator[list[Item]]:
    """The batches. Before the first it says at which size large frames are drawn.

    It says how large the scores will be too, and checks that there is room for them.
    """
    for number, batch in enumerate(batches):
        height, width, _ = batch[0].image.shape
        drawn = overlay.drawn_size(height, width, OVERLAY_HEIGHT)
        if not number and max(height, width) > overlay.MOST_SIDE:
            sizes = f"{width}x{height} are drawn at {drawn[1]}x{drawn[0]}"
            print(f"{source.name}: frames of {sizes}, for the sake of H.264; masks keep their size.", flush=True)
        if store and not number:
            size = scores.frame_bytes(height, width, predictor.num_classes, predictor.top_classes)
            print(
                scores.check_room(store.folder, size * (source.count or 1), "choose another --output=DIR"), flush=True
            )
        yield batch


def _kept_memory(
    predictor: Predictor, source: Source, folder: PredictionFolder, store: scores.Writer | None
) -> memory_file.KeptMemory | None:
    """What an earlier run remembered, if all that it made until then is still there."""
    kept = memory_file.load(folder.path, predictor.first_memory)
    if not kept:
        return None
    size = kept.shape[:2]
    has_scores = lambda name: not store or store.path(source.name, name).exists()
    is_whole = all(has_scores(name) and folder.mask(name, size) is not None for name in kept.names)
    return kept if is_whole else None


def _resumed(
    predictor: Predictor, source: Source, folder: PredictionFolder, store: scores.Writer | None
) -> tuple[InOrder, float]:
    """(what predicts the frames in their order, how many of the first at most keep what an earlier run made)."""
    if predictor.options.flow_weight:
        return InOrder(predictor), 0  # Smoothing needs the scores of all frames before.
    if not predictor.remembers:
        return InOrder(predictor), math.inf
    kept = _kept_memory(predictor, source, folder, store)
    return (InOrder(predictor, kept.memory, kept.shape), len(kept.names)) if kept else (InOrder(predictor), 0)


def predict_source(
    predictor: Predictor,
    source: Source,
    output: pathlib.Path,
    side_by_side: bool = False,
    overlap: bool = True,
    opacity: float = overlay.OPACITY,
) -> int:
    """Predicts the frames of a video that an earlier run into the same folder has not predicted.

    Args:
      predictor: with weights.
      output: folder; see `prediction_folder.py`.
      side_by_side: whether to make a video of frame and overlay beside each other too.
      overlap: whether reading, predicting and writing go on at the same time.
      opacity: of the classes' colours over the frame, 0 to 1.

    Returns:
      The number of frames that were predicted now.

    Raises:
      UserError: the folder holds predictions of another model or input; nothing can be read; no room for scores.
    """
    identity = {"input": source.name, "fingerprint": source.fingerprint, **predictor.identity()}
    painter = Painter(predictor.classes, opacity)
    folder, films = PredictionFolder(output, identity, painter), list(FILMS)[: 1 + side_by_side]
    if folder.is_whole(films):
        source.complaints.extend(folder.complaints)
        return 0
    store = _store(predictor, source, folder, identity)
    most = 2 * predictor.batch if overlap else 0
    in_order, most_kept = _resumed(predictor, source, folder, store)
    smoothing, keeps_memory = Smoothing(predictor.options), predictor.remembers and not predictor.options.flow_weight

    def begin(batch: list[Item]) -> tuple[list[Item], Result | None]:
        new = batch[0].label is None
        return batch, in_order.start([item.image for item in batch]) if new else None

    names: list[str] = []
    predicted = 0
    bar = progress(description=f"predicting {source.name}", unit="frame", total=source.count)
    with (
        contextlib.closing(bar),
        read_ahead(_items(source, folder, store, most_kept), most) as items,
        _Output(folder, source, store, films, painter, most) as written,
    ):
        batches = _checked(_batches(items, predictor.batch), predictor, source, store)
        for batch, result in (one_ahead if overlap else map)(begin, batches):
            images = [item.image for item in batch]
            labels = smoothing.labels(images, result) if result else [item.label for item in batch]
            compacts = result.scores() if result and store else [None] * len(batch)
            for item, label, compact in zip(batch, labels, compacts, strict=True):
                written.add(item, label, compact)
                bar.update()
            names += [item.name for item in batch]
            predicted += len(batch) if result else 0
            if result and keeps_memory:
                written.remember(memory_file.KeptMemory(tuple(names), batch[-1].image.shape, result.memory))
    if store:
        store.close()
    folder.finish(len(names), source.complaints)
    return predicted
