"""A study as an SVG: each arm's seeds, mean and interval, and beside them its difference to the baseline."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

WIDTH, ROW, TOP, BOTTOM = 960, 46, 78, 64
PANELS = ((190, 560), (610, 930))
"""Left and right end of both panels, in pixels."""
LEGEND = "seeds (dots), mean, 95 % interval over seeds and videos (thick) and over seeds alone (thin)"
COLOURS = "Right: green is higher, red lower; grey is open, as one of the two intervals holds 0 or is missing."
SEED, MEAN, HIGHER, LOWER, OPEN = "#7a9cc6", "#1f3f77", "#1d7a3a", "#b3261e", "#666"


class Axis:
    """A horizontal axis: from `low` to `high`, in per cent, on pixels `left` to `right`."""

    def __init__(self, values: Sequence[float], left: int, right: int) -> None:
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 1.0
        self.low, self.high, self.left, self.right = low - room, high + room, left, right

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.left + (value - self.low) / (self.high - self.low) * (self.right - self.left)

    def ticks(self) -> list[float]:
        """Round values, four to nine of them."""
        step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= max(factor for factor in (1, 2, 5) if factor * step <= (self.high - self.low) / 4)
        return [number * step for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]

    def drawn(self, bottom: int, title: str, form: str) -> list[str]:
        """Grid lines with their values, and the title below."""
        parts = [_text((self.left + self.right) / 2, bottom + 40, title, "middle")]
        for tick in self.ticks():
            x = self.at(tick)
            parts.append(f'<path d="M{x:.1f} {TOP - 8}V{bottom}" stroke="#e3e3e3"/>')
            parts.append(_text(x, bottom + 18, form.format(tick) if tick else "0", "middle"))
        return parts


def picture(found: dict[str, Any]) -> str:
    """The SVG of `results.results`, arms from top to bottom in their order."""
    decides = found["decides"]
    arms = {name: arm for name, arm in found["arms"].items() if decides in arm["means"]}
    pairs = _first_pairs(found)
    bottom = TOP + ROW * len(arms)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + BOTTOM}" font-family="sans-serif"'
        ' font-size="13">',
        f'<rect width="{WIDTH}" height="{bottom + BOTTOM}" fill="white"/>',
        _text(16, 26, f"{found['study']}: {LEGEND}"),
        _text(16, 48, COLOURS, colour=OPEN),
    ]
    if arms:
        parts += _scores_panel(arms, decides, bottom)
    if pairs:
        parts += _differences_panel(list(arms), pairs, decides, bottom)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _first_pairs(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By arm, the first pair that says how much more it scores than another."""
    pairs: dict[str, dict[str, Any]] = {}
    for pair in found["pairs"]:
        if found["decides"] in pair["differences"]:
            pairs.setdefault(pair["arm"], pair)
    return pairs


def _scores_panel(arms: dict[str, Any], decides: str, bottom: int) -> list[str]:
    seeds = {name: [100 * score for score in arm["scores"][decides]] for name, arm in arms.items()}
    means = {name: arm["means"][decides] for name, arm in arms.items()}
    axis = Axis([*sum(seeds.values(), []), *_ends(means.values())], *PANELS[0])
    parts = axis.drawn(bottom, f"{decides} in per cent", "{:g}")
    for row, name in enumerate(arms):
        y = TOP + ROW * (row + 0.5)
        parts.append(_text(PANELS[0][0] - 14, y + 4, name, "end"))
        parts += _interval(axis, y + 7, means[name], MEAN)
        parts += [
            f'<circle cx="{axis.at(score):.1f}" cy="{y - 8:.1f}" r="4" fill="{SEED}" fill-opacity="0.8"/>'
            for score in seeds[name]
        ]
    return parts


def _differences_panel(arms: list[str], pairs: dict[str, Any], decides: str, bottom: int) -> list[str]:
    of_arms = {name: pair["differences"][decides] for name, pair in pairs.items()}
    axis = Axis([0.0, *_ends(of_arms.values())], *PANELS[1])
    baselines = {pair["less"] for pair in pairs.values()}
    named = next(iter(baselines)) if len(baselines) == 1 else "the arm named"
    parts = axis.drawn(bottom, f"{decides}: difference to {named}, points", "{:+g}")
    parts.append(f'<path d="M{axis.at(0):.1f} {TOP - 8}V{bottom}" stroke="#222" stroke-width="1.5"/>')
    for row, name in enumerate(arms):
        if name in of_arms:
            y, found = TOP + ROW * (row + 0.5), of_arms[name]
            colour = (HIGHER if found["mean"] > 0 else LOWER) if found["settled"] else OPEN
            parts += _interval(axis, y + 7, found, colour)
            to = f" to {pairs[name]['less']}" if len(baselines) > 1 else ""
            parts.append(
                _text(axis.at(100 * found["mean"]), y - 4, f"{100 * found['mean']:+.2f}{to}", "middle", colour)
            )
    return parts


def _ends(found: Iterable[dict[str, Any]]) -> list[float]:
    """All that an axis must show of means with their intervals, in per cent."""
    shown = [[one["mean"]] + (one["interval"] or []) + (one["over_seeds"] or []) for one in found]
    return [100 * value for values in shown for value in values]


def _interval(axis: Axis, y: float, found: dict[str, Any], colour: str) -> list[str]:
    """A mean with both intervals: that over seeds and videos thick, that over seeds alone thin with ends."""
    parts = []
    if found["over_seeds"]:
        low, high = (axis.at(100 * end) for end in found["over_seeds"])
        ends = f"M{low:.1f} {y - 4:.1f}v8M{high:.1f} {y - 4:.1f}v8"
        parts.append(f'<path d="M{low:.1f} {y:.1f}H{high:.1f}{ends}" stroke="{colour}" fill="none"/>')
    if found["interval"]:
        low, high = (axis.at(100 * end) for end in found["interval"])
        parts.append(
            f'<path d="M{low:.1f} {y:.1f}H{high:.1f}" stroke="{colour}" stroke-width="5" stroke-opacity="0.45"/>'
        )
    x = axis.at(100 * found["mean"])
    return [*parts, f'<path d="M{x:.1f} {y - 6:.1f}v12" stroke="{colour}" stroke-width="3"/>']


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#222") -> str:
    halo = 'stroke="white" stroke-width="4" paint-order="stroke"'  # It may lie on a line.
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" {halo}>{html.escape(text)}</text>'
