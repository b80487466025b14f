"""The classes of a network of which only the number is known: those of the data set that has so many."""

from vspw_jax.classes import class_list, label_maps, published, vspw
from vspw_jax.classes.class_list import ClassList

BY_NUMBER = {
    19: ("Cityscapes", "cityscapes", label_maps.OWN),
    21: ("Pascal VOC", "pascal_voc", label_maps.OWN),
    150: ("ADE20K", "ade20k", "reduced_0_149"),
    171: ("COCO-Stuff", "coco_stuff", "trainid_0_170"),
}
"""Number of classes: the data set that has so many, its name, and its numbering in `label_maps`: one of its own where
`published` has its classes."""


def by_number(num_classes: int) -> tuple[ClassList, str]:
    """The classes of the data set that has so many, and what is said of them; else they are numbered."""
    if num_classes == vspw.NUM_CLASSES:
        return vspw.classes(), "named as VSPW's, which are as many"
    if num_classes not in BY_NUMBER:
        return class_list.coloured([f"class {number}" for number in range(num_classes)]), "not named"
    title, dataset, numbering = BY_NUMBER[num_classes]
    has_own = numbering == label_maps.OWN
    own = published.label_map(dataset) if has_own else label_maps.to_own_classes(label_maps.of(dataset, numbering))
    return own.classes, f"named as {title}'s, which are as many"
