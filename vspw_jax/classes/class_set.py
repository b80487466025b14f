"""The classes of a network: their names, and their colours in masks and in pictures.

Arrays of colours have a row for each value of a label, black for those of no class.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from vspw_jax.classes import colours, label_maps, vspw

FIRST_COLOUR = (225, 30, 50)
"""Of classes of which nothing is known."""

BY_NUMBER = {150: ("ADE20K", "ade20k", "reduced_0_149"), 171: ("COCO-Stuff", "coco_stuff", "trainid_0_170")}
"""Number of classes: the data set that has so many, and its name and numbering in `label_maps`."""


@dataclasses.dataclass(frozen=True, eq=False)
class ClassSet:
    """Names by train id, and the colours of mask files, where the data set has some."""

    names: tuple[str, ...]
    palette_or_none: UInt8[np.ndarray, "256 3"] | None = None

    @property
    def palette(self) -> UInt8[np.ndarray, "256 3"]:
        """Colours of mask files."""
        return self.colours if self.palette_or_none is None else self.palette_or_none

    @functools.cached_property
    def colours(self) -> UInt8[np.ndarray, "256 3"]:
        """Colours for pictures that people look at; see `vspw.picture_colours`."""
        if self.names == vspw.names():
            return vspw.picture_colours()
        return rows(colours.spread(len(self.names), [FIRST_COLOUR]))


def rows(colours_K3: Sequence[Sequence[int]] | UInt8[np.ndarray, "K 3"]) -> UInt8[np.ndarray, "256 3"]:
    """Colours by train id as one array with a row for each value of a label."""
    result = np.zeros((256, 3), np.uint8)
    result[: len(colours_K3)] = colours_K3
    return result


VSPW = ClassSet(vspw.names(), vspw.palette())


def by_number(num_classes: int) -> tuple[ClassSet, str]:
    """The classes of the data set that has so many, and what is said of them; else they are numbered."""
    if num_classes == vspw.NUM_CLASSES:
        return VSPW, "named as VSPW's, which are as many"
    if num_classes not in BY_NUMBER:
        return ClassSet(tuple(f"class {number}" for number in range(num_classes))), "not named"
    title, dataset, numbering = BY_NUMBER[num_classes]
    names = [source.name.split(";")[0] for source in label_maps.source_classes(dataset, numbering)]
    return ClassSet(tuple(names)), f"named as {title}'s, which are as many"
