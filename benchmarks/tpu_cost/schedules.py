"""Cycles of instructions by the schedules that the TPU's compiler writes while it compiles.

With FLAGS in LIBTPU_INIT_ARGS the compiler leaves a file of every instruction's final bundles: one bundle is issued a
cycle where nothing stalls. Bundles in loops count as often as the loops run. A loop whose bound depends on data counts
once, and both branches of a condition count. What waits for memory is not in it: a schedule is a lower bound where
memory is the limit.
"""

import contextlib
import dataclasses
import pathlib
import re
import threading
import time
from collections.abc import Iterator, Mapping

FLAGS = "--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=final"
BUNDLES = re.compile(r"^(\d+)-(.+)-\d+-final_bundles\.txt$")
BUNDLE = re.compile(r"^\s*(?:0x[0-9a-f]+|0)\s+(\w\w)?\s*:\s*(>*)\s*\{(\}?)")
"""A bundle: its mark, in how many loops it is, whether it is empty; the line of an empty one says nothing of loops."""
COUNTER = re.compile(r"= sphi (%\w+), (%\w+)")
"""At a loop's first bundle: what a register has when the loop begins, and what a round leaves in it."""
TEST = re.compile(r"scmp\.ge\.s32\.totalorder (?:\(!?%\w+\), )?(%\w+), (\d+)")
"""Whether a register has reached a bound; a predicate stands before it where an inner loop's last round asks."""
POLL_SECONDS = 2.0
SETTLED_SECONDS = 30.0
"""A file that has not changed for so long is whole. The compiler writes several at a time, a sort's for seconds."""


@dataclasses.dataclass
class _Loop:
    """Bundles of a loop, or of the whole program, which runs once."""

    depth: int
    rounds: int
    bundles: int = 0


def _rounds(first_bundle: str, bounds: Mapping[str, int]) -> int:
    """Up to which bound a loop counts by ones from 0; 1 where that depends on data."""
    return max((bounds[left] for _, left in COUNTER.findall(first_bundle) if left in bounds), default=1)


def cycles(schedule: str) -> int:
    """Bundles of a schedule, those in loops times their rounds."""
    bounds = {name: int(bound) for name, bound in TEST.findall(schedule)}
    loops = [_Loop(0, 1)]

    def leave(depth: int) -> None:
        while loops[-1].depth > depth:
            inner = loops.pop()
            loops[-1].bundles += inner.bundles * inner.rounds

    for line in schedule.splitlines():
        found = BUNDLE.match(line)
        if not found:
            continue
        begins, depth = found[1] == "LB", loops[-1].depth if found[3] else len(found[2])
        leave(max(depth - 1, 0) if begins else depth)
        if loops[-1].depth < depth:
            loops.append(_Loop(depth, _rounds(line, bounds) if begins else 1))
        loops[-1].bundles += 1
    leave(0)
    return loops[0].bundles


def _read(folder: pathlib.Path, known: dict[str, float], last: bool) -> None:
    """Takes the schedules that are there and deletes their files, but those that may still be written."""
    for path in folder.iterdir():
        if not last and time.time() - path.stat().st_mtime < SETTLED_SECONDS:
            continue
        found = BUNDLES.match(path.name)
        if found:
            known[found[2]] = cycles(path.read_text(errors="replace"))
        path.unlink()


@contextlib.contextmanager
def collected(folder: pathlib.Path) -> Iterator[dict[str, float]]:
    """{instruction: cycles of a run}, filled while programs are compiled, whole afterwards.

    The files are read and deleted as they come: of a whole step they would be many gigabytes.

    Args:
      folder: the one that FLAGS named when the compiler was loaded.
    """
    known: dict[str, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_SECONDS):
            _read(folder, known, last=False)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield known
    finally:
        ended.set()
        watcher.join()
        _read(folder, known, last=True)
