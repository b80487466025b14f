"""Ctrl-C while a command starts: its imports take seconds, and would end in a traceback.

A package calls `begun` when it is imported first; `errors.run_program` calls `over` when all is imported.
"""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""Exit status of a program that Ctrl-C stopped, as shells have it."""


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"\nInterrupted.\n")
    os._exit(INTERRUPTED)  # Nothing is written yet. An exception would be lost in libraries that are being imported.


def begun() -> None:
    """Where Python starts a module with -m: until `over`, Ctrl-C prints a line and ends it. Does nothing elsewhere.

    A program in the background of a script ignores Ctrl-C, and does so here too.
    """
    if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def over() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
