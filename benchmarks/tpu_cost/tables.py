"""Tables of what a program's instructions cost: by module of the model, by line of source, and what is not known."""

import collections
import re
from collections.abc import Callable, Sequence

from benchmarks.tpu_cost.chips import Chip
from benchmarks.tpu_cost.estimates import Cost

PACKAGE = re.compile(r"(?:^|/)(vspw_jax/.*)$")
SHOWN = 25
"""Rows of a table at most; the JSON has all."""


def _ours(cost: Cost) -> list[tuple[str, str, int]]:
    """(path in the package, function, line) of the frames in this package, outermost first."""
    found = [(PACKAGE.search(frame.path), frame) for frame in cost.stack]
    return [(match[1], frame.function, frame.line) for match, frame in found if match]


def modules(cost: Cost) -> set[str]:
    """The modules and functions of losses that an instruction belongs to, as `decoders/mask2former Mask2Former`.

    One within another belongs to both, so that shares of a table by module are not to be added up.
    """
    names = set()
    for path, function, _ in _ours(cost):
        if path.startswith("vspw_jax/models/") and function.endswith("__call__"):
            names.add(f"{path.removeprefix('vspw_jax/').removesuffix('.py')} {function.removesuffix('.__call__')}")
        elif path.startswith(("vspw_jax/losses/", "vspw_jax/tasks/", "vspw_jax/training/optimizers")):
            names.add(f"{path.removeprefix('vspw_jax/').removesuffix('.py')} {function.partition('.<locals>')[0]}")
    return names or {"elsewhere"}


def line(cost: Cost) -> set[str]:
    """The innermost line of this package that an instruction comes from."""
    ours = _ours(cost)
    return (
        {f"{ours[-1][0].removeprefix('vspw_jax/')}:{ours[-1][2]} {ours[-1][1]}"}
        if ours
        else {cost.scope or "elsewhere"}
    )


def shares(costs: Sequence[Cost], keys: Callable[[Cost], set[str]], chip: Chip) -> dict[str, dict[str, float]]:
    """{key: estimated ms, share of all, executions that carry no estimate}, largest first."""
    cycles: collections.Counter[str] = collections.Counter()
    unknown: collections.Counter[str] = collections.Counter()
    for cost in costs:
        for key in keys(cost):
            cycles[key] += cost.total
            unknown[key] += cost.times if cost.cycles is None else 0
    total = sum(cost.total for cost in costs) or 1
    names = sorted(cycles, key=lambda key: (-cycles[key], -unknown[key], key))
    return {
        name: {
            "ms": round(chip.milliseconds(cycles[name]), 3),
            "share": round(cycles[name] / total, 4),
            "not_estimated": unknown[name],
        }
        for name in names
        if cycles[name] or unknown[name]
    }


def not_estimated(costs: Sequence[Cost]) -> dict[str, int]:
    """{operation: executions in a step} of the instructions that carry no estimate, and have no schedule either."""
    counts: collections.Counter[str] = collections.Counter()
    for cost in costs:
        if cost.cycles is None:
            counts[cost.kind] += cost.times
    return dict(counts.most_common())


def written(title: str, rows: dict[str, dict[str, float]]) -> str:
    """A table as text."""
    lines = [f"{title}:", f"{'ms':>10} {'share':>7} {'no est.':>8}"]
    for name, row in list(rows.items())[:SHOWN]:
        lines.append(f"{row['ms']:10.2f} {100 * row['share']:6.1f}% {row['not_estimated'] or '':>8}  {name}")
    if len(rows) > SHOWN:
        lines.append(f"{'':27}and {len(rows) - SHOWN} more, in the JSON")
    return "\n".join(lines)


def compared(old: dict[str, dict[str, float]], new: dict[str, dict[str, float]]) -> str:
    """What changed between two tables, the largest change first."""
    ms = lambda rows, name: rows.get(name, {}).get("ms", 0.0)
    names = sorted(old.keys() | new.keys(), key=lambda name: -abs(ms(new, name) - ms(old, name)))
    lines = [f"{'before':>10} {'after':>10} {'change':>10}"]
    lines += [
        f"{ms(old, name):10.2f} {ms(new, name):10.2f} {ms(new, name) - ms(old, name):+10.2f}  {name}"
        for name in names[:SHOWN]
        if ms(old, name) != ms(new, name)
    ]
    return "\n".join(lines)
