"""What `--input` names: a video file, a folder of frames or of videos, or a pattern of either."""

import collections
import dataclasses
import fractions
import glob
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import UInt8

from vspw_jax.console.errors import UserError
from vspw_jax.data.records import Frames
from vspw_jax.inference import video

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".3gp")
ENDS = 1 << 20
"""A file's fingerprint looks at so many bytes at either end, and at its size."""

NamedFrame = tuple[str, UInt8[np.ndarray, "H W 3"], int]
"""Name, RGB pixels and time."""


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


def _of_file(path: pathlib.Path) -> Source:
    count, rate, unit = video.describe(path)
    with path.open("rb") as file:
        size = path.stat().st_size
        start = file.read(ENDS)
        file.seek(max(size - ENDS, 0))
        fingerprint = _digest(size, hashlib.sha256(start + file.read()).hexdigest())
    complaints: list[str] = []
    return Source(path.stem, lambda: video.read(path, complaints), count, fingerprint, rate, unit, complaints)


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


def _name(folder: pathlib.Path) -> str:
    """A folder's own name, also where it is given as "." or ".."."""
    return pathlib.Path(os.path.abspath(folder)).name or "root"


def _of_folder(folder: pathlib.Path) -> list[Source]:
    """One source of all its pictures, or one source of each of its videos."""
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    pictures = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    videos = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]
    if pictures and videos:
        raise UserError(f"{folder} holds pictures and videos: name one kind, as in --input='{folder}/*.mp4'.")
    if not pictures and not videos:
        expected = ", ".join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
        raise UserError(f"{folder} holds no frames: expected files ending in {expected}.")
    return [_of_pictures(_name(folder), pictures)] if pictures else [_of_file(path) for path in videos]


def find(argument: pathlib.Path | str) -> list[Source]:
    """The sources that `--input` names, in the order of their names.

    Raises:
      UserError: there is nothing of that name, nothing in it can be read, or two inputs have the same name.
    """
    path = pathlib.Path(argument)
    if path.is_dir():
        return _different(_of_folder(path))
    if path.exists():
        return [_of_file(path)]
    matches = [pathlib.Path(match) for match in sorted(glob.glob(str(argument), recursive=True))]
    if not matches:
        raise UserError(
            f"{argument} does not exist: expected a video file, a folder of frames or of videos, or a "
            "pattern such as 'clips/*.mp4' in --input."
        )
    pictures = [match for match in matches if match.suffix.lower() in IMAGE_SUFFIXES]
    if pictures:
        return [_of_pictures(_name(pictures[0].parent), pictures)]
    return _different(
        [source for match in matches for source in (_of_folder(match) if match.is_dir() else [_of_file(match)])]
    )


def _different(sources: list[Source]) -> list[Source]:
    if twice := _repeated(source.name for source in sources):
        raise UserError(
            f"Several inputs are called {', '.join(twice)}: their predictions would be one folder. "
            "Predict them one by one, each with its own --output=DIR."
        )
    return sources


def of_records(frames: Frames, number: int) -> Source:
    """Video `number` of a split of records."""
    chosen = frames.videos[number]

    def read() -> Iterator[NamedFrame]:
        for time, (name, image) in enumerate(frames.named_images(chosen)):
            yield name, image, time

    return Source(chosen.name, read, chosen.count, _digest(frames.fingerprint, chosen.name))
