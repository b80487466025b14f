"""What a study found as text for a terminal."""

from collections.abc import Sequence
from typing import Any


def table(found: dict[str, Any]) -> str:
    """Two tables, of arms and of pairs, in per cent, with the score that decides; see `results.results`."""
    decides = found["decides"]
    parts = [f"{found['study']}: {found['claim']}"]
    parts += [f"! {warning}" for warning in found["warnings"]]
    if not found["complete"]:
        parts.append(f"! {found['runs_done']} of {found['runs_asked_for']} runs are done.")
    arms = [_arm_row(name, arm, decides) for name, arm in found["arms"].items()]
    parts.append(_aligned([("arm", "seeds", decides, "95 %, seeds and videos", "seeds alone"), *arms]))
    pairs = [_pair_row(pair, decides) for pair in found["pairs"]]
    if pairs:
        header = ("difference", "seeds", decides, "95 %, seeds and videos", "seeds alone", "verdict")
        parts.append(_aligned([header, *pairs]))
    return "\n\n".join(parts)


def _arm_row(name: str, arm: dict[str, Any], decides: str) -> tuple[str, ...]:
    mean = arm["means"].get(decides)
    return (name, str(len(arm["seeds"])), *figures(mean, "{:.2f}"))


def _pair_row(pair: dict[str, Any], decides: str) -> tuple[str, ...]:
    name, found = f"{pair['arm']} - {pair['less']}", pair["differences"].get(decides)
    return (name, str(len(pair["seeds"])), *figures(found, "{:+.2f}"), verdict(found) if found else "-")


def figures(found: dict[str, Any] | None, form: str) -> tuple[str, ...]:
    """Mean and both intervals in per cent; dashes where there are none."""
    if not found:
        return ("-",) * 3
    return form.format(100 * found["mean"]), *(between(found[key], form) for key in ("interval", "over_seeds"))


def between(interval: Sequence[float] | None, form: str) -> str:
    """An interval in per cent; a dash where there is none."""
    return " to ".join(form.format(100 * end) for end in interval) if interval else "-"


def verdict(found: dict[str, Any]) -> str:
    """A difference in a word: higher or lower where both intervals say so, else open; a dash where one is missing."""
    if found["settled"] is None:
        return "-"
    return ("higher" if found["mean"] > 0 else "lower") if found["settled"] else "open"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pad = lambda number, cell: cell.rjust(widths[number]) if number else cell.ljust(widths[number])
    return "\n".join("  ".join(pad(*cell) for cell in enumerate(row)).rstrip() for row in rows)
