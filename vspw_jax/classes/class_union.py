"""The classes of several data sets beside each other, none mapped to another's.

A union numbers the classes of its first data set from 0, then those of the next. Void is 255 in it as in each data set,
so no class has that number: a network of more than 255 classes has an output there that no pixel is ever labelled with.
Everything that knows void by its number works on unions unchanged.
Source: paper 003 (MDP, arXiv 2106.04121), section 3.2: the class set is that of all data sets together.
"""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from jaxtyping import Int32

from vspw_jax.classes.class_list import HOLE, VOID, ClassList, check_same, chosen_colours, told_apart
from vspw_jax.console.errors import UserError, listed


@dataclasses.dataclass(frozen=True)
class Part:
    """A data set's classes in a union.

    Attributes:
      name: of the data set, or of the mixture's member; no two alike.
      classes: its own, as they are called without the others.
      first: the union's number of the first of them.
    """

    name: str
    classes: ClassList
    first: int

    @functools.cached_property
    def numbers(self) -> Int32[np.ndarray, " K"]:
        """The union's number of each class."""
        numbers = self.first + np.arange(len(self.classes), dtype=np.int32)
        return np.where((self.first < VOID) & (numbers >= VOID), numbers + 1, numbers)

    @functools.cached_property
    def lookup(self) -> Int32[np.ndarray, "256"]:
        """The union's number by the data set's own train id; void stays void."""
        result = np.full(256, VOID, np.int32)
        result[: len(self.classes)] = self.numbers
        return result


@dataclasses.dataclass(frozen=True)
class ClassUnion(ClassList):
    """The classes of several data sets; their numbers are the places in the names.

    Attributes:
      parts: the data sets.
    """

    parts: tuple[Part, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """See `to_json`."""
        plain = ClassList.from_json(values)
        parts = (
            Part(str(one["name"]), ClassList.from_json(one["classes"]), int(one["first"])) for one in values["parts"]
        )
        return cls(plain.names, plain.colours, plain.file_colours, tuple(parts))

    def numbered_as(self, others: ClassList) -> Self | None:
        """The union in the numbering of a list of the same names, whose data sets may come in another order.

        None where the list has other names, or they are not one data set's after the other's.
        """
        if len(others) != len(self) or set(others.names) != set(self.names):
            return None
        parts = []
        for part in self.parts:
            numbers = [others.names.index(self.names[number]) for number in part.numbers]
            parts.append(dataclasses.replace(part, first=numbers[0]))
            if parts[-1].numbers.tolist() != numbers:
                return None
        parts.sort(key=lambda part: part.first)
        return dataclasses.replace(
            self, names=others.names, colours=others.colours, file_colours=others.file_colours, parts=tuple(parts)
        )


def from_json(values: Mapping[str, Any]) -> ClassList:
    """What `ClassList.to_json` or a union's has written."""
    return ClassUnion.from_json(values) if "parts" in values else ClassList.from_json(values)


def of(members: Iterable[tuple[str, str, ClassList]]) -> ClassList:
    """The union of the classes of a mixture's members, in their order; of a single data set its classes as they are.

    Members of the same classes, such as two splits of a data set, share them. Names that several data sets have are
    told apart by the data set's: "ade20k/wall"; by the member's, where another set has the same or is called so in the
    mixture. Colours of the first data set stay; the others' are far from them.

    Args:
      members: of each the name in the mixture, the data set's name, and its classes.
    """
    by_names: dict[tuple[str, ...], tuple[str, str, ClassList]] = {}
    for member, dataset, classes in members:
        by_names.setdefault(classes.names, (member, dataset, classes))
    datasets = collections.Counter(dataset for _, dataset, _ in by_names.values())
    keys = {member for member, _, _ in by_names.values()}
    parts: list[Part] = []
    for member, dataset, classes in by_names.values():
        first = int(parts[-1].numbers[-1]) + 1 if parts else 0
        name = dataset if datasets[dataset] == 1 and dataset not in keys - {member} else member
        parts.append(Part(name, classes, first + (first == VOID)))
    return parts[0].classes if len(parts) == 1 else _joined(parts)


def _joined(parts: Iterable[Part]) -> ClassUnion:
    parts = tuple(parts)
    count = collections.Counter(name for part in parts for name in part.classes.names)
    names = told_apart(
        name if count[name] == 1 else f"{part.name}/{name}" for part in parts for name in part.classes.names
    )
    known = dict(zip(names, parts[0].classes.colours, strict=False))
    colours = list(chosen_colours(names, known))
    if len(names) > VOID:
        names.insert(VOID, HOLE)
        colours.insert(VOID, (0, 0, 0))
    return ClassUnion(tuple(names), tuple(colours), tuple(colours), parts)


def part_for(of_network: ClassList, of_data: ClassList, path: pathlib.Path | str) -> Part | None:
    """The part of a union that is to be scored on data of its classes; None where the network has these alone.

    Raises:
      UserError: the network has none of these; `path` is the data's.
    """
    if not isinstance(of_network, ClassUnion):
        check_same(of_network, of_data, path)
        return None
    for part in of_network.parts:
        if part.classes.names == of_data.names:
            return part
    own = ", ".join(f"{part.name} ({len(part.classes)})" for part in of_network.parts)
    raise UserError(
        f"The network tells apart the classes of {own}; {path} has {len(of_data)} others "
        f"({listed(of_data.names, 3)}): expected data of one of these sets in --config.data.records."
    )
