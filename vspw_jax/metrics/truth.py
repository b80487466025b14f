"""The frames and masks that predictions are compared with: converted records, or data in VSPW's own layout."""

import argparse
import dataclasses
import datetime
import pathlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

from data_prep.conversion import video_folders
from vspw_jax.buckets import addresses, fetched
from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError
from vspw_jax.data import records
from vspw_jax.files import pictures, sources

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class NamedVideo:
    """A video's name and those of its frames, in order."""

    name: str
    frames: tuple[str, ...]


class RecordsTruth:
    """A split of converted data; see `open_truth`."""

    def __init__(self, frames: records.Frames) -> None:
        self.path, self.split, self._frames = str(frames.path), frames.split, frames
        self.fingerprint = frames.fingerprint
        self.labelled, self.classes = frames.has_masks, frames.classes
        self._numbers: dict[tuple[str, str], int] = {}
        videos = []
        for video in frames.videos:
            numbers = range(video.start, video.start + video.count)
            names = tuple(frames[number]["frame"] for number in numbers)
            self._numbers |= {(video.name, name): number for name, number in zip(names, numbers, strict=True)}
            videos.append(NamedVideo(video.name, names))
        self.videos = tuple(videos)
        self.date = _date(frames.path / "metadata.json")

    def label(self, video: str, frame: str) -> UInt8[np.ndarray, "H W"]:
        """Train ids, void 255."""
        return self._frames.label(self._frames[self._numbers[video, frame]])

    def image(self, video: str, frame: str) -> UInt8[np.ndarray, "H W 3"]:
        """RGB pixels."""
        return records.decode_image(self._frames[self._numbers[video, frame]]["image_jpeg"])

    def size(self, video: str, frame: str) -> tuple[int, int]:
        """(width, height)."""
        return pictures.size(self._frames[self._numbers[video, frame]]["image_jpeg"])


class FilesTruth:
    """A split of a folder, .zip or .tar in VSPW's layout; see `open_truth`."""

    fingerprint = None

    def __init__(self, path: pathlib.Path, split: str) -> None:
        self.path, self.split = str(path), split
        self._source = sources.open_source(path)
        prefix, splits = video_folders.read_splits(self._source)
        if split not in splits:
            raise UserError(f"{path} has no list {split}.txt; it has {', '.join(f'{name}.txt' for name in splits)}.")
        members = video_folders.split_frames(self._source, prefix, splits[split], split)
        self._frames = {(frame.video, frame.name): frame for frame in members}
        by_video: dict[str, list[str]] = {}
        for frame in members:
            by_video.setdefault(frame.video, []).append(frame.name)
        self.videos = tuple(NamedVideo(name, tuple(frames)) for name, frames in by_video.items())
        self.labelled = all(frame.mask for frame in members)
        self.classes = vspw.classes()
        self.date = _date(path / f"{prefix}{split}.txt" if path.is_dir() else path)

    def _read(self, video: str, frame: str, kind: str, decode: Callable[[bytes], T]) -> T:
        name = getattr(self._frames[video, frame], kind)
        if name not in self._source.sizes:
            raise UserError(f"{self._source.where(name)} is missing.")
        try:
            return decode(self._source.read(name))
        except (UserError, OSError) as error:
            raise UserError(f"{self._source.where(name)} {error}.") from error

    def label(self, video: str, frame: str) -> UInt8[np.ndarray, "H W"]:
        """Train ids, void 255."""
        return self._read(video, frame, "mask", records.decode_mask)

    def image(self, video: str, frame: str) -> UInt8[np.ndarray, "H W 3"]:
        """RGB pixels."""
        return self._read(video, frame, "image", _whole_image)

    def size(self, video: str, frame: str) -> tuple[int, int]:
        """(width, height)."""
        return self._read(video, frame, "image", pictures.size)


def _whole_image(data: bytes) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a frame's file, which may be damaged: nothing has checked it yet."""
    pictures.check(data)
    return records.decode_image(data)


def _date(path: pathlib.Path) -> str:
    """The day on which a file was written, in UTC."""
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).date().isoformat()


def add_options(parser: argparse.ArgumentParser, split: str) -> None:
    """Adds the arguments of `open_truth` to a command line; `split` is the default."""
    parser.add_argument("--data", required=True, metavar="PATH", help="VSPW as a folder, .zip or .tar, or its records")
    parser.add_argument("--split", default=split, help=f"whose list of videos counts (default {split})")


Truth = RecordsTruth | FilesTruth


def open_truth(path: pathlib.Path | str, split: str, own_classes: bool = False) -> Truth:
    """The videos of a split.

    Both kinds have `videos` (of `NamedVideo`), `label`, `image` and `size` by names of video and frame, `labelled`
    (whether there are masks), `classes`, `path`, `split`, `date` and `fingerprint` (None for files).

    Args:
      path: records, or a folder, .zip or .tar in VSPW's layout.
      own_classes: see `records.Frames`.

    Raises:
      UserError: it is neither, has no such split, or labels there are predictions.
    """
    if addresses.is_address(path):
        path = records.find(path) if records.exist(path) else fetched.path(path)
    path = pathlib.Path(path)
    if path.is_dir() and records.exist(path):
        frames = records.Frames(path, split, own_classes=own_classes)
        frames.check_truth()
        return RecordsTruth(frames)
    if not path.exists():
        raise UserError(f"--data={path}: no such folder. Expected VSPW (with {split}.txt and data/), or its records.")
    return FilesTruth(path, split)
