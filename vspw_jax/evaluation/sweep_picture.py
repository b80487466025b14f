"""An SVG of a sweep: mIoU over the weight of each model that was swept, in its last pass."""

from collections.abc import Callable, Sequence

from vspw_jax.evaluation.sweep import Search

WIDTH, PLOT, LINE = 640, 260, 18
"""Pixels: of the picture, of the curves' height, of a line of the legend."""
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 60
COLOURS = ("#1f5fa8", "#2f8f4e", "#b8761a", "#7a4fa3", "#40888c", "#8c4040")
BEST = "#c8321e"
TICKS = 4

Place = Callable[[float], float]
"""The pixel of a value, across or down."""


def picture(search: Search, names: Sequence[str]) -> str:
    """The SVG; `names` are those of the models."""
    curves = {member: rows for member in range(search.models) if (rows := search.last_of(member))}
    values = [100 * row["mIoU"] for rows in curves.values() for row in rows]
    room = (max(values) - min(values)) * 0.1 or 1.0
    across = _scale(search.values[0], search.values[-1], LEFT, WIDTH - RIGHT)
    down = _scale(min(values) - room, max(values) + room, TOP + PLOT, TOP)
    legend = [f"weight of {names[0]}; the rest is {names[1]}'s"] if search.models == 2 else names
    height = TOP + PLOT + BOTTOM + LINE * (len(legend) - 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif"'
        ' font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        *_grid(search.values, (min(values) - room, max(values) + room), across, down),
    ]
    for member, rows in curves.items():
        points = [(across(value), down(100 * row["mIoU"])) for value, row in zip(search.values, rows, strict=True)]
        parts += _curve(points, COLOURS[member % len(COLOURS)])
    for number, text in enumerate(legend):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(_text(WIDTH / 2, TOP + PLOT + 48 + LINE * number, text, "middle", colour))
    chosen = search.best
    if search.models == 2:
        at = across(chosen["weights"][0]), down(100 * chosen["mIoU"])
        parts.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="6" fill="{BEST}"/>')
    weights = ", ".join(f"{weight:.4g}" for weight in chosen["weights"])
    parts.append(_text(LEFT, 24, f"mIoU in per cent; best {100 * chosen['mIoU']:.2f} at {weights}"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _scale(low: float, high: float, first: float, last: float) -> Place:
    return lambda value: first + (value - low) / (high - low) * (last - first)


def _grid(weights: Sequence[float], mious: tuple[float, float], across: Place, down: Place) -> list[str]:
    parts = []
    for tick in range(TICKS + 1):
        value = mious[0] + tick * (mious[1] - mious[0]) / TICKS
        weight = weights[0] + tick * (weights[-1] - weights[0]) / TICKS
        parts.append(f'<path d="M{LEFT} {down(value):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, down(value) + 4, f"{value:.2f}", "end"))
        parts.append(_text(across(weight), TOP + PLOT + 18, f"{weight:.3g}", "middle"))
    return parts


def _curve(points: Sequence[tuple[float, float]], colour: str) -> list[str]:
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    return [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#222") -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escaped}</text>'
