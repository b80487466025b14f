"""What `--input` names: a video file, a folder of frames or of videos, VSPW's folders, or a pattern of any of these."""

import collections
import dataclasses
import fractions
import glob
import hashlib
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from vspw_jax.console.errors import UserError
from vspw_jax.data.records import Frames
from vspw_jax.inference import prediction_folder, video

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".3gp")
ENDS = 1 << 20
"""A file's fingerprint looks at so many bytes at either end, and at its size."""

NamedFrame = tuple[str, UInt8[np.ndarray, "H W 3"], int]
"""Name, RGB pixels and time."""
Found = tuple[pathlib.Path, list[pathlib.Path]]
"""A video file and no pictures, or what holds the frames of a video and these."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Frames of one video.

    Attributes:
      name: what its predictions are called.
      frames: function that gives the frames; their time is in `unit`.
      count: of the frames, or None if that is not known beforehand.
      rate: about how many frames a second; unit: of time, in seconds.
      fingerprint: digest that differs from other videos'.
      complaints: sentences about what could not be read; filled as frames are read.
    """

    name: str
    frames: Callable[[], Iterator[NamedFrame]]
    count: int | None
    fingerprint: str
    rate: fractions.Fraction = fractions.Fraction(video.DEFAULT_RATE)
    unit: fractions.Fraction = fractions.Fraction(1, video.DEFAULT_RATE)
    complaints: list[str] = dataclasses.field(default_factory=list)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in collections.Counter(names).items() if count > 1)


def _of_file(name: str, path: pathlib.Path) -> Source:
    count, rate, unit = video.describe(path)
    with path.open("rb") as file:
        size = path.stat().st_size
        start = file.read(ENDS)
        file.seek(max(size - ENDS, 0))
        fingerprint = _digest(size, hashlib.sha256(start + file.read()).hexdigest())
    complaints: list[str] = []
    return Source(name, lambda: video.read(path, complaints), count, fingerprint, rate, unit, complaints)


def _read_pictures(paths: list[pathlib.Path]) -> Iterator[NamedFrame]:
    for time, path in enumerate(paths):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise UserError(f"{path} cannot be read as a picture. Mend or remove it; the same command then goes on.")
        yield path.stem, image, time


def _of_pictures(name: str, paths: list[pathlib.Path]) -> Source:
    if twice := _repeated(path.stem for path in paths):
        raise UserError(f"Several frames of {name} are called {', '.join(twice[:5])}: their masks would be one file.")
    fingerprint = _digest(*(f"{path.name} {path.stat().st_size}" for path in paths))
    return Source(name, lambda: _read_pictures(paths), len(paths), fingerprint)


def _is_picture(path: pathlib.Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _in_folder(folder: pathlib.Path) -> list[Found]:
    """Its pictures as one video, or each of its videos. What predictions wrote there is left out."""
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    if not prediction_folder.wrote(folder):
        paths = [path for path in paths if not prediction_folder.wrote(path)]
    pictures = [path for path in paths if _is_picture(path)]
    videos = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]
    if pictures and videos:
        raise UserError(f"{folder} holds pictures and videos: name one kind, as in --input='{folder}/*.mp4'.")
    if not pictures and not videos and (origins := _origins(folder)):
        return [found for origin in origins for found in _in_folder(origin)]
    if not pictures and not videos:
        expected = ", ".join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
        raise UserError(
            f"{folder} holds no frames: expected files ending in {expected}, or folders <video>/origin as VSPW has "
            f"them. Folders of frames in it are named by a pattern, as in --input='{folder}/*'."
        )
    return [(folder, pictures)] if pictures else [(path, []) for path in videos]


def _origins(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders of frames of a video, of a folder of videos, or of a data set in VSPW's layout."""
    for pattern in ("origin", "*/origin", "data/*/origin"):
        if found := sorted(path for path in folder.glob(pattern) if path.is_dir() and path.parent.name[:1] != "."):
            return found
    return []


def _matching(pattern: str) -> list[Found]:
    """Videos and folders that match, and matching pictures by their folder. What predictions wrote is left out."""
    matches = [pathlib.Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    if not matches:
        raise UserError(
            f"{pattern or '--input, which is empty,'} does not exist: expected a video file, a folder of frames or of "
            "videos, or a pattern such as 'clips/*.mp4' in --input."
        )
    paths = [path for path in matches if not prediction_folder.wrote(path)]
    if not paths:
        raise UserError(f"{pattern} matches only what predictions wrote, such as {matches[0]}, which is no input.")
    pictures, others = ([path for path in paths if _is_picture(path) == wanted] for wanted in (True, False))
    if pictures and others:
        raise UserError(
            f"{pattern} matches pictures, such as {pictures[0]}, and others, such as {others[0]}: name one kind."
        )
    by_folder = itertools.groupby(sorted(pictures, key=lambda path: path.parent), key=lambda path: path.parent)
    found: list[Found] = [(folder, list(members)) for folder, members in by_folder]
    for path in others:
        found += _in_folder(path) if path.is_dir() else [(path, [])]
    return found


def _names(paths: Sequence[pathlib.Path]) -> list[str]:
    """What the videos at these paths are called.

    That is the file's name without its ending, or the folder's; VSPW's `origin` has the name of the folder above.
    Where two are the same, it is what differs in their paths.
    """
    parts = [pathlib.Path(os.path.abspath(path.with_suffix("") if path.is_file() else path)).parts for path in paths]
    parts = [own[:-1] if own[-1] == "origin" else own for own in parts]
    if not _repeated(own[-1] for own in parts):
        return [own[-1] for own in parts]
    for end in (0, -1):
        while min(map(len, parts)) > 1 and len({own[end] for own in parts}) == 1:
            parts = [own[1:] if end == 0 else own[:-1] for own in parts]
    return ["_".join(own) for own in parts]


def find(argument: pathlib.Path | str) -> list[Source]:
    """The sources that `--input` names, in the order of their names.

    Raises:
      UserError: there is nothing of that name, nothing in it can be read, or two inputs have the same name.
    """
    path = pathlib.Path(argument)
    if not str(argument) or not path.exists():
        found = _matching(str(argument))
    elif path.is_dir():
        found = _in_folder(path)
    else:
        found = [(path, [path] if _is_picture(path) else [])]
    names = _names([place for place, _ in found])
    if twice := _repeated(names):
        raise UserError(
            f"Several inputs are called {', '.join(twice)}: their predictions would be one folder. "
            "Predict them one by one, each with its own --output=DIR."
        )
    return [
        _of_pictures(name, pictures) if pictures else _of_file(name, place)
        for name, (place, pictures) in zip(names, found, strict=True)
    ]


def of_records(frames: Frames, number: int) -> Source:
    """Video `number` of a split of records."""
    chosen = frames.videos[number]

    def read() -> Iterator[NamedFrame]:
        for time, (name, image) in enumerate(frames.named_images(chosen)):
            yield name, image, time

    return Source(chosen.name, read, chosen.count, _digest(frames.fingerprint, chosen.name))
