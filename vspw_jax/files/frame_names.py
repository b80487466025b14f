"""Names of the frames of a video: their order, and names of frames and videos that cannot be used."""

import pathlib
import re
from collections.abc import Iterable, Sequence

from vspw_jax.console.errors import UserError, listed

MOST_BYTES = 240
"""File systems take names of 255 bytes, and a prediction is written as partial-<frame>.png first."""

SHOWN = 60
"""Characters of a name that is too long."""

DECIMAL = re.compile(r"(?<![0-9.,])([0-9]+[.,])([0-9]+)(?![.,]?[0-9])")
"""A number with one point, and so no date, address or version of three parts."""


def natural(name: str) -> tuple[tuple[str, int, str], ...]:
    """A key that sorts names as people count: 2 comes before 10. 01 and 1 have the same key."""
    parts = re.findall(r"([^0-9]*)(?:0*([0-9]+))?", name)
    return tuple((text, len(digits), digits) for text, digits in parts)


def by_stem(files: Iterable[str], place: str) -> dict[str, str]:
    """Files by the names of their frames: without folder and suffix. UserError where two have the same name."""
    found: dict[str, str] = {}
    for file in files:
        stem = pathlib.PurePath(file).stem
        if stem in found:
            names = " and ".join(sorted(pathlib.PurePath(each).name for each in (file, found[stem])))
            raise UserError(f"Several frames of {place} are called {stem}: {names}. Rename or remove all but one.")
        found[stem] = file
    return found


def in_order(names: Iterable[str], video: str) -> list[str]:
    """The names of a video's frames, without suffix, as people count.

    Raises:
      UserError: two names have the same number, or a name cannot be that of a result.
    """
    ordered = sorted(names, key=natural)
    for name in ordered:
        check(name, video)
    for first, second in zip(ordered, ordered[1:], strict=False):
        if natural(first) == natural(second):
            raise UserError(
                f"Several frames of {video} have the same number: {first} and {second}. Rename or remove all but one."
            )
    return ordered


def check(name: str, video: str) -> None:
    """Raises UserError where a frame's name is too long or no UTF-8: none of its results could be written."""
    _check(name, "frame", video)


def check_video(name: str, place: str) -> None:
    """The same of the name of a video, which is at a place."""
    _check(name, "video", place)


def _check(name: str, kind: str, place: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise UserError(f"The name {name!a} of a {kind} of {place!a} is not UTF-8. Rename it.") from error
    if size > MOST_BYTES:
        raise UserError(
            f"The name {name[:SHOWN]}... of a {kind} of {place} has {size} bytes, {MOST_BYTES} are allowed. Rename it."
        )


def kinds(names: Iterable[str]) -> list[str]:
    """The names with # for each number, each once. The order of a video with several kinds of names is open."""
    return sorted({re.sub("[0-9]+", "#", name) for name in names})


def _decimals_move(ordered: Sequence[str]) -> bool:
    """Whether names in order would have another one if their decimals were counted as such: 1.25 before 1.5."""
    places = max((len(found[2]) for name in ordered for found in DECIMAL.finditer(name)), default=0)
    padded = [DECIMAL.sub(lambda found: found[1] + found[2].ljust(places, "0"), name) for name in ordered]
    return padded != sorted(padded, key=natural)


def open_order(videos: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Says which of some videos, given as (name, its frames' names in order), have names that leave it open, or ""."""
    mixed, moved = list[str](), list[str]()
    for video, names in videos:
        ends = f"first {names[0]}, last {names[-1]})"
        if (own := kinds(names))[1:]:
            mixed.append(f"{video} ({listed(own, 3)}; {ends}")
        if _decimals_move(names):
            moved.append(f"{video} ({ends}")
    said = list[str]()
    if mixed:
        said.append(
            f"The names of frames do not show their order where they are of several kinds: {listed(mixed, 3)}. "
            "Equal kinds stay together. If that is not their order, rename the frames."
        )
    if moved:
        said.append(
            f"The names of frames do not show their order where decimals are of several lengths: {listed(moved, 3)}. "
            "What follows the point was taken as a whole number: 1.5 comes before 1.25. If that is not their order, "
            "rename the frames, with decimals of one length."
        )
    return " ".join(said)
