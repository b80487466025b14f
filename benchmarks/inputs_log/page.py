"""The log as Markdown."""

from collections.abc import Iterable

from benchmarks.inputs_log.case import Case, Section
from benchmarks.inputs_log.trial import Ended

HEAD = """# The log of inputs

    python -m benchmarks.inputs_log --output=docs/inputs_log.md

This is what the commands print of bad and odd inputs: each was made and each command was run, and the words are theirs.
[What inputs are taken](inputs.md) sums it up. `configs/upernet.py`, and `small.py` with it, has a network that compiles
in a second; `net.py` is `configs/segformer.py`, smaller. Status 0 alone does not show that a result is right: the tests
of each kind check that (`tests/inputs/` has what they are made of). Progress is left out, and the midst of many lines;
numbers of processes, hosts and times are replaced. Status 0 is done, 2 is for what the user must mend.
"""

Tried = dict[str, list[tuple[Case, list[tuple[str, Ended]]]]]
"""By kind: cases, and the commands of each with what came of them."""


def entry(case: Case, ended: Iterable[tuple[str, Ended]]) -> str:
    """A case, its commands, statuses and words."""
    lines = []
    for command, (status, words) in ended:
        lines += [
            f"$ {command}",
            *words.splitlines(),
            f"[status {'none: it took too long' if status is None else status}]",
        ]
    return "\n".join([f"**{case.what}**", "", "```text", *lines, "```", ""])


def section(of: Section, tried: Tried) -> str:
    """A section's kinds, with all that was tried and what was not."""
    parts = [f"## {of.title}\n"]
    for kind, cases in tried.items():
        parts.append(f"### {kind}\n")
        parts += [entry(*case) for case in cases]
        if kind in of.not_tried:
            parts.append(f"Not tried here: {of.not_tried[kind]}\n")
    return "\n".join(parts)


def page(sections: Iterable[tuple[Section, Tried]]) -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(of, tried) for of, tried in sections)])
