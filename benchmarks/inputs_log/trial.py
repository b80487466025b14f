"""Runs a command in a folder and gives its status and its words.

A start of `vspw_jax.main` takes seven seconds of a core, nearly all of them for imports. So the programs are run by
processes that are split off from one that has imported them. There `configs/upernet.py` has the network of
`tests/parallel/program.py`, which compiles in a second; all that stands around it is as it is. Other commands, also
those with a pipe or a signal, are a shell's.
"""

import importlib
import multiprocessing
import os
import pathlib
import re
import shlex
import subprocess
import sys
from typing import NamedTuple

from tests.inputs import workdirs
from vspw_jax.console.errors import run_program

ROOT = pathlib.Path(__file__).parents[2]
NETWORK = "tests.parallel.program"
MODULES = {
    "data_prep.vspw": "data_prep.vspw",
    "vspw_jax.main": "vspw_jax.main",
    "vspw_jax.metrics": "vspw_jax.metrics.__main__",
    "vspw_jax.submission": "vspw_jax.submission",
}
"""The commands that are split off, and the modules that they are."""

SECONDS = 300
"""A command that takes longer is ended; its status is None then."""

MOST_LINES = 14
"""Of words; the midst of more is left out."""

BAR = re.compile(r"\d+%\|| \|[ █▏▎▍▌▋▊▉]{12}\| |\[\d\d:\d\d[,\]]|^\S[^:]*: \d+ \w+s \[\d\d:\d\d")
"""A line of progress."""

REPLACED = (
    (r"process \d+ on host \S+, since [\d-]+ [\d:]+ [+-]\d+", "process 71 on host h, since 2026-11-28 10:00:00 +0000"),
    (r"Goodput: .*", "Goodput: ..."),
)
"""What differs from run to run and from machine to machine."""


class Ended(NamedTuple):
    """Exit status, and what was printed, without progress and without the folder's own path."""

    status: int | None
    words: str


def cleaned(text: str, folder: pathlib.Path) -> str:
    """The words of a command that ran in a folder."""
    text = text.replace(sys.executable, "python").replace(workdirs.OWNER, "...")
    text = text.replace(f"{folder.resolve()}/", "").replace(str(folder.resolve()), ".")
    lines = [line.rstrip() for line in text.replace("\r", "\n").splitlines()]
    lines = [line for line in lines if line and not BAR.search(line)]
    if len(lines) > MOST_LINES:
        left_out = f"[... {len(lines) - MOST_LINES + 1} lines ...]"
        lines = [*lines[: MOST_LINES // 2], left_out, *lines[1 - MOST_LINES // 2 :]]
    text = "\n".join(lines)
    for pattern, put in REPLACED:
        text = re.sub(pattern, put, text)
    return text


def _run(module: str, words: list[str], folder: pathlib.Path, output: pathlib.Path) -> None:
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.pop("XLA_FLAGS", None)  # Tests have several devices.
    os.chdir(folder)
    sys.argv = ["-m", *words]
    found = importlib.import_module(MODULES[module])
    if module == "vspw_jax.main":
        found.command_line()
    run_program(found.main, takes_addresses=True)


def _in_shell(command: str, folder: pathlib.Path, output: pathlib.Path) -> int | None:
    paths = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": paths}
    with output.open("wb") as file:
        try:
            return subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                cwd=folder,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=SECONDS,
            ).returncode
        except subprocess.TimeoutExpired:
            return None


class Programs:
    """Starts of commands. The first pays for the imports."""

    def __init__(self) -> None:
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload([NETWORK, *MODULES.values()])

    def run(self, command: str, folder: pathlib.Path) -> Ended:
        """Runs a command, as a shell reads it, in a folder."""
        output = folder.with_name(f"{folder.name}.txt")
        words = shlex.split(command)
        if words[:2] == ["python", "-m"] and words[2] in MODULES and not {"--help", "|"} & set(words):
            status = self._split_off(words[2], words[3:], folder, output)
        else:
            status = _in_shell(command, folder, output)
        return Ended(status, cleaned(output.read_text(errors="backslashreplace"), folder))

    def _split_off(self, module: str, words: list[str], folder: pathlib.Path, output: pathlib.Path) -> int | None:
        process = self._processes.Process(target=_run, args=(module, words, folder, output))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            return None
        return process.exitcode
