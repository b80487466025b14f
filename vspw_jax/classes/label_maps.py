"""From the label values of a data set's masks to train ids.

A data set may come in several numberings of the same classes; converted records name theirs. The class tables say which
classes of another data set correspond to VSPW's, and how well: their column `fit` is exact, close, broad or none.
A data set of the user's own has its own classes, which come with its records.
Arrays over values have 256 entries, one for each value that a mask's pixel can take.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from vspw_jax.classes import vspw
from vspw_jax.classes.class_list import VOID, ClassList, coloured, told_apart
from vspw_jax.console.errors import UserError, choose

FITS = ("exact", "close", "broad")
"""How well a class of another data set corresponds to VSPW's, best first."""

DENOMINATORS = ("all", "labelled")
"""Of which pixels the mapped share is taken: of all in the image, or of those that its own data set gives a class."""

OWN = "own"
"""The numbering of masks whose data set brings its own classes."""


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
    """A class of a data set: the value of its pixels, its name there, the train id (None if none fits), the fit."""

    value: int
    name: str
    train_id: int | None
    fit: str


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """What the values of a data set's masks mean.

    Attributes:
      dataset, numbering: their names.
      classes: those that the train ids count.
      sources: the data set's own classes.
      void: values for pixels without a class.
    """

    dataset: str
    numbering: str
    classes: ClassList
    sources: tuple[SourceClass, ...]
    void: tuple[int, ...]

    def lookup(self, fits: Collection[str] = FITS) -> UInt8[np.ndarray, "256"]:
        """Train ids by source value; void 255 where no class of the chosen fits corresponds.

        Raises:
          UserError: unknown fit.
        """
        check_fits(fits)
        ids = np.full(256, VOID, np.uint8)
        for source in self.sources:
            if source.train_id is not None and source.fit in fits:
                ids[source.value] = source.train_id
        return ids

    @functools.cached_property
    def labelled(self) -> Bool[np.ndarray, "256"]:
        """Which source values are classes of their own data set."""
        return _frozen(np.isin(np.arange(256), [source.value for source in self.sources]))

    @functools.cached_property
    def allowed(self) -> Bool[np.ndarray, "256"]:
        """Which source values a mask may hold: classes and void."""
        return _frozen(self.labelled | np.isin(np.arange(256), self.void))


def _frozen(values: np.ndarray) -> np.ndarray:
    values.setflags(write=False)  # All callers share it.
    return values


@functools.cache
def of(dataset: str, numbering: str) -> LabelMap:
    """To VSPW's classes, from a known data set's.

    Raises:
      UserError: unknown data set or numbering.
    """
    rule = choose(choose(NUMBERINGS, dataset, "The data set"), numbering, f"The numbering of {dataset}")
    sources = tuple(_source_class(row, int(row[rule.column]) + rule.offset) for row in vspw.table(rule.table))
    return LabelMap(dataset, numbering, vspw.classes(), sources, rule.void)


def _source_class(row: dict[str, str], value: int) -> SourceClass:
    name = next(row[column] for column in ("coco_name", "ade_name", "name") if column in row)
    fit = row.get("fit", "exact")
    vspw_id = row["vspw_id" if "vspw_id" in row else "id"]
    return SourceClass(value, name, None if fit == "none" else int(vspw_id), fit)


def own(dataset: str, classes: ClassList, values: Sequence[int], void: Sequence[int]) -> LabelMap:
    """To a data set's own classes.

    Args:
      values: of the classes' pixels in its masks, in the order of the classes.
      void: see `LabelMap`.
    """
    sources = (
        SourceClass(value, name, number, "exact")
        for number, (value, name) in enumerate(zip(values, classes.names, strict=True))
    )
    return LabelMap(dataset, OWN, classes, tuple(sources), tuple(void))


def to_own_classes(label_map: LabelMap) -> LabelMap:
    """The same masks to their data set's own classes, where the map leads to VSPW's."""
    if vspw.are(label_map.classes) and label_map.dataset != "vspw":
        names = told_apart(source.name.split(";")[0] for source in label_map.sources)
        values = [source.value for source in label_map.sources]
        return own(label_map.dataset, coloured(names), values, label_map.void)
    return label_map


def to_metadata(label_map: LabelMap) -> dict[str, Any]:
    """What records must say of themselves, as JSON values, so that `from_metadata` makes the map again."""
    stated: dict[str, Any] = {"dataset": label_map.dataset, "numbering": label_map.numbering}
    if label_map.numbering == OWN:
        values = [source.value for source in label_map.sources]
        stated["classes"] = {**label_map.classes.to_json(), "values": values, "void": list(label_map.void)}
    return stated


def from_metadata(metadata: Mapping[str, Any]) -> LabelMap:
    """See `to_metadata`; UserError for an unknown data set or numbering."""
    if metadata["numbering"] != OWN:
        return of(metadata["dataset"], metadata["numbering"])
    stated = metadata["classes"]
    return own(metadata["dataset"], ClassList.from_json(stated), stated["values"], stated["void"])


def check_fits(fits: Iterable[str]) -> None:
    """Raises UserError if one of the fits is not in FITS."""
    for fit in fits:
        if fit not in FITS:
            raise UserError(f"There is no fit {fit!r}: expected some of {', '.join(FITS)}.")
