"""metrics.jsonl: the scalars of a run, a line of JSON for each step that was logged."""

import itertools
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from vspw_jax.console.errors import counted, warn
from vspw_jax.files.whole_files import whole_file

FILE = "metrics.jsonl"
_OBJECT = re.compile(rb"\{[^{}]*\}")
"""A line's figures, also where a power cut has left zeros or half a line before it, or has joined it to another."""


class FiguresFile:
    """Scalars of a run that starts at `first_step`: what an older start wrote after that goes.

    Damaged parts are left out. The user is told, and the file as it was is kept in workdir/damaged.
    """

    def __init__(self, workdir: pathlib.Path, first_step: int) -> None:
        path = workdir / FILE
        if path.exists():
            data = path.read_bytes()
            lines, dropped = _read(data)
            if dropped:
                aside = _set_aside(workdir, data)
                warn(
                    f"{path} is damaged: {counted(len(lines), 'line')} of it can be read, {counted(dropped, 'byte')} "
                    f"cannot and were left out. {aside} is the file as it was; delete it when you have seen it."
                )
            with whole_file(path) as partial:
                partial.write_text("".join(f"{line}\n" for step, line in lines if step <= first_step))
        self._file = path.open("a")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers by name."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Writes what is left."""
        self._file.close()


def _step(found: bytes) -> int | None:
    """The step of a line; None where it is not one of ours."""
    try:
        line: Any = json.loads(found)
    except ValueError:
        return None
    return line["step"] if isinstance(line.get("step"), int) else None


def _read(data: bytes) -> tuple[list[tuple[int, str]], int]:
    """(step and line of what can be read, bytes of what cannot)."""
    lines: list[tuple[int, str]] = []

    def take(found: re.Match[bytes]) -> bytes:
        step = _step(found[0])
        if step is None:
            return found[0]
        lines.append((step, found[0].decode()))
        return b""

    left = _OBJECT.sub(take, data)
    return lines, len(b"".join(left.split()))


def _set_aside(workdir: pathlib.Path, data: bytes) -> pathlib.Path:
    """Keeps the contents of a damaged file beside those of earlier ones; the new file's path."""
    folder = workdir / "damaged"
    folder.mkdir(exist_ok=True)
    names = (folder / f"{number}_{FILE}" for number in itertools.count(1))
    path = next(name for name in names if not name.exists())
    with whole_file(path) as partial:
        partial.write_bytes(data)
    return path
