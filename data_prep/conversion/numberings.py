"""Which numbering a data set's masks use, told from the values seen in them.

The numberings of a data set differ in the values that they lack, so masks rule numberings out: COCO-Stuff's pixelmaps
lack the eleven values of things never drawn, its train ids lack 171 to 181, its ids from 1 lack 255; ADE20K's raw masks
lack 255, its reduced ones lack 150. One stray pixel must not decide: it takes two masks to rule a numbering out (one if
there is only one mask), and no mask may speak against the numbering that is left.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from data_prep.conversion.frames import Frame
from vspw_jax.classes import label_maps
from vspw_jax.console.errors import UserError
from vspw_jax.files import mask_png
from vspw_jax.files.sources import Source

FIRST_MASKS = 256
"""Masks read at first. The number doubles until they decide, or until there are no more."""


@dataclasses.dataclass
class Against:
    """What speaks against a numbering: how many masks hold values that it lacks, and which values they are."""

    masks: int = 0
    values: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)

    def __str__(self) -> str:
        if not self.masks:
            return "nothing against it"
        first = sorted(value for value, _ in self.values.most_common(6))
        return f"it lacks {', '.join(map(str, first))}{', ...' if len(self.values) > 6 else ''}, seen in {self.masks}"


def detect(dataset: str, source: Source, frames: Iterable[Frame]) -> tuple[str, str]:
    """The numbering of a data set's masks, and why.

    Args:
      dataset: a name of `label_maps.NUMBERINGS`.
      source: has the masks.
      frames: all frames.

    Returns:
      (name of the numbering, a sentence with the evidence).

    Raises:
      UserError: the values decide for no numbering.
    """
    masks = [frame.mask for frame in frames if frame.mask is not None and frame.mask in source.sizes]
    against = {name: Against() for name in label_maps.NUMBERINGS[dataset]}
    read, number = set[str](), FIRST_MASKS
    while True:
        step = max(len(masks) // number, 1)
        for mask in masks[::step]:
            if mask not in read:
                read.add(mask)
                _count_against(dataset, source, mask, against)
        left = _not_ruled_out(against, len(read))
        if len(left) < 2 or step == 1:
            return _verdict(dataset, source, against, left, len(read))
        number *= 2


def _count_against(dataset: str, source: Source, mask: str, against: dict[str, Against]) -> None:
    """Adds a mask to what speaks against each numbering; a mask that cannot be read says nothing."""
    try:
        values = set(mask_png.decode(source.read(mask)).ravel().tolist())
    except (UserError, OSError, SyntaxError, ValueError):
        return
    for name, found in against.items():
        allowed = label_maps.of(dataset, name).allowed
        strange = [value for value in values if not allowed[value]]
        found.values.update(strange)
        found.masks += bool(strange)


def _not_ruled_out(against: dict[str, Against], num_masks: int) -> list[str]:
    return [name for name, found in against.items() if found.masks < min(2, max(num_masks, 1))]


def _verdict(
    dataset: str, source: Source, against: dict[str, Against], left: Sequence[str], num_masks: int
) -> tuple[str, str]:
    evidence = f"in {num_masks} masks read: " + "; ".join(f"{name}: {found}" for name, found in against.items())
    if len(left) == 1 and not against[left[0]].masks:
        return left[0], evidence
    names = " or ".join(f"--numbering={name}" for name in label_maps.NUMBERINGS[dataset])
    state = f"fit {' and '.join(left)} alike" if len(left) > 1 else "fit no numbering without exception"
    raise UserError(
        f"The masks of {source.path} {state} ({evidence}). "
        f"Say which it is with {names}: a wrong one would shift every class."
    )
