"""Where in the source an instruction of a compiled program comes from: the tables at the head of the program's text."""

import dataclasses
import re

SECTION = re.compile(r"^(FileNames|FunctionNames|FileLocations|StackFrames)\n((?:\d+ .*\n)*)", re.MULTILINE)
NUMBER = re.compile(r"(\w+)=(\d+)")
DEEPEST = 200
"""Frames of a stack at most: a damaged table could lead in a circle."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """A place in the source: path of the file, name of the function, line."""

    path: str
    function: str
    line: int


def _rows(text):
    """{number: rest of the row} of a section."""
    return {int(number): rest for number, _, rest in (row.partition(" ") for row in text.splitlines())}


class Frames:
    """The stacks of a program's instructions, by the number that their metadata has."""

    def __init__(self, text: str) -> None:
        sections = {name: _rows(rows) for name, rows in SECTION.findall(text)}
        names = {name: {n: row.strip('"') for n, row in sections.get(name, {}).items()} for name in sections}
        numbers = lambda section: {
            n: {k: int(v) for k, v in NUMBER.findall(r)} for n, r in sections.get(section, {}).items()
        }
        self._locations = {
            number: Frame(
                names["FileNames"].get(row["file_name_id"], "?"),
                names["FunctionNames"].get(row.get("function_name_id", 0), "?"),
                row["line"],
            )
            for number, row in numbers("FileLocations").items()
        }
        self._stacks = numbers("StackFrames")
        self._known: dict[int, tuple[Frame, ...]] = {0: ()}

    def stack(self, number: int) -> tuple[Frame, ...]:
        """The frames of a stack, outermost first; none of a number that is not listed."""
        if number not in self._known:
            found, at = [], number
            while at in self._stacks and len(found) < DEEPEST:
                row = self._stacks[at]
                found.append(self._locations[row["file_location_id"]])
                at = row.get("parent_frame_id", 1) - 1  # The text counts them from 1, with 0 for no parent.
            self._known[number] = tuple(reversed(found))
        return self._known[number]
