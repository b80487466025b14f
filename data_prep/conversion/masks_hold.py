"""Whether masks hold ids or colours, told from some of them."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import UInt8

from data_prep.conversion import class_files, colour_masks
from data_prep.conversion.class_files import Meaning, Row
from vspw_jax.console.errors import UserError
from vspw_jax.files import mask_png

SAMPLED = 32
"""Masks that are read for it."""
HINT = "Say which it is with --masks-hold=ids or --masks-hold=colours"


@dataclasses.dataclass
class Findings:
    """How many masks fit each meaning, and whether two that both fit mean different classes.

    Attributes:
      read: masks that are whole PNGs.
      ids, colours: how many of them fit.
      differ: whether ids and colours of one mask mean different classes.
    """

    read: int = 0
    ids: int = 0
    colours: int = 0
    differ: bool = False


def _train_ids(png: bytes, meaning: Meaning) -> UInt8[np.ndarray, "H W"] | None:
    """A mask's train ids by a meaning; None where it does not fit."""
    try:
        values = mask_png.decode(
            png if meaning.mask_colours is None else colour_masks.to_values(png, meaning.mask_colours)
        )
    except UserError:
        return None
    return meaning.labels.lookup()[values] if meaning.labels.allowed[values].all() else None


def _look(pngs: Iterable[bytes], ids: Meaning, colours: Meaning | None) -> Findings:
    found = Findings()
    for png in pngs:
        try:
            mask_png.whole(png)
        except UserError:
            continue  # The conversion names it.
        by_ids, by_colours = (_train_ids(png, each) if each else None for each in (ids, colours))
        found.read += 1
        found.ids += by_ids is not None
        found.colours += by_colours is not None
        if by_ids is not None and by_colours is not None:
            found.differ |= bool((by_ids != by_colours).any())
    return found


def judged(pngs: Iterable[bytes], dataset: str, rows: Sequence[Row], void: Sequence[str]) -> tuple[Meaning, str]:
    """What masks hold, and a sentence that says it.

    Args:
      pngs: some masks.
      rows, void: see `class_files`.

    Raises:
      UserError: both ids and colours fit and mean different classes, or the masks hold colours and the list has none.
    """
    ids = class_files.of_ids(dataset, rows, void)
    colours = class_files.of_colours(dataset, rows, void) if all(row.colour for row in rows) else None
    found = _look(pngs, ids, colours)
    if not found.read:
        raise UserError("None of the masks is a whole PNG: expected PNGs of ids or of colours.")
    if found.ids == found.colours == found.read and found.differ:
        raise UserError(
            f"The masks can be read as ids and as colours of the list of classes, which mean different classes. {HINT}."
        )
    if colours is None and not found.ids:
        raise UserError(
            f"None of {found.read} masks that were looked at holds the ids of the list of classes alone. If they hold "
            "colours, the list needs a column colour (#rrggbb), or r, g and b, for all classes. Values that mean no "
            "class are named with --void=0, say."
        )
    if colours and found.colours > found.ids:
        return colours, f"Masks hold colours: so do {found.colours} of {found.read} that were looked at."
    return ids, f"Masks hold ids: so do {found.ids} of {found.read} that were looked at."


STATED = {"ids": class_files.of_ids, "colours": class_files.of_colours}
"""By what the user says that masks hold."""
