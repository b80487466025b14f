"""Whether masks hold the ids that they should, or the same ids one off, judged from what the ids show.

Every source value of a mask has a class by the data set's numbering, and by the same numbering shifted. Of a class one
may expect how often it is in sight, how large and how high in the frame: `classes/tables/vspw_expectations.csv`, set by
hand from what the names mean, before anything was measured. A hypothesis scores, in nats, how much likelier it makes
what was seen than "any class"; ids that cannot occur under it cost a lot. What is named is the best hypothesis, where
it leads by `MARGIN` or more and scores more than nothing; else the test says that it cannot tell.

Limits, as `benchmarks/label_shift.py` measures them: of CamVid (eleven classes) one frame is enough in 98 cases of 100
and five always; of drawn scenes, whose bands and objects are unlike real ones, it takes twenty frames, three for ids
one too low. From two or three classes alone it mostly cannot tell. Nothing wrong was named in any case; a set of odd
pictures (cats alone, frames upside down) may yet deceive it, as what is expected is everyday video. Two classes
exchanged and shifts of more than one have no name here; where most classes are wrong it says in half of the cases that
nothing fits. Colours are not looked at.

Other classes of data sets than VSPW's are expected to look as the VSPW class that the class tables map them to.
Shapes: V = 256 source values, C = 124 classes of VSPW.
"""

import dataclasses
import functools

import numpy as np

from vspw_jax.classes import vspw

MARGIN = 8.0
"""Nats by which one hypothesis must lead the others."""

NOTHING_KNOWN, IMPOSSIBLE = -1, -2
"""Entries of a numbering besides VSPW's train ids: a value of which nothing is expected, one that must not occur."""

IMPOSSIBLE_COST = 7.0
"""Nats for a value in sight that must not occur."""

OUTLIERS = 0.1
"""The share of classes of which a data set shows something else than expected."""

SMALLEST = -5.0
"""log10 of the smallest area that is told from smaller ones."""

OCCURRENCE_WIDTH, AREA_WIDTH, HEIGHT_WIDTH = 2.0, 0.5, 0.12
"""How far a data set may stray from what is expected of a class: logits, decades, frame heights."""


@dataclasses.dataclass
class Sightings:
    """What a data set shows of each source value; a single image counts as a video.

    Attributes:
      videos: those with masks.
      seen_in_V: in how many of them a value occurs.
      log_area_V: log10 of its share of the frame, averaged over a video's frames that show it, summed over videos.
      height_V: its vertical centre, 0 at the top, 1 at the bottom, averaged and summed alike.
    """

    videos: int = 0
    seen_in_V: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256))
    log_area_V: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256))
    height_V: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256))

    def add_video(self, area_FV, height_FV):
        """Adds a video: each frame's shares of pixels and vertical centres (of no meaning where the share is 0)."""
        shown_FV = area_FV > 0
        frames_V = np.maximum(shown_FV.sum(0), 1)
        logs_FV = np.log10(np.maximum(area_FV, 10.0**SMALLEST))
        self.videos += 1
        self.seen_in_V += shown_FV.any(0)
        self.log_area_V += np.where(shown_FV, logs_FV, 0).sum(0) / frames_V
        self.height_V += np.where(shown_FV, height_FV, 0).sum(0) / frames_V

    def __add__(self, other):
        return Sightings(
            self.videos + other.videos,
            self.seen_in_V + other.seen_in_V,
            self.log_area_V + other.log_area_V,
            self.height_V + other.height_V,
        )


def shifted(numbering_V, by):
    """The numbering of masks whose ids are all `by` too high; 255 stays void."""
    table = np.full(256, IMPOSSIBLE)
    values = np.arange(255)
    inside = (values - by >= 0) & (values - by < 255)
    table[:255][inside] = numbering_V[values[inside] - by]
    # What void becomes (0 or 255 one on, 255 one back) is no sign of anything else.
    table[[0, 254, 255]] = np.where(table[[0, 254, 255]] == IMPOSSIBLE, NOTHING_KNOWN, table[[0, 254, 255]])
    return table


@functools.cache
def _expectations():
    rows = vspw.table("vspw_expectations")
    return [np.array([float(row[name]) for row in rows]) for name in ("seen_in", "area", "height")]


def _logit(p):
    return np.log(p) - np.log1p(-p)


def _mixture(distance, scale, flat):
    """A Gaussian with a flat floor for what is not as expected."""
    gauss = np.exp(-0.5 * (distance / scale) ** 2) / (scale * np.sqrt(2 * np.pi))
    return (1 - OUTLIERS) * gauss + OUTLIERS * flat


def _log_likelihoods(sightings, parts_C):
    """How likely each value's sightings are if it were each class: (V, C) nats, of occurrence, area and height."""
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


def contributions(sightings, numbering_V):
    """Nats by which each value speaks for a numbering, against "any class"; (V,)."""
    used = numbering_V[numbering_V >= 0]
    parts_C = np.maximum(np.bincount(used, minlength=vspw.NUM_CLASSES), 1)
    logs_VC = _log_likelihoods(sightings, parts_C)
    any_class_V = np.logaddexp.reduce(logs_VC, axis=1) - np.log(logs_VC.shape[1])
    of_class_V = logs_VC[np.arange(256), np.maximum(numbering_V, 0)] - any_class_V
    impossible_V = np.where(sightings.seen_in_V > 0, -IMPOSSIBLE_COST, 0.0)
    return np.select([numbering_V == IMPOSSIBLE, numbering_V == NOTHING_KNOWN], [impossible_V, 0.0], of_class_V)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the test says.

    Attributes:
      best: the numbering that explains the masks best.
      lead: nats between it and the next best.
      scores: nats of each numbering by its title.
      fit: nats of `best` for the values in sight alone: a set may well lack everyday classes.
      reasons: the values that speak loudest for `best` against the expected numbering, in words.
    """

    best: object
    lead: float
    scores: dict
    fit: float
    reasons: tuple

    @property
    def is_clear(self):
        """Whether the lead is enough to say so, and `best` explains what is in sight better than "any class" does."""
        return self.lead >= MARGIN and self.fit > 0

    @property
    def is_nonsense(self):
        """Whether "any class" explains what is in sight far better than the best numbering."""
        return self.fit <= -MARGIN


def judge(sightings, expected, others):
    """Compares the expected numbering with others, each with `title`, `names` and `classes_V`; a `Verdict`."""
    nats = {n.title: contributions(sightings, n.classes_V) for n in (expected, *others)}
    totals = {title: float(values.sum()) for title, values in nats.items()}
    best = max((expected, *others), key=lambda numbering: totals[numbering.title])
    lead = totals[best.title] - max(total for title, total in totals.items() if title != best.title)
    gain_V = nats[best.title] - nats[expected.title]
    loudest = [value for value in np.argsort(-gain_V)[:3].tolist() if gain_V[value] > 1 and sightings.seen_in_V[value]]
    fit = float(nats[best.title][sightings.seen_in_V > 0].sum())
    return Verdict(best, lead, totals, fit, tuple(_in_words(sightings, value, expected, best) for value in loudest))


def _in_words(sightings, value, expected, best):
    seen = sightings.seen_in_V[value]
    area, height = 10 ** (sightings.log_area_V[value] / seen), sightings.height_V[value] / seen
    return (
        f"{value} should be {expected.names.get(value, 'unused')} and looks like {best.names.get(value, 'void')} "
        f"(in {seen:.0f} of {sightings.videos} videos, {100 * area:.2g} % of the frame, {100 * height:.0f} % down)"
    )
