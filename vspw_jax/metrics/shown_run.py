"""A run that a report shows."""

import dataclasses
from typing import Any

from vspw_jax.metrics import predictions
from vspw_jax.metrics.counts import VideoCounts


@dataclasses.dataclass(frozen=True)
class ShownRun:
    """What is shown of a run: its name, its predictions, their counts, and the scores (`scores.summarise`) of these."""

    name: str
    folder: predictions.Folder
    counts: list[VideoCounts]
    result: dict[str, Any]
