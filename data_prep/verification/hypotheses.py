"""Which numberings masks may have instead of the expected one, and how many videos and frames papers count.

Shapes: V = 256 source values of a mask.
"""

import numpy as np

from data_prep.verification.label_shift import IMPOSSIBLE, NOTHING_KNOWN, Numbering, shifted
from vspw_jax.classes import label_maps
from vspw_jax.classes.label_maps import LabelMap

PUBLISHED: dict[str, dict[str, tuple[tuple[int, int], ...]]] = {
    "vspw": {"train": ((2806, 198_244),), "val": ((343, 24_502),), "test": ((387, 28_887),)},
    "coco_stuff": {"train": ((118_287, 118_287),), "val": ((5_000, 5_000),)},
    "ade20k": {"train": ((20_210, 20_210),), "val": ((2_000, 2_000),)},
    "pascal_voc": {"train": ((10_582, 10_582), (1_464, 1_464)), "val": ((1_449, 1_449),)},
    "cityscapes": {
        "train": ((2_975, 2_975), (2_975, 89_250)),
        "val": ((500, 500), (500, 15_000)),
        "test": ((1_525, 1_525), (1_525, 45_750)),
    },
}
"""Videos and frames by split, where a data set comes in two sizes of both: arXiv 2306.03508; COCO 2017;
ADEChallengeData2016; VOC 2012 with SBD and without it; Cityscapes' images and its sequences of 30. An image counts as a
video."""

TITLES = {
    "raw_1_124": "VSPW's raw ids 1..124",
    "pixelmap_0_181": "COCO-Stuff's pixelmaps 0..181",
    "trainid_0_170": "mmseg's train ids 0..170",
    "label_1_182": "COCO-Stuff's label ids 1..182",
    "raw_0_150": "ADE20K's ids 1..150",
    "reduced_0_149": "ADE20K's train ids 0..149",
    label_maps.OWN: "the values of its own list of classes",
}

TRUSTED = ("exact", "close")
"""A class that a label map fits so well is expected to look like VSPW's; one of fit "broad" is not."""


def numbering(labels: LabelMap) -> Numbering:
    """What is expected of a mask's values; of a data set's own classes nothing is known but which values there are."""
    table = np.full(256, IMPOSSIBLE)
    table[list(labels.void)] = NOTHING_KNOWN
    for source in labels.sources:
        known = labels.numbering != label_maps.OWN and source.train_id is not None and source.fit in TRUSTED
        table[source.value] = source.train_id if known else NOTHING_KNOWN
    return Numbering(TITLES[labels.numbering], {source.value: source.name for source in labels.sources}, table)


def one_off(right: Numbering, by: int) -> Numbering:
    """The numbering of masks whose ids are all `by` too high."""
    names = {value + by: name for value, name in right.names.items()}
    title = f"{right.title}, shifted by {by:+d}"
    if by == -1 and right.title == TITLES["raw_1_124"]:
        title = "VSPW's train ids 0..123, raw ids shifted by -1"
    return Numbering(title, names, shifted(right.classes_V, by))


def of(labels: LabelMap) -> tuple[Numbering, list[Numbering]]:
    """The numbering that masks should have, and all that they may have instead."""
    expected, others = numbering(labels), list[Numbering]()
    if labels.numbering == label_maps.OWN:
        return expected, []
    known = [numbering(label_maps.of(labels.dataset, other)) for other in label_maps.NUMBERINGS[labels.dataset]]
    for other in (*known, one_off(expected, -1), one_off(expected, 1)):
        if all(other.names != found.names for found in (expected, *others)):
            others.append(other)
    return expected, others
