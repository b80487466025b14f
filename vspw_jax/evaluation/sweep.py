"""The weights of models' sum, searched on a labelled split: scores by weight, and a table.

One model's weight is swept at a time, over all frames; the others share the rest as they did before. Two models need
one such pass. Of more, each is swept in turn, until a round of all brings nothing: a coordinate search, which may end
in an optimum of its own. What was swept is kept, and a search that was stopped goes on.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vspw_jax.console.errors import UserError
from vspw_jax.inference import ensemble
from vspw_jax.metrics.confusion import ConfusionMatrix

SHOWN = ("mIoU", "fwIoU", "pixel_accuracy")


def weights(text: str) -> list[float]:
    """A model's weights that a text such as "0:1:0.05" names, ends included; UserError for other texts."""
    try:
        start, stop, step = (float(part) for part in text.split(":"))
        count = round((stop - start) / step)
        if not (0 <= start < stop <= 1 and count >= 1 and abs(start + count * step - stop) < 1e-6):
            raise ValueError
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UserError(f"--sweep={text}: expected START:STOP:STEP within 0 and 1, such as 0:1:0.05.") from None
    return [round(start + number * step, 6) for number in range(count + 1)]


def halves(videos: Iterable[str]) -> tuple[list[str], list[str]]:
    """Every other video by name, and the rest: what is chosen on one half can be scored on the other.

    Raises:
      UserError: there is one video alone.
    """
    names = sorted(videos)
    if len(names) < 2:
        raise UserError(f"--halves: the scores are of {len(names)} video: expected two or more. Leave it out.")
    return names[::2], names[1::2]


Weights = tuple[float, ...]
"""One a model, of sum 1."""
MOST_ROUNDS = 10


def along(weights: Weights, member: int, values: Iterable[float]) -> list[Weights]:
    """The weights with each of `values` as a member's; the others share the rest as they do in `weights`, or equally
    where they have none."""
    others = 1 - weights[member]
    equally = 1 / (len(weights) - 1)
    shares = [weight / others if others > 1e-9 else equally for weight in weights]
    rounded = lambda value, place, share: round(value if place == member else (1 - value) * share, 6)
    return [tuple(rounded(value, *share) for share in enumerate(shares)) for value in values]


class Sweep:
    """Scores of some weights, a frame at a time."""

    def __init__(self, weights: Iterable[Weights], num_classes: int) -> None:
        self._confusions = {one: ConfusionMatrix(num_classes) for one in weights}

    def add(
        self, label_HW: UInt8[np.ndarray, "H W"], score_MHWK: ensemble.Scores, ids_HWK: ensemble.Ids = None
    ) -> None:
        """Counts a frame with all of the weights; arguments as `ensemble.weighted_sum` takes them."""
        for weights, confusion in self._confusions.items():
            confusion.add(label_HW, ensemble.weighted_sum(score_MHWK, weights, ids_HWK))

    def rows(self) -> list[dict[str, Any]]:
        """Of each of the weights a dict: themselves, and the scores SHOWN."""
        scores = {weights: confusion.scores() for weights, confusion in self._confusions.items()}
        return [
            {"weights": list(weights), **{name: found[name] for name in SHOWN}} for weights, found in scores.items()
        ]


def best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of highest mIoU; of equal rows the first."""
    return max(rows, key=lambda row: row["mIoU"])


@dataclasses.dataclass
class Search:
    """The search so far.

    Attributes:
      models: their number.
      values: weights that are tried of the model that is swept.
      passes: for each pass over the frames its rows, in the order of the values.
      start: of more than two models the row of equal weights, from which the search sets out.
    """

    models: int
    values: list[float]
    passes: list[list[dict[str, Any]]] = dataclasses.field(default_factory=list)
    start: dict[str, Any] | None = None

    @property
    def best(self) -> dict[str, Any]:
        """The best row that was found."""
        return best([*([self.start] if self.start else []), *map(best, self.passes)])

    def member(self) -> int | None:
        """Whose weight the next pass sweeps; None where the search is over."""
        if self.models == 2:
            return None if self.passes else 0
        rounds, place = divmod(len(self.passes), self.models)
        if place == 0 and (rounds == MOST_ROUNDS or (rounds > 1 and self._gain(rounds) <= 0)):
            return None
        return place

    def _gain(self, rounds: int) -> float:
        """What the last of some rounds brought, in mIoU."""
        before = self.passes[: (rounds - 1) * self.models]
        return self.best["mIoU"] - best([best(rows) for rows in before])["mIoU"]

    def tried(self, member: int) -> list[Weights]:
        """The weights of the next pass, in which a member's is swept; in the first one the start's come last."""
        if self.passes:
            return along(tuple(self.best["weights"]), member, self.values)
        equal = (1 / self.models,) * self.models
        return [*along(equal, member, self.values), *([equal] if self.models > 2 else [])]

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Takes the rows of a pass, in the order of `tried`."""
        if len(rows) > len(self.values):
            *rows, self.start = rows
        self.passes.append(rows)

    def last_of(self, member: int) -> list[dict[str, Any]]:
        """The rows of the last pass that swept a member; none where there is none."""
        return (self.passes[member :: self.models] or [[]])[-1]

    def to_json(self, about: Sequence[Any]) -> str:
        """The search, with what it is about, as `from_json` reads it."""
        whole = {"members": about, "values": self.values, "start": self.start, "passes": self.passes, "best": self.best}
        return json.dumps(whole | {"done": self.member() is None}, indent=2) + "\n"


def from_json(text: str, about: Sequence[Any], values: list[float]) -> Search:
    """A search that was stopped; a new one where that was about something else, or cannot be read."""
    new = Search(len(about), values)
    try:
        found = json.loads(text)
        same = found["members"] == json.loads(json.dumps(list(about))) and found["values"] == values
        rows_fit = all(len(rows) == len(values) for rows in found["passes"])
        return Search(len(about), values, found["passes"], found["start"]) if same and rows_fit else new
    except (ValueError, TypeError, KeyError):
        return new


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text, in per cent; the best one is marked."""
    count = len(rows[0]["weights"])
    names = ["tau", "1-tau"] if count == 2 else [f"model {number + 1}" for number in range(count)]
    widths = [max(7, len(name) + 1) for name in names]
    heads = "".join(f"{name:<{width}}" for name, width in zip(names, widths, strict=True))
    lines = [heads + "".join(f"{name.replace('_', ' '):>16}" for name in SHOWN)]
    for row in rows:
        shown = "".join(f"{weight:<{width}.4g}" for weight, width in zip(row["weights"], widths, strict=True))
        cells = "".join(f"{100 * row[name]:>16.2f}" for name in SHOWN)
        lines.append(f"{shown}{cells}{'  best' if row is best(rows) else ''}")
    return "\n".join(lines)
