"""What `--input` names: a video file, a folder of frames or of videos, VSPW's folders, or a pattern of any of these."""

import collections
import dataclasses
import fractions
import glob
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from vspw_jax.console.errors import UserError, listed, warn
from vspw_jax.data.records import Frames
from vspw_jax.files import frame_names, pictures
from vspw_jax.inference import prediction_folder, video

VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".vob", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".asf", ".flv", ".f4v", ".ogv", ".3gp", ".3g2"),
)
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


def _read_pictures(paths: Sequence[pathlib.Path]) -> Iterator[NamedFrame]:
    for time, path in enumerate(paths):
        try:
            image = pictures.decode(path.read_bytes())
        except (UserError, OSError) as error:
            raise UserError(
                f"{path} {error}. Mend or remove it. The folder is then another input: predict it into another "
                "--output=DIR, or delete the predictions that this run began."
            ) from error
        yield path.stem, image, time


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:  # A link to nowhere, for example.
        raise UserError(f"{path} cannot be read: {error.strerror}. Mend or remove it.") from error


def _of_pictures(name: str, paths: Sequence[pathlib.Path]) -> Source:
    """One source of the pictures of a video, in the order of their numbers."""
    by_stem = frame_names.by_stem(map(str, paths), name)
    stems = frame_names.in_order(by_stem, name)
    if complaint := frame_names.open_order([(name, stems)]):
        warn(complaint)
    paths = [pathlib.Path(by_stem[stem]) for stem in stems]
    fingerprint = _digest(*(f"{path.name} {_size(path)}" for path in paths))
    return Source(name, lambda: _read_pictures(paths), len(paths), fingerprint)


def _is_picture(path: pathlib.Path) -> bool:
    return path.suffix.lower() in pictures.SUFFIXES and not path.is_dir()


def _is_film(path: pathlib.Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()


def _in_order(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    return sorted(paths, key=lambda path: (frame_names.natural(str(path)), str(path)))


def _of_one_kind(paths: Sequence[pathlib.Path], place: str) -> list[Found]:
    """The pictures of each folder as one video, or each film; warns of what is neither."""
    shown = [path for path in paths if _is_picture(path)]
    films = [path for path in paths if _is_film(path)]
    if shown and films:
        raise UserError(
            f"{place} holds pictures and videos, such as {shown[0].name} and {films[0].name}: name one kind, as in "
            f"--input='{films[0].parent}/*{films[0].suffix}'."
        )
    if not shown and not films:
        expected = ", ".join((*pictures.SUFFIXES, *VIDEO_SUFFIXES))
        raise UserError(
            f"{place} holds no frames: expected files ending in {expected}, or folders <video>/origin as VSPW has "
            f"them. Folders of frames in it are named by a pattern, as in --input='{place}/*'."
        )
    if others := [path.name for path in paths if not _is_picture(path) and not _is_film(path)]:
        warn(
            f"In {place} all that is neither a picture nor a video is left out ({len(others)} in number): "
            f"{listed(others, 3)}."
        )
    by_folder: dict[pathlib.Path, list[pathlib.Path]] = {}
    for path in shown:
        by_folder.setdefault(path.parent, []).append(path)
    return list(by_folder.items()) or [(path, []) for path in films]


def _in_folder(folder: pathlib.Path) -> list[Found]:
    """Its pictures as one video, or each of its videos. What predictions wrote there is left out."""
    paths = [path for path in _in_order(folder.iterdir()) if not path.name.startswith(".")]
    if not prediction_folder.wrote(folder):
        paths = [path for path in paths if not prediction_folder.wrote(path)]
    beside = [path for path in paths if _is_picture(path)]
    origins = [] if any(map(_is_film, paths)) else _origins(folder)
    is_data_set = bool(origins) and origins[0].relative_to(folder).parts[0] == "data"
    if origins and beside and (is_data_set or len(beside) == 1):  # Several may be a video of their own.
        warn(
            f"In {folder} the pictures beside the videos are left out ({len(beside)} in number): "
            f"{listed([path.name for path in beside], 3)}. Its videos are in {origins[0]} and the like; "
            f"--input='{folder}/*{beside[0].suffix}' names the pictures."
        )
        beside = []
    if origins and not beside:
        return [found for origin in origins for found in _in_folder(origin)]
    return _of_one_kind(paths, str(folder))


def _origins(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders of frames of a video, of a folder of videos, or of a data set in VSPW's layout."""
    for pattern in ("origin", "*/origin", "data/*/origin"):
        if found := [path for path in folder.glob(pattern) if path.is_dir() and path.parent.name[:1] != "."]:
            return _in_order(found)
    return []


def _matching(pattern: str) -> list[Found]:
    """What folders that match hold, or films and pictures that match. What predictions wrote is left out."""
    matches = _in_order(map(pathlib.Path, glob.glob(pattern, recursive=True)))
    if not matches:
        raise UserError(
            f"{pattern} does not exist: expected a video file, a folder of frames or of videos, or a pattern such as "
            "'clips/*.mp4' in --input."
        )
    paths = [path for path in matches if not prediction_folder.wrote(path)]
    if not paths:
        raise UserError(f"{pattern} matches only what predictions wrote, such as {matches[0]}, which is no input.")
    folders, files = ([path for path in paths if path.is_dir() == wanted] for wanted in (True, False))
    if folders and files:
        raise UserError(
            f"--input={pattern} names folders and files, such as {folders[0]} and {files[0]}: name one kind, as in "
            f"--input='{files[0].parent}/*{files[0].suffix}'."
        )
    if not any(map(_is_picture, files)):  # Films may have any suffix where a user names them.
        return [found for folder in folders for found in _in_folder(folder)] + [(path, []) for path in files]
    return _of_one_kind(files, pattern)


def _names(paths: Sequence[pathlib.Path]) -> list[str]:
    """What the videos at these paths are called.

    That is the file's name without its ending, or the folder's; VSPW's `origin` has the name of the folder above.
    Where two are the same, it is what differs in their paths.
    """
    absolute = [pathlib.Path(os.path.abspath(path.with_suffix("") if path.is_file() else path)) for path in paths]
    parts = [("root", *path.parts[1:]) for path in absolute]
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
      UserError: there is nothing of that name, nothing in it can be read, two inputs have the same name, or one has a
        name that cannot be that of its predictions.
    """
    path = pathlib.Path(argument)
    if not path.exists():
        found = _matching(str(argument))
    elif path.is_dir():
        found = _in_folder(path)
    else:
        found = [(path, [path] if _is_picture(path) else [])]
    names = _names([place for place, _ in found])
    for name in names:
        frame_names.check_video(name, str(argument))
    if twice := _repeated(names):
        raise UserError(
            f"Several inputs are called {', '.join(twice)}: their predictions would be one folder. "
            "Predict them one by one, each with its own --output=DIR."
        )
    return [
        _of_pictures(name, frames) if frames else _of_file(name, place)
        for name, (place, frames) in zip(names, found, strict=True)
    ]


def of_records(frames: Frames, number: int) -> Source:
    """Video `number` of a split of records."""
    chosen = frames.videos[number]

    def read() -> Iterator[NamedFrame]:
        for time, (name, image) in enumerate(frames.named_images(chosen)):
            yield name, image, time

    return Source(chosen.name, read, chosen.count, _digest(frames.fingerprint, chosen.name))
