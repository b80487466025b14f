"""The studies: which arms are compared, and on what. A new study is an entry of STUDIES."""

import dataclasses
from collections.abc import Mapping
from typing import Any

FOLDER = "{folder}"
"""In a field's value: the study's own folder."""

DRAWN = {
    "data.records": f"{FOLDER}/data/records",
    "data.generate.records": f"{FOLDER}/data/records",
    "data.generate.source": f"{FOLDER}/data/vspw",
}
"""Fields by which a demo draws its video into the study's folder, once for all arms and seeds."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is trained.

    Attributes:
      recipe: as --config takes it, from the repository's root.
      fields: of the recipe, by dotted path, what this arm alone sets.
    """

    recipe: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Study:
    """Arms that are compared; the first is the baseline.

    Attributes:
      claim: what the study tests, a sentence, and whose claim it is.
      decides: the score that the claim is about, by its name in evaluation.json.
      arms: by name, which is also that of a folder.
      fields: what all arms set.
    """

    claim: str
    decides: str
    arms: Mapping[str, Arm]
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _contrast(frames: int, weight: float) -> Arm:
    """Eight images a step, whatever the length of their clips, and one contrast a clip, as in the paper."""
    batch = 8 // frames
    fields = {"data.frames": frames, "train.batch": batch, "loss.nce.groups": batch, "loss.nce.weight": weight}
    return Arm("configs/nce.py:demo", fields)


STUDIES: dict[str, Study] = {
    "contrast": Study(
        claim="The cross-frame contrastive loss raises mIoU, with two frames a clip more than with four "
        "(arXiv 2306.03508, table 3: 58.05, with four frames 60.0, with two 60.95).",
        decides="mIoU",
        arms={
            "baseline": _contrast(frames=1, weight=0.0),
            "nce_2": _contrast(frames=2, weight=1.0),
            "nce_4": _contrast(frames=4, weight=1.0),
        },
        fields=DRAWN,
    ),
}
