"""From the label values of a data set's masks to VSPW's train ids.

A data set may come in several numberings of the same classes; converted records name theirs. The class tables say which
classes of another data set correspond to VSPW's, and how well: their column `fit` is exact, close, broad or none.
Arrays over values have 256 entries, one for each value that a mask's pixel can take.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterable

import numpy as np
from jaxtyping import Bool, UInt8

from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError, choose

FITS = ("exact", "close", "broad")
"""How well a class of another data set corresponds to VSPW's, best first."""

DENOMINATORS = ("all", "labelled")
"""Of which pixels the mapped share is taken: of all in the image, or of those that its own data set gives a class."""


@dataclasses.dataclass(frozen=True)
class Numbering:
    """How a release of a data set numbers its classes.

    Attributes:
      table: name of the class table, which has a row a class.
      column: the table's column of numbers.
      offset: what is added to them.
      void: values for pixels without a class.
    """

    table: str
    column: str
    void: tuple[int, ...]
    offset: int = 0


NUMBERINGS = {
    "vspw": {"raw_1_124": Numbering("vspw_classes", "raw_id", void=(0, 252, 253, 254, 255))},
    "coco_stuff": {
        "pixelmap_0_181": Numbering("coco_to_vspw", "coco_pixelmap_value", void=(255,)),
        "trainid_0_170": Numbering("coco_to_vspw", "coco_trainid_171", void=(255,)),
        "label_1_182": Numbering("coco_to_vspw", "coco_pixelmap_value", void=(0,), offset=1),
    },
    "ade20k": {
        "raw_0_150": Numbering("ade20k_to_vspw", "ade_pixelmap_value_1_150", void=(0,)),
        "reduced_0_149": Numbering("ade20k_to_vspw", "ade_trainid_0_149", void=(255,)),
    },
}
"""By data set and name of the numbering.
VSPW: 0 is "others", 252 to 254 are stray values of the release (VSPW-dataset-download#3).
COCO-Stuff: the pixelmaps as published; mmsegmentation's *_labelTrainIds.png; the ids of labels.txt, 0 unlabelled.
ADE20K: the SceneParsing release, 0 other; the same after reduce_zero_label."""


@dataclasses.dataclass(frozen=True)
class SourceClass:
    """A class of a data set: the value of its pixels, its name there, VSPW's train id (None if none fits), the fit."""

    value: int
    name: str
    vspw_id: int | None
    fit: str


@functools.cache
def source_classes(dataset: str, numbering: str) -> tuple[SourceClass, ...]:
    """The classes of a data set in a numbering.

    Raises:
      UserError: unknown data set or numbering.
    """
    rule = choose(choose(NUMBERINGS, dataset, "The data set"), numbering, f"The numbering of {dataset}")
    return tuple(_source_class(row, int(row[rule.column]) + rule.offset) for row in vspw.table(rule.table))


def _source_class(row: dict[str, str], value: int) -> SourceClass:
    name = next(row[column] for column in ("coco_name", "ade_name", "name") if column in row)
    fit = row.get("fit", "exact")
    vspw_id = row["vspw_id" if "vspw_id" in row else "id"]
    return SourceClass(value, name, None if fit == "none" else int(vspw_id), fit)


def check_fits(fits: Iterable[str]) -> None:
    """Raises UserError if one of the fits is not in FITS."""
    for fit in fits:
        if fit not in FITS:
            raise UserError(f"There is no fit {fit!r}: expected some of {', '.join(FITS)}.")


def lookup(dataset: str, numbering: str, fits: Collection[str] = FITS) -> UInt8[np.ndarray, "256"]:
    """VSPW train ids by source value; void 255 where no class of the chosen fits corresponds.

    Raises:
      UserError: unknown data set, numbering or fit.
    """
    check_fits(fits)
    ids = np.full(256, vspw.VOID, np.uint8)
    for source in source_classes(dataset, numbering):
        if source.vspw_id is not None and source.fit in fits:
            ids[source.value] = source.vspw_id
    return ids


def labelled(dataset: str, numbering: str) -> Bool[np.ndarray, "256"]:
    """Which source values are classes of their own data set."""
    return np.isin(np.arange(256), [source.value for source in source_classes(dataset, numbering)])


@functools.cache
def allowed(dataset: str, numbering: str) -> Bool[np.ndarray, "256"]:
    """Which source values a mask may hold: classes and void."""
    known = labelled(dataset, numbering)
    known[list(NUMBERINGS[dataset][numbering].void)] = True
    known.setflags(write=False)  # The cache hands out this very array.
    return known
