"""What `--input` names: a video file, a folder of frames or of videos, or a pattern of either."""

import collections
import dataclasses
import fractions
import glob
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from vspw_jax.console.errors import UserError, listed, warn
from vspw_jax.data.records import Frames
from vspw_jax.files import frame_names, pictures
from vspw_jax.inference import video

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


def _read_pictures(paths: Sequence[pathlib.Path]) -> Iterator[NamedFrame]:
    for time, path in enumerate(paths):
        try:
            image = pictures.decode(path.read_bytes())
        except (UserError, OSError) as error:
            raise UserError(
                f"{path} {error}. Mend or remove it, and give another --output=DIR: the input is another one then."
            ) from error
        yield path.stem, image, time


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:  # A link to nowhere, for example.
        raise UserError(f"{path} cannot be read: {error.strerror}. Mend or remove it.") from error


def _of_pictures(folder: pathlib.Path, paths: Sequence[pathlib.Path]) -> Source:
    """One source of the pictures of a folder, in the order of their numbers."""
    name = folder.absolute().name
    by_stem = frame_names.by_stem(map(str, paths), name)
    stems = frame_names.in_order(by_stem, name)
    if complaint := frame_names.open_order([(name, stems)]):
        warn(complaint)
    paths = [pathlib.Path(by_stem[stem]) for stem in stems]
    fingerprint = _digest(*(f"{path.name} {_size(path)}" for path in paths))
    return Source(name, lambda: _read_pictures(paths), len(paths), fingerprint)


def _of_files(paths: Sequence[pathlib.Path], place: str, others_are_videos: bool = False) -> list[Source]:
    """One source of the pictures of each folder, or one source of each video; warns of what is neither.

    Args:
      paths: in order.
      place: what they were found in, for messages.
      others_are_videos: whether a file of an unknown suffix counts as a video where there are no pictures.
    """
    shown = [path for path in paths if path.suffix.lower() in pictures.SUFFIXES]
    films = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES or (others_are_videos and not shown)]
    if shown and films:
        raise UserError(
            f"{place} holds pictures and videos, such as {shown[0].name} and {films[0].name}: name one kind, as in "
            f"--input='{films[0].parent}/*{films[0].suffix}'."
        )
    if not shown and not films:
        expected = ", ".join((*pictures.SUFFIXES, *VIDEO_SUFFIXES))
        raise UserError(f"{place} holds no frames: expected files ending in {expected}.")
    if others := [path.name for path in paths if path not in {*shown, *films}]:
        warn(
            f"{len(others)} files or folders in {place} are neither pictures nor videos and are left out: "
            f"{listed(others, 3)}."
        )
    by_folder: dict[pathlib.Path, list[pathlib.Path]] = {}
    for path in shown:
        by_folder.setdefault(path.parent, []).append(path)
    return [_of_pictures(folder, own) for folder, own in by_folder.items()] or [_of_file(path) for path in films]


def _of_folder(folder: pathlib.Path) -> list[Source]:
    """One source of all its pictures, or one source of each of its videos."""
    return _of_files([path for path in _in_order(folder.iterdir()) if not path.name.startswith(".")], str(folder))


def _in_order(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    return sorted(paths, key=lambda path: (frame_names.natural(str(path)), str(path)))


def find(argument: pathlib.Path | str) -> list[Source]:
    """The sources that `--input` names, in the order of their names.

    Raises:
      UserError: there is nothing of that name, nothing in it can be read, or two inputs have the same name.
    """
    path = pathlib.Path(argument)
    if path.is_dir():
        return _different(_of_folder(path))
    if path.exists():
        return _of_files([path], str(path), others_are_videos=True)
    matches = _in_order(map(pathlib.Path, glob.glob(str(argument), recursive=True)))
    if not matches:
        raise UserError(
            f"{argument} does not exist: expected a video file, a folder of frames or of videos, or a "
            "pattern such as 'clips/*.mp4' in --input."
        )
    folders = [match for match in matches if match.is_dir()]
    files = [match for match in matches if not match.is_dir()]
    if folders and files:
        raise UserError(
            f"--input={argument} names folders and files, such as {folders[0]} and {files[0]}: name one kind, as in "
            f"--input='{files[0].parent}/*{files[0].suffix}'."
        )
    if files:
        return _different(_of_files(files, str(argument), others_are_videos=True))
    return _different([source for folder in folders for source in _of_folder(folder)])


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
