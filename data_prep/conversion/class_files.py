"""A user's list of classes: a CSV or JSON file of names, with the ids or the colours that masks have for them."""

import collections
import csv
import dataclasses
import io
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vspw_jax.classes import label_maps, vspw
from vspw_jax.classes.class_list import VOID, ClassList, Colour, coloured
from vspw_jax.classes.label_maps import LabelMap
from vspw_jax.console.errors import UserError, listed

COLUMNS = ("id", "name", "colour", "color", "r", "g", "b")
EXPECTED = (
    "Expected CSV with the columns name, id (its value in masks; without it the row's number from 0) and, where masks "
    'hold colours, colour (#rrggbb) or r, g and b; or JSON: a list of such rows, or {"id": "name", ...}'
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A class: its name, the id and the colour that masks have for it, if any."""

    name: str
    id: int
    colour: Colour | None


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What a user's masks mean.

    Attributes:
      labels: what values mean.
      mask_colours: values by colour, where masks hold colours; see `frames.Form`.
    """

    labels: LabelMap
    mask_colours: tuple[tuple[Colour, int], ...] | None


def read(path: pathlib.Path | str) -> list[Row]:
    """The classes of a file, in order.

    Raises:
      UserError: there is no such file, it holds no such list, or ids, names or colours that clash or lack in part.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--classes={path} cannot be read ({error}). {EXPECTED}.") from error
    try:
        rows = _json_rows(text) if text.lstrip()[:1] in ("[", "{") else _csv_rows(text)
        _check_columns(rows)
        found = [_row(number, row) for number, row in enumerate(rows)]
    except (ValueError, csv.Error) as error:
        raise UserError(f"--classes={path}: {error}. {EXPECTED}.") from error
    _check(path, found)
    return found


def _json_rows(text: str) -> list[dict[str, Any]]:
    stated = json.loads(text)
    if isinstance(stated, dict) and isinstance(stated.get("classes"), list):
        stated = stated["classes"]
    if isinstance(stated, dict):
        stated = [{"id": number, **(row if isinstance(row, dict) else {"name": row})} for number, row in stated.items()]
    rows = [{"name": row} if isinstance(row, str) else row for row in stated]
    if strange := [row for row in rows if not isinstance(row, dict)]:
        raise ValueError(f"{strange[0]!r} is no class")
    return [{str(column).lower(): value for column, value in row.items()} for row in rows]


def _csv_rows(text: str) -> list[dict[str, Any]]:
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True, strict=True)
    rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
    if "name" not in rows.fieldnames:
        raise ValueError(f"its first line is {','.join(rows.fieldnames)!r}, in which there is no column 'name'")
    found = [row for row in rows if any(map(_is_stated, row.values()))]
    for row in found:
        if None in row or None in row.values():
            raise ValueError(f"the line of {row['name']!r} has more or fewer cells than the first line")
    return found


def _is_stated(value: Any) -> bool:
    return value is not None and str(value).strip() != ""


def _check_columns(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raises ValueError where a column means nothing, or where only some classes have an id or a colour."""
    columns = {column for row in rows for column in row}
    if strange := sorted(columns - set(COLUMNS)):
        raise ValueError(f"it has {', '.join(map(repr, strange))}, which means nothing here")
    for column in ("id", "colour", "color", "r", "g", "b"):
        without = [row.get("name") for row in rows if not _is_stated(row.get(column))]
        if 0 < len(without) < len(rows):
            raise ValueError(f"{without[0]!r} has no {column}, while other classes have one")


def _row(number: int, row: Mapping[str, Any]) -> Row:
    name = row.get("name")
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ValueError(f"class {number} is called {name!r}, which is no name on one line")
    name, stated = name.strip(), row.get("id")
    try:
        value = int(str(stated)) if _is_stated(stated) else number
        colour = _colour_of(row)
    except ValueError as error:
        raise ValueError(f"class {name!r}: {error}") from error
    if not 0 <= value <= VOID:
        raise ValueError(f"class {name!r} has the id {value}: ids are 0 to {VOID}")
    return Row(name, value, colour)


def _colour_of(row: Mapping[str, Any]) -> Colour | None:
    given = [row.get(channel) for channel in "rgb"]
    if any(map(_is_stated, given)):
        return colour(given)
    stated = row.get("colour", row.get("color"))
    return colour(stated) if _is_stated(stated) else None


def colour(stated: Any) -> Colour:
    """An RGB colour from three numbers or "#rrggbb"; ValueError for anything else."""
    if isinstance(stated, str):
        text = stated.strip()
        if re.fullmatch("#?[0-9a-fA-F]{6}", text):
            stated = bytes.fromhex(text.removeprefix("#"))
        else:
            stated = re.split("[ ,;]+", text.strip("()[]"))
    try:
        channels = [int(str(value)) for value in stated]
    except (TypeError, ValueError):
        channels = []
    if len(channels) != 3 or not all(0 <= value <= 255 for value in channels):
        raise ValueError(f"{stated!r} is no colour: expected #rrggbb or three numbers from 0 to 255")
    return channels[0], channels[1], channels[2]


def _check(path: pathlib.Path, rows: Sequence[Row]) -> None:
    for what in ("name", "id", "colour"):
        values = [str(getattr(row, what)) for row in rows if getattr(row, what) is not None]
        if twice := [value for value, count in collections.Counter(values).items() if count > 1]:
            owners = [row.name for row in rows if str(getattr(row, what)) == twice[0]]
            raise UserError(
                f"--classes={path}: the {what} {twice[0]} stands twice, for {' and '.join(owners)}. "
                f"Expected another {what} for each class."
            )
    if not rows:
        raise UserError(f"--classes={path} lists no class. {EXPECTED}.")


def class_list(rows: Sequence[Row]) -> ClassList:
    """Names and colours; a class without a colour gets one that everybody expects, or that differs from all others."""
    stated = {row.name: colour for row in rows if (colour := row.colour or vspw.EXPECTED_COLOURS.get(row.name))}
    return coloured([row.name for row in rows], stated)


def _void(stated: Iterable[str], rows: Sequence[Row]) -> tuple[list[int], list[Colour]]:
    """The ids and the colours among what --void names."""
    ids, of_void = list[int](), list[Colour]()
    for text in stated:
        try:
            if text.startswith("#"):
                of_void.append(colour(text))
            else:
                ids.append(int(text))
                if not 0 <= ids[-1] <= VOID:
                    raise ValueError
        except ValueError as error:
            raise UserError(f"--void={text}: expected ids from 0 to {VOID} or colours as #rrggbb.") from error
    for row in rows:
        if row.id in ids or row.colour in of_void:
            raise UserError(f"--void names what the list of classes calls {row.name!r}: leave it out of one of them.")
    return ids, of_void


def of_ids(dataset: str, rows: Sequence[Row], void: Sequence[str]) -> Meaning:
    """Of masks that hold ids; 255 is void where no class has it."""
    ids, _ = _void(void, rows)
    values = [row.id for row in rows]
    spare = [VOID] if VOID not in values else []
    labels = label_maps.own(dataset, class_list(rows), values, sorted({*ids, *spare}))
    return Meaning(labels, None)


def of_colours(dataset: str, rows: Sequence[Row], void: Sequence[str]) -> Meaning:
    """Of masks that hold colours; in records each class has its place in the list as value, void 255.

    Raises:
      UserError: a class has no colour.
    """
    if missing := [row.name for row in rows if row.colour is None]:
        raise UserError(
            f"The masks hold colours, and the list of classes has none for {listed(missing, 4)}: expected a colour for "
            "each class."
        )
    _, of_void = _void(void, rows)
    of_classes = [(row.colour, number) for number, row in enumerate(rows) if row.colour]
    labels = label_maps.own(dataset, class_list(rows), range(len(rows)), [VOID])
    return Meaning(labels, (*of_classes, *((each, VOID) for each in of_void)))
