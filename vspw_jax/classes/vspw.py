"""The 124 classes of VSPW: names, colours, and the ids that its masks and this codebase use.

A mask file holds raw ids: 1..124 classes, 0 "others", 255 void. Everything after the reader holds train ids:
0..123, and 255 for void. Source: VSPW-dataset/VSPW_baseline dataset.py; VSPW-dataset-download README.
"""

import csv
import functools
import importlib.resources

import numpy as np
from jaxtyping import Integer, UInt8

NUM_CLASSES = 124
VOID = 255


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
    """Colours by train id: ADE20K's palette cut to 124, void black (VSS-CFFM mmseg/datasets/vspw.py)."""
    colours = np.zeros((256, 3), np.uint8)
    colours[:NUM_CLASSES] = [[int(row[channel]) for channel in "rgb"] for row in table()]
    return colours


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
