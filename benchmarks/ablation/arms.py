"""What a study compares: arms that are trained, and arms that are made of others' weights or scores."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Literal

FOLDER = "{folder}"
"""In a field's value: the study's own folder."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is trained.

    Attributes:
      recipe: as --config takes it, from the repository's root.
      fields: of the recipe, by dotted path, what this arm alone sets.
      pretraining: what is trained first, with the same seed, and not evaluated; this arm's `init_from` is its workdir.
        The study's fields are not set in it.
      labels_of: a trained arm that stands before this one: with the same seed it labels the frames of the training
        split that `data.labelled_frames` leaves without labels, and this arm is trained on all of them.
      surest: the share of its class below which a pixel that was labelled so becomes void.
    """

    recipe: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pretraining: "Arm | None" = None
    labels_of: str = ""
    surest: float = 0.0

    @property
    def made_of(self) -> tuple[str, ...]:
        """The arms that it cannot be made without."""
        return (self.labels_of,) if self.labels_of else ()


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """The weights of an arm, evaluated in another way.

    Attributes:
      weights_of: a trained arm that stands before this one.
      fields: what differs from that arm's.
    """

    weights_of: str
    fields: Mapping[str, Any]

    @property
    def made_of(self) -> tuple[str, ...]:
        """See `Arm`."""
        return (self.weights_of,)


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """One prediction of the scores of arms, each with the same seed; they must save scores.

    Attributes:
      members: arms that stand before this one.
      method: "mean", "vote", or "weighted": the sum with the weights, in steps of a tenth, that are best on the half
        of the videos that is not scored.
    """

    members: tuple[str, ...]
    method: Literal["mean", "vote", "weighted"] = "mean"

    @property
    def made_of(self) -> tuple[str, ...]:
        """See `Arm`."""
        return self.members


AnyArm = Arm | Evaluated | Ensemble


@dataclasses.dataclass(frozen=True)
class Study:
    """Arms that are compared.

    Attributes:
      claim: what the study tests, a sentence, and whose claim it is.
      decides: the score that the claim is about, by its name in evaluation.json.
      arms: by name, which is also that of a folder.
      pairs: what is compared, as (arm, less): a difference is the first one's score less the second one's.
      fields: what all trained arms set.
    """

    claim: str
    decides: str
    arms: Mapping[str, AnyArm]
    pairs: tuple[tuple[str, str], ...]
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def with_what_they_need(self, names: Collection[str]) -> set[str]:
        """These arms, and all that they are made of."""
        needed = {name for arm in names for name in self.arms[arm].made_of}
        return set(names) | self.with_what_they_need(needed) if needed else set(names)
