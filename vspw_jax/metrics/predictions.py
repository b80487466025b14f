"""Predictions as a folder of PNGs, DIR/<video>/<frame>.png: written, checked against a split, read and counted.

The files hold train ids 0..123, as the challenge has them: one channel of 8 bits (mode L, or P with any palette). Other
kinds of PNG are read too where they hold ids; see `mask_png.decode`.
"""

import argparse
import concurrent.futures
import os
import pathlib
import threading
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError, listed
from vspw_jax.console.progress import progress
from vspw_jax.files import mask_png
from vspw_jax.metrics import temporal_consistency
from vspw_jax.metrics.counts import VideoCounts, VideoMeter
from vspw_jax.metrics.temporal_consistency import Flow
from vspw_jax.metrics.truth import NamedVideo, Truth

TRAIN_IDS, RAW_IDS = "train_ids", "raw_ids"
ROLES = (TRAIN_IDS, RAW_IDS)
"""What masks may hold: 0..123, or 1..124 as VSPW's own masks do."""

KEPT = "evaluated"
"""The folder of a workdir in which evaluation keeps its predictions, by split."""

MOST_TRIED = 8
"""Misplaced predictions are looked for in so many folders."""

RAW_HINT = "If these are the raw ids 1..124 of VSPW's masks, give --masks-are=raw_ids."
NO_CLASS_HINT = (
    "Of raw ids only 1..124 are classes: 0 and others, read as 255, are no prediction where there is a label."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--masks-are` to a command line."""
    parser.add_argument(
        "--masks-are",
        choices=ROLES,
        default=TRAIN_IDS,
        help="what the predictions hold: train_ids 0..123 (default) or raw_ids 1..124, which are read as 0..123",
    )


def path_of(folder: pathlib.Path | str, video: str, frame: str) -> pathlib.Path:
    """The file of a frame's prediction in a folder of predictions."""
    return pathlib.Path(folder) / video / f"{frame}.png"


def to_train_ids(ids_HW: UInt8[np.ndarray, "H W"], role: str) -> UInt8[np.ndarray, "H W"]:
    """Train ids of a file's ids."""
    return vspw.from_raw(ids_HW) if role == RAW_IDS else ids_HW


class Folder:
    """Predictions of the videos of a split.

    Args:
      path: the folder.
      role: of `ROLES`.
    """

    def __init__(self, path: pathlib.Path | str, role: str = TRAIN_IDS) -> None:
        self.path, self._role = pathlib.Path(path), role
        self.hint = f" {NO_CLASS_HINT if role == RAW_IDS else RAW_HINT}"
        if not self.path.is_dir():
            raise UserError(f"--predictions={path}: no such folder. Expected DIR with <video>/<frame>.png.")

    def check(self, videos: Sequence[NamedVideo]) -> None:
        """Raises UserError where videos or frames have no file; it lists them."""
        missing = [video.name for video in videos if not (self.path / video.name).is_dir()]
        if missing:
            found = f"{self.path} lacks {len(missing)} of {len(videos)} videos: {listed(missing)}."
            raise UserError(f"{found}\n{self._where_else(videos)}")
        lacking = []
        for video in videos:
            there = set(os.listdir(self.path / video.name))
            lacking += [f"{video.name}/{name}.png" for name in video.frames if f"{name}.png" not in there]
        if lacking:
            total = sum(len(video.frames) for video in videos)
            raise UserError(f"{self.path} lacks {len(lacking)} of {total} frames: {listed(lacking)}.")

    def _where_else(self, videos: Sequence[NamedVideo]) -> str:
        names = {video.name for video in videos}
        inner = [path.name for path in sorted(self.path.iterdir()) if path.is_dir()]
        for name in inner[:MOST_TRIED]:
            if names & set(os.listdir(self.path / name)):
                return f"They are one folder down: --predictions={self.path / name}"
        return f"Expected {self.path}/<video>/<frame>.png; it holds {listed(inner) or 'no folder'}. Another --split?"

    def mask(self, video: str, frame: str) -> UInt8[np.ndarray, "H W"]:
        """Train ids; values that are no class stay as they are, or become 255 where the files hold raw ids."""
        path = path_of(self.path, video, frame)
        try:
            return to_train_ids(mask_png.decode(path.read_bytes()), self._role)
        except (UserError, OSError) as error:
            raise UserError(f"{path} {error}.") from error


def count_video(
    video: NamedVideo, truth: Truth, folder: Folder, flow: Flow | None, moved: Callable[[], None]
) -> VideoCounts:
    """The counts of one video; `moved()` is called after each frame."""
    meter = VideoMeter(video.name, len(truth.classes), flow)
    for frame in video.frames:
        label, prediction = truth.label(video.name, frame), folder.mask(video.name, frame)
        image = truth.image(video.name, frame) if flow else None
        try:
            meter.add(frame, image, label, prediction)
        except UserError as error:
            hint = folder.hint if (prediction >= len(truth.classes)).any() else ""
            raise UserError(f"{folder.path}: {error}{hint}") from error
        moved()
    return meter.counts()


def count(
    truth: Truth, folder: Folder, flow: Callable[[], Flow | None] | None = None, threads: int | None = None
) -> list[VideoCounts]:
    """The counts of all videos of a split; several videos are counted at a time.

    Args:
      flow: function that makes a source of flow, or None; see `temporal_consistency.flow_of_first`.
      threads: default: one for each processor.
    """
    folder.check(truth.videos)
    bar = progress(description="scoring", unit="frame", total=sum(len(video.frames) for video in truth.videos))
    lock, stopped = threading.Lock(), threading.Event()

    def moved() -> None:
        if stopped.is_set():
            raise concurrent.futures.CancelledError
        with lock:
            bar.update()

    flow_of = temporal_consistency.flow_of_first([video.name for video in truth.videos], flow)

    def one(video: NamedVideo) -> VideoCounts:
        return count_video(video, truth, folder, flow_of(video.name), moved)

    with concurrent.futures.ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        try:
            return list(pool.map(one, truth.videos))
        except BaseException:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            bar.close()
