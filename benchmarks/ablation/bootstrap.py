"""Scores of arms and their differences, with intervals over seeds and videos.

Legend: S seeds, V videos, R draws, the first of which takes everything once.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from vspw_jax.metrics import scores
from vspw_jax.metrics.counts import VideoCounts

REPLICATES = 2000
SEED = 0
HOW = (
    f"interval: the 2.5th to the 97.5th percentile of {REPLICATES} draws. A draw takes as many seeds as there are and, "
    "apart from them, as many videos as there are, both with replacement, the same ones for every arm. The pixels of "
    "the drawn videos are counted together for each drawn seed, their scores averaged over the drawn seeds, and of two "
    "arms the difference is taken. With one seed it is over videos alone; with one video there is none.",
    "over_seeds: mean over seeds and Student's t interval around it; of a pair, of the differences seed by seed. The "
    "videos are taken as they are; with one seed there is none.",
    "settled: whether both intervals lie on one side of 0 (excludes_0, over_seeds_excludes_0). Each by itself is too "
    "narrow somewhere: with few seeds the first one, where seeds differ more than videos, for three draws of three "
    "seeds vary less than three new seeds would; the second one where videos differ more than seeds. "
    "Nothing is corrected for how many pairs there are.",
)
"""How the figures came about, for their file."""


@dataclasses.dataclass(frozen=True)
class Resampled:
    """A score in every draw.

    Attributes:
      values_RS: of each seed on the drawn videos, row 0 on all of them; NaN where nothing can be scored.
      weights_RS: how often each seed is in each draw, row 0 once each.
      videos: how many there are.
    """

    values_RS: np.ndarray
    weights_RS: np.ndarray
    videos: int

    def minus(self, other: "Resampled") -> "Resampled":
        """The difference, draw by draw and seed by seed."""
        return dataclasses.replace(self, values_RS=self.values_RS - other.values_RS)

    def summary(self) -> dict[str, Any] | None:
        """Its mean, interval and interval over_seeds, by those names; None where there is no mean.

        An interval is [low, high], or None where there is none.
        """
        mean_R = (self.values_RS * self.weights_RS).sum(axis=1) / self.weights_RS.shape[1]
        if not math.isfinite(mean_R[0]):
            return None
        interval = scores.interval(mean_R[1:]) if self.videos > 1 else None
        return {"mean": float(mean_R[0]), "interval": interval, "over_seeds": over_seeds(self.values_RS[0])}


def over_seeds(values_S: np.ndarray) -> list[float] | None:
    """[low, high] of Student's t interval around the mean of one value a seed; None with one seed."""
    if len(values_S) < 2:
        return None
    reach = student(len(values_S)) * values_S.std(ddof=1)
    return [float(values_S.mean() - reach), float(values_S.mean() + reach)]


def student(seeds: int) -> float:
    """How many standard deviations of the seeds' values Student's interval reaches to either side of their mean."""
    return float(stdtrit(seeds - 1, (1 + scores.LEVEL) / 2)) / math.sqrt(seeds)


def resample(counts_S: Sequence[Sequence[VideoCounts]], seed: int = SEED) -> dict[str, Resampled]:
    """Every score of an arm, by name.

    The draws follow from `seed` and the numbers of seeds and videos alone: arms that have as many share them.

    Args:
      counts_S: the counts of each seed's run, the same videos in the same order.
      seed: of the draws.
    """
    num_seeds, num_videos = len(counts_S), len(counts_S[0])
    videos_RV = _with_all(scores.draws(num_videos, seed, REPLICATES))
    weights_RS = _with_all(scores.draws(num_seeds, seed + 1, REPLICATES))  # Drawn apart from the videos.
    by_seed = [scores.resampled(counts, videos_RV) for counts in counts_S]
    return {
        name: Resampled(np.stack([found[name] for found in by_seed], axis=1), weights_RS, num_videos)
        for name in by_seed[0]
    }


def _with_all(draws: np.ndarray) -> np.ndarray:
    """Draws below one that takes everything once."""
    return np.concatenate([np.ones_like(draws[:1]), draws])
