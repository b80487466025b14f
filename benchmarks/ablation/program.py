"""The programs that a run is: started, stopped and, where one fails, quoted."""

import dataclasses
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.ablation.versions import ROOT
from vspw_jax.console.errors import UserError

PYTHON = (sys.executable, "-m")
SHOWN_LINES = 12
"""Of a failed run's log."""


class RunFailed(Exception):
    """A run ended with a status that tells of a bug; the message is for the user."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A program of a run.

    Attributes:
      module: what Python runs.
      arguments: of its command line.
      leaves: what is there once it has ended well: training that is asked to stop ends with status 0 too.
    """

    module: str
    arguments: Sequence[str]
    leaves: pathlib.Path


def execute(command: Command, log: pathlib.Path, locks: Sequence[int]) -> int:
    """Runs a program to its end, its output added to a log; its exit status.

    Args:
      locks: file descriptors that it keeps open as long as it lives.

    Raises:
      KeyboardInterrupt: the program was asked to stop, by itself or with this process; it has saved its state.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*PYTHON, command.module, *command.arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # In a session of its own: a terminal's Ctrl-C would reach it beside what is sent below, and two end it.
            start_new_session=True,
            pass_fds=locks,
        )
    asked = False
    while True:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            asked = True
            process.terminate()
            continue
        if asked or (status == 0 and not command.leaves.exists()):
            raise KeyboardInterrupt
        return status


def complain(title: str, status: int, log: pathlib.Path) -> None:
    """Raises what a run's exit status stands for, with the end of its log.

    Raises:
      UserError: status 2.
      RunFailed: any other.
    """
    lines = log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
    said = f"The run of {title} ended with status {status}. The end of {log}:\n"
    said += "\n".join(f"  {line}" for line in lines) + "\nWhen that is mended, the same command goes on."
    raise (UserError if status == 2 else RunFailed)(said)
