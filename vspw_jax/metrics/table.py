"""The headline scores as text for a terminal."""

from typing import Any

HEADLINE = ("mIoU", "fwIoU", "pixel_accuracy", "VC8", "VC16")


def table(result: dict[str, Any]) -> str:
    """The headline scores in per cent, with intervals, beside those of the commonest class; warnings come first."""
    rows = [("", "this model", "95 % of draws", f"always {result['commonest_class']['class']}")]
    for name in HEADLINE:
        low, high = result["intervals"].get(name) or (None, None)
        between = "" if low is None else f"{percent(low)} - {percent(high)}"
        constant = percent(result["commonest_class"][name])
        rows.append((name.replace("_", " "), percent(result[name]), between, constant))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*(f"! {warning}" for warning in result["warnings"]), *lines])


def percent(value: float | None) -> str:
    """A share in per cent; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.2f}"
