"""How data sets number their classes in mask files, and what their papers count.

A numbering is a table of 256 source values to VSPW's train ids, with `NOTHING_KNOWN` and `IMPOSSIBLE`; beside it stand
the names of the classes. Sources: the tables in `vspw_jax/class_tables` and the converters.
"""

import dataclasses

import numpy as np

from data_prep.label_shift import IMPOSSIBLE, NOTHING_KNOWN, shifted
from vspw_jax import classes

PUBLISHED = {
    "vspw": {"train": (2806, 198_244), "val": (343, 24_502), "test": (387, 28_887)},
    "coco_stuff": {"train": (118_287, 118_287), "val": (5_000, 5_000)},
    "ade20k": {"train": (20_210, 20_210), "val": (2_000, 2_000)},
}
"""Videos and frames by split: arXiv 2306.03508; COCO 2017; ADEChallengeData2016. An image counts as a video."""

TRUSTED = ("exact", "close")
"""Fits of a label map by which a class is expected to look like VSPW's; "broad" ones are not."""


@dataclasses.dataclass(frozen=True)
class Numbering:
    """Attributes: title, for messages; names by source value; classes_V, VSPW's train ids by source value."""

    title: str
    names: dict
    classes_V: np.ndarray

    def shifted(self, by):
        """The same in masks whose ids are all `by` too high."""
        names = {value + by: name for value, name in self.names.items()}
        return Numbering(f"{self.title}, shifted by {by:+d}", names, shifted(self.classes_V, by))


def _numbering(title, rows, nothing_known):
    """From rows of (source value, name, VSPW train id or None)."""
    table = np.full(256, IMPOSSIBLE)
    table[list(nothing_known)] = NOTHING_KNOWN
    for value, _, vspw_id in rows:
        table[value] = NOTHING_KNOWN if vspw_id is None else vspw_id
    return Numbering(title, {value: name for value, name, _ in rows}, table)


def _lowered(rows):
    return [(value - 1, name, vspw_id) for value, name, vspw_id in rows]


def _mapped(name, key):
    """VSPW's train id by a column of a label map, where the fit is to be trusted."""
    rows = classes.table(name)
    return {row[key]: int(row["vspw_id"]) if row["fit"] in TRUSTED else None for row in rows}


def vspw():
    """VSPW: 1..124, "others" 0, void 255; 252 to 254 occur and are void."""
    rows = [(int(row["raw_id"]), row["name"], int(row["id"])) for row in classes.table()]
    return {
        "raw": _numbering("VSPW's raw ids 1..124", rows, (0, 252, 253, 254, 255)),
        "train": _numbering("VSPW's train ids 0..123", _lowered(rows), (252, 253, 254, 255)),
    }


def coco_stuff():
    """COCO-Stuff's three numberings; see `class_tables/coco_stuff_classes.csv`."""
    to_vspw = _mapped("coco_to_vspw", "coco_pixelmap_value")
    used = [row for row in classes.table("coco_stuff_classes") if row["used"] == "yes"]

    def rows(column):
        return [(int(row[column]), row["name"], to_vspw[row["pixelmap_value_0_181"]]) for row in used]

    return {
        "pixelmap": _numbering("COCO-Stuff's pixel maps 0..181", rows("pixelmap_value_0_181"), (255,)),
        "trainid": _numbering("mmseg's train ids 0..170", rows("mmseg_trainid_0_170"), (255,)),
        "label": _numbering("COCO-Stuff's label ids 1..182", rows("label_id_1_182"), (0, 255)),
    }


def ade20k():
    """ADE20K: 1..150, "other" 0."""
    rows = [
        (int(row["ade_pixelmap_value_1_150"]), row["ade_name"], int(row["vspw_id"]) if row["fit"] in TRUSTED else None)
        for row in classes.table("ade20k_to_vspw")
    ]
    return {
        "raw": _numbering("ADE20K's ids 1..150", rows, (0, 255)),
        "train": _numbering("ADE20K's train ids 0..149", _lowered(rows), (254, 255)),
    }


DATASETS = {"vspw": vspw, "coco_stuff": coco_stuff, "ade20k": ade20k}
