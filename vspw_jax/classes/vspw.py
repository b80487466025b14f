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

NUM_CLASSES = 124
VOID = 255
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


def names() -> tuple[str, ...]:
    """Class names by train id."""
    return tuple(row["name"] for row in table())


def palette() -> UInt8[np.ndarray, "256 3"]:
    """Colours of mask files by train id: ADE20K's palette cut to 124, void black (VSS-CFFM mmseg/datasets/vspw.py)."""
    result = np.zeros((256, 3), np.uint8)
    result[:NUM_CLASSES] = [[int(row[channel]) for channel in "rgb"] for row in table()]
    return result


@functools.cache
def picture_colours() -> UInt8[np.ndarray, "256 3"]:
    """Colours by train id for pictures that people look at, void black.

    In VSPW's palette sky, grass and tree are reds. Here the classes that should fill most pixels differ most.
    """
    share = {row["name"]: float(row["seen_in"]) * float(row["area"]) for row in table("vspw_expectations")}
    by_share = sorted(share, key=lambda name: (name not in EXPECTED_COLOURS, -share[name]))
    first = [EXPECTED_COLOURS[name] for name in by_share[: len(EXPECTED_COLOURS)]]
    result = np.zeros((256, 3), np.uint8)
    result[[names().index(name) for name in by_share]] = colours.spread(NUM_CLASSES, first)
    return result


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
