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
    """Colours of mask files by train id: ADE20K's palette cut to 124, void black (VSS-CFFM mmseg/datasets/vspw.py)."""
    colours = np.zeros((256, 3), np.uint8)
    colours[:NUM_CLASSES] = [[int(row[channel]) for channel in "rgb"] for row in table()]
    return colours


@functools.cache
def picture_colours() -> UInt8[np.ndarray, "256 3"]:
    """Colours by train id for pictures that people look at, void black.

    In VSPW's palette sky, grass and tree are reds. Here hues follow each other around the circle, at three depths.
    Their start and step were chosen so that classes of a street, a coast and a room are far apart.
    """
    number = np.arange(NUM_CLASSES)
    hue = (30 + number * 315.5) % 360
    saturation, value = np.choose(number % 3, [0.85, 0.5, 0.95]), np.choose(number % 3, [0.95, 0.85, 0.6])
    channels = [(hue / 60 + offset) % 6 for offset in (5, 3, 1)]
    rgb = [value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1) for k in channels]
    colours = np.zeros((256, 3), np.uint8)
    colours[:NUM_CLASSES] = np.round(255 * np.stack(rgb, axis=-1))
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
