"""Cycles of instructions by the schedules that the TPU's compiler writes while it compiles.

With FLAGS in LIBTPU_INIT_ARGS the compiler leaves a file of every instruction's final bundles: one bundle is issued a
cycle where nothing stalls. Bundles in loops count as often as the loops run. A loop whose bound depends on data counts
once, and both branches of a condition count. What waits for memory is not in it: a schedule is a lower bound where
memory is the limit.
"""

import contextlib
import pathlib
import re
import threading
from collections.abc import Iterable, Iterator

FLAGS = "--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=final"
BUNDLES = re.compile(r"^(\d+)-(.+)-\d+-final_bundles\.txt$")
BUNDLE = re.compile(r"^\s*(?:0x[0-9a-f]+|0)\s+(\w\w)?\s*:\s*(>*)\s*\{")
STEP = re.compile(r"(%\w+) = sadd\.s32 1, %")
TEST = re.compile(r"scmp\.ge\.s32\.totalorder (%\w+), (\d+)")
POLL_SECONDS = 2.0


class _Loop:
    """Bundles of a loop, or of the whole program, which runs once."""

    def __init__(self, depth: int) -> None:
        self.depth, self.bundles = depth, 0
        self.steps: set[str] = set()
        self.tests: list[tuple[str, int]] = []

    def read(self, line: str) -> None:
        self.bundles += 1
        self.steps.update(STEP.findall(line))
        self.tests += [(name, int(bound)) for name, bound in TEST.findall(line)]

    def rounds(self) -> int:
        """Up to which bound it counts by ones; 1 where that depends on data."""
        return max((bound for name, bound in self.tests if name in self.steps), default=1)


def cycles(lines: Iterable[str]) -> int:
    """Bundles of a schedule, those in loops times their rounds."""
    loops = [_Loop(0)]

    def leave(depth: int) -> None:
        while loops[-1].depth > depth:
            inner = loops.pop()
            loops[-1].bundles += inner.bundles * inner.rounds()

    for line in lines:
        found = BUNDLE.match(line)
        if not found:
            continue
        mark, depth = found[1], len(found[2])
        leave(max(depth - 1, 0) if mark == "LB" else depth)
        if loops[-1].depth < depth:
            loops.append(_Loop(depth))
        loops[-1].read(line)
    leave(0)
    return loops[0].bundles


def _read(folder: pathlib.Path, known: dict[str, float], last: bool) -> None:
    """Takes the schedules that are there and deletes their files; the newest may still be written."""
    paths = sorted(folder.iterdir(), key=lambda path: path.name)
    newest = paths[-1].name.partition("-")[0] if paths and not last else None
    for path in paths:
        if path.name.partition("-")[0] == newest:
            continue
        found = BUNDLES.match(path.name)
        if found:
            with path.open(errors="replace") as lines:
                known[found[2]] = cycles(lines)
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
