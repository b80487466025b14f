"""Whether masks hold the ids that they should, or the same ids one off, judged from what the ids show.

Every source value of a mask has a class by the data set's numbering, and another by the same numbering shifted.
`classes/tables/vspw_expectations.csv` says how often each class should be in sight, how large, and how high in the
frame; it was set by hand from what the names mean, before anything was measured. A hypothesis is a numbering. Its
score, in nats, says how much likelier it makes what was seen than "any class" does; ids that it does not have cost a
lot. The test names the best hypothesis if it leads by `MARGIN` or more and its score for the values in sight is above
0; else it says that it cannot tell.

Limits, as `benchmarks/label_shift.py` measures them:
- CamVid (eleven classes): one frame is enough in 98 cases of 100, five frames always.
- Drawn scenes, whose bands and objects are unlike real ones: twenty frames are needed, three for ids one too low.
- Two or three classes alone: mostly it cannot tell.
- It named nothing wrong in any case. But it expects everyday video: a set of odd pictures (cats alone, frames upside
  down) may deceive it.
- It has no name for two classes exchanged, or for shifts of more than one. Where most classes are wrong, it says in
  half of the cases that nothing fits.
- It does not look at colours.

A class of another data set is expected to look like the VSPW class to which the class tables map it.
Shapes: V = 256 source values, C = 124 classes of VSPW, F frames of a video.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from vspw_jax.classes import vspw

MARGIN = 8.0
"""Nats by which one hypothesis must lead the others."""

NOTHING_KNOWN, IMPOSSIBLE = -1, -2
"""Entries of a numbering besides VSPW's train ids: nothing is expected of such a value; such a value must not occur."""

IMPOSSIBLE_COST = 7.0
"""Nats for a value in sight that must not occur."""

OUTLIERS = 0.1
"""The share of a data set's classes that do not look as expected."""

SMALLEST = -5.0
"""log10 of the smallest area; smaller ones count as this one."""

OCCURRENCE_WIDTH, AREA_WIDTH, HEIGHT_WIDTH = 2.0, 0.5, 0.12
"""How far a data set may stray from what is expected of a class: logits, decades, frame heights."""


@dataclasses.dataclass
class Sightings:
    """What a data set shows of each source value; a single image counts as a video.

    Attributes:
      videos: how many have masks.
      seen_in_V: in how many of them a value occurs.
      log_area_V: log10 of the value's share of a frame, averaged in a video over frames that show it, then summed.
      height_V: the value's vertical centre, 0 at the top, 1 at the bottom, averaged and summed in the same way.
    """

    videos: int = 0
    seen_in_V: Float[np.ndarray, "V"] = dataclasses.field(default_factory=lambda: np.zeros(256))
    log_area_V: Float[np.ndarray, "V"] = dataclasses.field(default_factory=lambda: np.zeros(256))
    height_V: Float[np.ndarray, "V"] = dataclasses.field(default_factory=lambda: np.zeros(256))

    def add_video(self, area_FV: Float[np.ndarray, "F V"], height_FV: Float[np.ndarray, "F V"]) -> None:
        """Adds a video: each frame's shares of pixels and vertical centres (of no meaning where the share is 0)."""
        shown_FV = area_FV > 0
        frames_V = np.maximum(shown_FV.sum(0), 1)
        logs_FV = np.log10(np.maximum(area_FV, 10.0**SMALLEST))
        self.videos += 1
        self.seen_in_V += shown_FV.any(0)
        self.log_area_V += np.where(shown_FV, logs_FV, 0).sum(0) / frames_V
        self.height_V += np.where(shown_FV, height_FV, 0).sum(0) / frames_V

    def __add__(self, other: "Sightings") -> "Sightings":
        return Sightings(
            self.videos + other.videos,
            self.seen_in_V + other.seen_in_V,
            self.log_area_V + other.log_area_V,
            self.height_V + other.height_V,
        )


def shifted(numbering_V: Int[np.ndarray, "V"], by: int) -> Int[np.ndarray, "V"]:
    """The numbering of masks whose ids are all `by` too high; 255 stays void."""
    table = np.full(256, IMPOSSIBLE)
    values = np.arange(255)
    inside = (values - by >= 0) & (values - by < 255)
    table[:255][inside] = numbering_V[values[inside] - by]
    # A shift may turn void into these values (one on into 0 or 255, one back into 255): nothing is expected of them.
    table[[0, 254, 255]] = np.where(table[[0, 254, 255]] == IMPOSSIBLE, NOTHING_KNOWN, table[[0, 254, 255]])
    return table


@functools.cache
def _expectations() -> list[Float[np.ndarray, "C"]]:
    rows = vspw.table("vspw_expectations")
    return [np.array([float(row[name]) for row in rows]) for name in ("seen_in", "area", "height")]


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


def _mixture(distance: np.ndarray, scale: float, flat: float) -> np.ndarray:
    """A Gaussian with a flat floor for what is not as expected."""
    gauss = np.exp(-0.5 * (distance / scale) ** 2) / (scale * np.sqrt(2 * np.pi))
    return (1 - OUTLIERS) * gauss + OUTLIERS * flat


def _log_likelihoods(sightings: Sightings, parts_C: Int[np.ndarray, "C"]) -> Float[np.ndarray, "V C"]:
    """How likely each value's sightings are if the value were each class: nats of occurrence, area and height."""
    seen_in_C, area_C, height_C = _expectations()
    videos, seen_V = sightings.videos, sightings.seen_in_V
    often_V = _logit((seen_V + 0.5) / (videos + 1))
    expected_C = _logit((videos * seen_in_C / parts_C + 0.5) / (videos + 1))
    occurrence = _mixture(often_V[:, None] - expected_C, OCCURRENCE_WIDTH, 1 / 16)
    mean = np.maximum(seen_V, 1)
    area = _mixture((sightings.log_area_V / mean)[:, None] - np.log10(area_C), AREA_WIDTH, 1 / -SMALLEST)
    height = _mixture((sightings.height_V / mean)[:, None] - height_C, HEIGHT_WIDTH, 1.0)
    in_sight = (seen_V > 0)[:, None]
    return np.log(occurrence) + np.where(in_sight, np.log(area) + np.log(height), 0.0)


def contributions(sightings: Sightings, numbering_V: Int[np.ndarray, "V"]) -> Float[np.ndarray, "V"]:
    """Nats by which each value speaks for a numbering, against "any class"."""
    used = numbering_V[numbering_V >= 0]
    parts_C = np.maximum(np.bincount(used, minlength=vspw.NUM_CLASSES), 1)
    logs_VC = _log_likelihoods(sightings, parts_C)
    any_class_V = np.logaddexp.reduce(logs_VC, axis=1) - np.log(logs_VC.shape[1])
    of_class_V = logs_VC[np.arange(256), np.maximum(numbering_V, 0)] - any_class_V
    impossible_V = np.where(sightings.seen_in_V > 0, -IMPOSSIBLE_COST, 0.0)
    return np.select([numbering_V == IMPOSSIBLE, numbering_V == NOTHING_KNOWN], [impossible_V, 0.0], of_class_V)


@dataclasses.dataclass(frozen=True)
class Numbering:
    """What a mask's values stand for.

    Attributes:
      title: for messages.
      names: of classes, by source value.
      classes_V: VSPW's train ids by source value, NOTHING_KNOWN or IMPOSSIBLE.
    """

    title: str
    names: Mapping[int, str]
    classes_V: Int[np.ndarray, "V"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the test says.

    Attributes:
      best: the numbering that explains the masks best.
      lead: nats between it and the next best.
      scores: nats of each numbering by its title.
      fit: nats of `best` for the values in sight alone, because a set may well lack everyday classes.
      reasons: the values that speak loudest for `best` against the expected numbering, in words.
    """

    best: Numbering
    lead: float
    scores: dict[str, float]
    fit: float
    reasons: tuple[str, ...]

    @property
    def is_clear(self) -> bool:
        """Whether the lead is large enough, and `best` explains what is in sight better than "any class" does."""
        return self.lead >= MARGIN and self.fit > 0

    @property
    def is_nonsense(self) -> bool:
        """Whether "any class" explains what is in sight far better than the best numbering."""
        return self.fit <= -MARGIN


def judge(sightings: Sightings, expected: Numbering, others: Sequence[Numbering]) -> Verdict:
    """Compares the expected numbering with others."""
    nats = {n.title: contributions(sightings, n.classes_V) for n in (expected, *others)}
    totals = {title: float(values.sum()) for title, values in nats.items()}
    best = max((expected, *others), key=lambda numbering: totals[numbering.title])
    lead = totals[best.title] - max(total for title, total in totals.items() if title != best.title)
    gain_V = nats[best.title] - nats[expected.title]
    loudest = [value for value in np.argsort(-gain_V)[:3].tolist() if gain_V[value] > 1 and sightings.seen_in_V[value]]
    fit = float(nats[best.title][sightings.seen_in_V > 0].sum())
    return Verdict(best, lead, totals, fit, tuple(_in_words(sightings, value, expected, best) for value in loudest))


def _in_words(sightings: Sightings, value: int, expected: Numbering, best: Numbering) -> str:
    seen = sightings.seen_in_V[value]
    area, height = 10 ** (sightings.log_area_V[value] / seen), sightings.height_V[value] / seen
    return (
        f"{value} should be {expected.names.get(value, 'unused')} and looks like {best.names.get(value, 'void')} "
        f"(in {seen:.0f} of {sightings.videos} videos, {100 * area:.2g} % of the frame, {100 * height:.0f} % down)"
    )
