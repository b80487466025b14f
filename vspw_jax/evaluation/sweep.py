"""The weight of two models' sum, swept over a labelled split: scores by weight, a table and a curve."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import UInt8

from vspw_jax.console.errors import UserError
from vspw_jax.inference import ensemble
from vspw_jax.metrics.confusion import ConfusionMatrix

SHOWN = ("mIoU", "fwIoU", "pixel_accuracy")


def weights(text: str) -> list[float]:
    """The first model's weights that a text such as "0:1:0.05" names, ends included; UserError for other texts."""
    try:
        start, stop, step = (float(part) for part in text.split(":"))
        count = round((stop - start) / step)
        if not (0 <= start < stop <= 1 and count >= 1 and abs(start + count * step - stop) < 1e-6):
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise UserError(f"--sweep={text}: expected START:STOP:STEP within 0 and 1, such as 0:1:0.05.") from None
    return [round(start + number * step, 6) for number in range(count + 1)]


class Sweep:
    """Scores of every weight, a frame at a time."""

    def __init__(self, weights: Iterable[float], num_classes: int) -> None:
        self._confusions = {weight: ConfusionMatrix(num_classes) for weight in weights}

    def add(
        self, label_HW: UInt8[np.ndarray, "H W"], score_2HWK: ensemble.Scores, ids_HWK: ensemble.Ids = None
    ) -> None:
        """Counts a frame with every weight; arguments as `ensemble.weighted_sum` takes them."""
        for weight, confusion in self._confusions.items():
            confusion.add(label_HW, ensemble.weighted_sum(score_2HWK, (weight, 1 - weight), ids_HWK))

    def rows(self) -> list[dict[str, float]]:
        """For each weight a dict: the weight itself, and the scores SHOWN."""
        scores = {weight: confusion.scores() for weight, confusion in self._confusions.items()}
        return [{"weight": weight, **{name: found[name] for name in SHOWN}} for weight, found in scores.items()]


def best(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The row of highest mIoU; of equal rows the first."""
    return max(rows, key=lambda row: row["mIoU"])


def table(rows: Sequence[dict[str, float]]) -> str:
    """The rows as text, in per cent; the best one is marked."""
    lines = ["tau     1-tau " + "".join(f"{name.replace('_', ' '):>16}" for name in SHOWN)]
    for row in rows:
        cells = "".join(f"{100 * row[name]:>16.2f}" for name in SHOWN)
        lines.append(f"{row['weight']:<7g} {1 - row['weight']:<6g}{cells}{'  best' if row is best(rows) else ''}")
    return "\n".join(lines)


def curve(rows: Sequence[dict[str, float]], names: Sequence[str]) -> str:
    """An SVG of mIoU over the first model's weight; `names` are those of the two models."""
    width, height, left, right, top, bottom = 640, 360, 60, 20, 40, 60
    values = [100 * row["mIoU"] for row in rows]
    low, high = min(values), max(values)
    room = (high - low) * 0.1 or 1.0
    low, high = low - room, high + room
    first, last = rows[0]["weight"], rows[-1]["weight"]
    x = lambda weight: left + (weight - first) / (last - first) * (width - left - right)
    y = lambda value: height - bottom - (value - low) / (high - low) * (height - top - bottom)
    points = [(x(row["weight"]), y(value)) for row, value in zip(rows, values, strict=True)]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    chosen = rows.index(best(rows))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for tick in range(5):
        value, weight = low + tick * (high - low) / 4, first + tick * (last - first) / 4
        parts.append(f'<path d="M{left} {y(value):.1f}H{width - right}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>')
        parts.append(f'<text x="{x(weight):.1f}" y="{height - bottom + 18}" text-anchor="middle">{weight:.3g}</text>')
    parts += [
        f'<polyline points="{line}" fill="none" stroke="#1f5fa8" stroke-width="2"/>',
        *(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="#1f5fa8"/>' for a, b in points),
        f'<circle cx="{points[chosen][0]:.1f}" cy="{points[chosen][1]:.1f}" r="6" fill="#c8321e"/>',
        f'<text x="{left}" y="24">mIoU in per cent; best {values[chosen]:.2f} at {rows[chosen]["weight"]:g}</text>',
        f'<text x="{width / 2}" y="{height - 12}" text-anchor="middle">'
        f"weight of {_escaped(names[0])}; the rest is {_escaped(names[1])}'s</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
