"""Public data sets whose classes stand for themselves, with no map to VSPW's: their class tables as label maps.

A table `<data set>_classes.csv` has a row a class: id (its value in masks), name, and the colour of its masks' palette.
"""

from vspw_jax.classes import label_maps, vspw
from vspw_jax.classes.class_list import VOID, ClassList
from vspw_jax.classes.label_maps import LabelMap

VOID_VALUES = {
    "pascal_voc": (VOID,),
    "cityscapes": (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, VOID),
}
"""By data set, the values of masks that mean no class.
Pascal VOC: borders of objects and what is difficult. Source: VOCdevkit's VOCevalseg.m.
Cityscapes: what its evaluation ignores. Source: mcordts/cityscapesScripts cityscapesscripts/helpers/labels.py."""


def label_map(dataset: str) -> LabelMap:
    """From the values of a data set's masks to its own classes."""
    rows = vspw.table(f"{dataset}_classes")
    colours = tuple((int(row["r"]), int(row["g"]), int(row["b"])) for row in rows)
    classes = ClassList(tuple(row["name"] for row in rows), colours, colours)
    return label_maps.own(dataset, classes, [int(row["id"]) for row in rows], VOID_VALUES[dataset])
