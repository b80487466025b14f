"""The classes that a network tells apart: their names and their colours, by train id.

VSPW's are `vspw.classes()`. Another data set's own come with its records, see `data_prep/folder.py`, and from there
into the workdirs of its runs.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import UInt8

from vspw_jax.classes import colours
from vspw_jax.console.errors import UserError, listed

VOID = 255
"""The train id of pixels without a class."""
MOST = 255
"""Classes of a data set, as train ids are bytes and one of them is void."""
HOLE = "(void)"
"""The name that stands at void's number in a list of more classes, which several data sets have together."""

FIRST_COLOUR = (225, 30, 50)
"""Of classes of which nothing is known."""

Colour = tuple[int, int, int]
"""RGB."""


@dataclasses.dataclass(frozen=True)
class ClassList:
    """Names and colours; train ids are the places in them.

    Attributes:
      names: no two alike.
      colours: of pictures that people look at.
      file_colours: of the palettes in mask files.

    Raises:
      UserError: no class or too many, two of one name, or not as many colours as names.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    file_colours: tuple[Colour, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MOST and self.names[VOID : VOID + 1] != (HOLE,):
            raise UserError(f"There are {len(self.names)} classes: expected 1 to {MOST}.")
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise UserError(f"Two classes are called {twice!r}: expected another name for each.")
        if {len(self.colours), len(self.file_colours)} != {len(self.names)}:
            raise UserError(
                f"{len(self.names)} classes have {len(self.colours)} colours, {len(self.file_colours)} in files: "
                "expected one for each."
            )

    def __len__(self) -> int:
        return len(self.names)

    def name(self, class_id: int) -> str:
        """A class's name; also for classes of a head that has more than these."""
        return self.names[class_id] if class_id < len(self.names) else f"class {class_id}"

    @functools.cached_property
    def palette(self) -> UInt8[np.ndarray, "K 3"]:
        """Colours of mask files by train id, void black; 256 or more rows."""
        return _by_id(self.file_colours)

    @functools.cached_property
    def picture_palette(self) -> UInt8[np.ndarray, "K 3"]:
        """Colours of pictures by train id, void black; 256 or more rows."""
        return _by_id(self.colours)

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes it again."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """See `to_json`."""
        as_colours = lambda rows: tuple((int(r), int(g), int(b)) for r, g, b in rows)
        return cls(tuple(values["names"]), as_colours(values["colours"]), as_colours(values["file_colours"]))


def coloured(
    names: Sequence[str], stated: Mapping[str, Colour] | None = None, file_colours: Sequence[Colour] | None = None
) -> ClassList:
    """Classes of which colours may be known.

    Args:
      stated: of pictures, by name; see `chosen_colours`.
      file_colours: of mask files; None where they have those of pictures.
    """
    chosen = chosen_colours(names, stated or {})
    return ClassList(tuple(names), chosen, tuple(file_colours or chosen))


def chosen_colours(names: Sequence[str], stated: Mapping[str, Colour]) -> tuple[Colour, ...]:
    """The colours that are stated by name; the others get some that are far from these and from each other."""
    first = list(stated.values())
    spread = colours.spread(max(len(names), len(first), 1), first or [FIRST_COLOUR]).tolist()
    others = iter(spread[len(first) :])
    return tuple(stated.get(name) or tuple(next(others)) for name in names)


def told_apart(names: Iterable[str]) -> list[str]:
    """The names, with a number behind those that came before."""
    result: list[str] = []
    for name in names:
        again = sum(other == name or other.startswith(f"{name} (") for other in result)
        result.append(f"{name} ({again + 1})" if again else name)
    return result


def check_same(of_network: ClassList, of_data: ClassList, path: pathlib.Path | str) -> None:
    """Raises UserError where a network is to be scored on data of other classes; `path` is the data's."""
    if of_network.names != of_data.names:
        raise UserError(
            f"The network tells apart {len(of_network)} classes ({listed(of_network.names, 3)}), {path} has "
            f"{len(of_data)} others ({listed(of_data.names, 3)}): expected data of the same classes in "
            "--config.data.records."
        )


def check_numbered_alike(of_network: ClassList, of_data: ClassList, path: pathlib.Path | str) -> None:
    """As `check_same`, of a network whose names others may have written, and spelled some of them otherwise.

    Both must have as many classes, and most of the names in common must have one number in both: all of them, where the
    one list holds the same names as the other. ADE20K has a "screen" that is another class of it by another table.
    """
    number_of = {name: number for number, name in enumerate(of_data.names)}
    alike = [number_of[name] == number for number, name in enumerate(of_network.names) if name in number_of]
    is_in_order = all(alike) if len(alike) == len(of_data) else sum(alike) > len(alike) / 2
    if len(of_network) == len(of_data) and is_in_order:
        return
    raise UserError(
        f"The network tells apart {len(of_network)} classes ({listed(of_network.names, 3)}), {path} has "
        f"{len(of_data)} others ({listed(of_data.names, 3)}), or the same in another order: expected data of the same "
        "classes in --config.data.records. If the network's are those of several data sets together, name all of these "
        "in config.data and config.data.mixture, with --config.data.classes=union, or take it from the workdir that it "
        "was trained in."
    )


def _by_id(colours_K3: Sequence[Colour]) -> UInt8[np.ndarray, "K 3"]:
    result = np.zeros((max(len(colours_K3), VOID + 1), 3), np.uint8)
    result[: len(colours_K3)] = colours_K3
    result.setflags(write=False)  # All callers share it.
    return result
