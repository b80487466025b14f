"""The 124 classes of VSPW: names, colours, and the ids that its masks and this codebase use.

A mask file holds raw ids: 1..124 classes, 0 "others", 255 void. Everything after the reader holds train ids:
0..123, and 255 for void. Source: VSPW-dataset/VSPW_baseline dataset.py; VSPW-dataset-download README.
"""

import csv
import functools
import importlib.resources

import numpy as np
from jaxtyping import Integer, UInt8

from vspw_jax.classes import colours
from vspw_jax.classes.class_list import VOID as VOID
from vspw_jax.classes.class_list import ClassList

NUM_CLASSES = 124
EXPECTED_COLOURS = {
    "sky": (120, 205, 255),
    "tree": (0, 115, 45),
    "grass": (150, 235, 60),
    "sea": (0, 70, 225),
    "sand": (240, 200, 110),
    "person": (225, 30, 50),
    "ball": (255, 130, 0),
    "ship_or_boat": (125, 75, 20),
}
"""In pictures, where a class has a colour that everybody expects."""


@functools.cache
def table(name: str = "vspw_classes") -> tuple[dict[str, str], ...]:
    """Rows of a class table of `vspw_jax/classes/tables/`, as dicts of strings."""
    path = importlib.resources.files("vspw_jax") / "classes" / "tables" / f"{name}.csv"
    with path.open() as file:
        return tuple(csv.DictReader(file))


@functools.cache
def classes() -> ClassList:
    """The 124 classes.

    Mask files have ADE20K's palette cut to 124 (VSS-CFFM mmseg/datasets/vspw.py), in which sky, grass and tree are
    reds. In pictures the classes that should fill most pixels differ most.
    """
    names = tuple(row["name"] for row in table())
    share = {row["name"]: float(row["seen_in"]) * float(row["area"]) for row in table("vspw_expectations")}
    by_share = sorted(share, key=lambda name: (name not in EXPECTED_COLOURS, -share[name]))
    first = [EXPECTED_COLOURS[name] for name in by_share[: len(EXPECTED_COLOURS)]]
    colour_of = dict(zip(by_share, map(tuple, colours.spread(NUM_CLASSES, first).tolist()), strict=True))
    in_files = tuple((int(row["r"]), int(row["g"]), int(row["b"])) for row in table())
    return ClassList(names, tuple(colour_of[name] for name in names), in_files)


def are(others: ClassList) -> bool:
    """Whether classes are VSPW's, however they are coloured."""
    return others.names == classes().names


def from_raw(raw: Integer[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Raw ids to train ids: 1..124 to 0..123; 0, 255 and every stray value (252 to 254 occur) to void."""
    lookup = np.full(256, VOID, np.uint8)
    lookup[1 : NUM_CLASSES + 1] = np.arange(NUM_CLASSES)
    return lookup[raw]


def to_raw(label: Integer[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Train ids to raw ids: 0..123 to 1..124, void stays 255."""
    lookup = np.full(256, VOID, np.uint8)
    lookup[:NUM_CLASSES] = np.arange(1, NUM_CLASSES + 1)
    return lookup[label]
