"""The program that a run is: started, stopped and, where it fails, quoted."""

import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.ablation.versions import ROOT
from vspw_jax.console.errors import UserError

PROGRAM = (sys.executable, "-m", "vspw_jax.main")
SHOWN_LINES = 12
"""Of a failed run's log."""


class RunFailed(Exception):
    """A run ended with a status that tells of a bug; the message is for the user."""


def execute(arguments: Sequence[str], log: pathlib.Path, lock: int) -> int:
    """Runs the program to its end, its output added to a log; its exit status.

    Args:
      arguments: of its command line.
      lock: a file descriptor that it keeps open as long as it lives.

    Raises:
      KeyboardInterrupt: this process was asked to stop; the program was too, and has saved its state.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # In a session of its own: a terminal's Ctrl-C would reach it beside what is sent below, and two end it.
            start_new_session=True,
            pass_fds=[lock],
        )
    asked = False
    while True:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            asked = True
            process.send_signal(signal.SIGINT)
            continue
        if asked:
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
