"""Who owns a folder: the note that its owner leaves for others."""

import contextlib
import dataclasses
import os
import platform
import shlex
import sys
import time

import psutil


def machine() -> str:
    """Where a process number means the same process: the host, and in a container its numbers of processes."""
    with contextlib.suppress(OSError):
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    return platform.node()


@dataclasses.dataclass(frozen=True)
class Owner:
    """A program that owns, or owned, a folder; fields are empty where it left no note.

    Attributes:
      machine: see `machine`.
      token: of its lease.
    """

    host: str = ""
    pid: int = 0
    since: str = ""
    command: str = ""
    machine: str = ""
    token: str | None = None

    def __str__(self) -> str:
        if not self.pid:
            return "a program that says nothing of itself."
        return f"process {self.pid} on host {self.host}, since {self.since}:\n  {self.command}"

    def is_dead(self) -> bool:
        """Whether its process has ended, as far as one sees on this machine."""
        if self.machine != machine():
            return False
        try:  # Of a zombie, which has ended, the parent has not asked for its end yet.
            return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


def this_program(token: str | None) -> Owner:
    """The note of this program; `token` is its lease's."""
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return Owner(platform.node(), os.getpid(), since, shlex.join(sys.orig_argv), machine(), token)
