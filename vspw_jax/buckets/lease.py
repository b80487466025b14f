"""The lease of a folder in a bucket: objects that are made only where there is none of that name, and then renewed.

    <folder>/.owner/00000007.json    who owns it, how often the lease was renewed, and whether that has ended

The owner is whoever made the object of the highest number. So of two programs that take a folder at the same time one
has it, and a program that stood still renews an object that no longer counts. Of an owner on this machine one sees
whether its process runs; from elsewhere a lease is taken over that nobody renews while one looks.
"""

import dataclasses
import json
import secrets
import threading
import time
from typing import Any

from vspw_jax.buckets.answers import BucketError
from vspw_jax.buckets.remote_folder import RemoteFolder
from vspw_jax.console.errors import UserError, warn
from vspw_jax.files.owner import Owner, this_program

FOLDER = ".owner"
LEASE_SECONDS, BEAT_SECONDS = 90.0, 10.0


def _name(number: int) -> str:
    return f"{number:08d}.json"


class BucketLease:
    """That a folder in a bucket is this program's, until `end`.

    Args:
      address: of the folder.
      flag: names it, such as "--workdir=DIR".

    Raises:
      UserError: another program owns it.
    """

    def __init__(self, address: str, flag: str) -> None:
        self.address, self._flag = address, flag
        self._remote, self._lock, self._lost = RemoteFolder(f"{address}/{FOLDER}"), threading.Lock(), False
        self._owner, self._beats = this_program(secrets.token_hex(8)), 0
        self._number = self._take()
        self._renewed, self._ended = time.monotonic(), threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _numbers(self) -> list[int]:
        return sorted(int(name[:8]) for name in self._remote.objects() if name[:8].isdigit())

    def _content(self, ended: bool = False) -> bytes:
        self._beats += 1
        note = {"owner": dataclasses.asdict(self._owner), "renewed": self._beats, "ended": ended}
        return json.dumps(note).encode()

    def _read(self, number: int) -> dict[str, Any]:
        try:
            note = json.loads(self._remote.read(_name(number)) or b"{}")
            return {**note, "owner": Owner(**note["owner"])}
        except (ValueError, TypeError, KeyError):
            return {"owner": Owner()}

    def _take(self) -> int:
        newest = max(self._numbers(), default=0)
        if newest and not self._is_free(newest):
            raise self._taken(newest)
        if not self._remote.create(_name(newest + 1), self._content()):
            raise self._taken(newest + 1)
        self._remote.remove(_name(number) for number in self._numbers() if number <= newest)
        return newest + 1

    def _is_free(self, number: int) -> bool:
        """Whether the owner of that number has ended it, has ended itself, or does not renew it while one looks."""
        first = self._read(number)
        if first.get("ended") or first["owner"].is_dead():
            return True
        warn(f"{self.address} is in use by {first['owner']}\nLooking for up to {LEASE_SECONDS:.0f} s whether it runs.")
        ends = time.monotonic() + LEASE_SECONDS
        while time.monotonic() < ends:
            time.sleep(BEAT_SECONDS / 2)
            if self._read(number) != first:
                return False
        return True

    def _taken(self, number: int) -> UserError:
        return UserError(
            f"{self.address} is in use by {self._read(number)['owner']}\nTwo programs would spoil each other's files. "
            f"Wait until it ends, stop it, or choose another {self._flag}."
        )

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS) and not self._lost:
            try:
                self._renew()
            except BucketError:
                continue  # `check` says it, where something is to be written.

    def _renew(self) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            self._lost = self._lost or max(self._numbers(), default=0) > self._number
            if not self._lost:
                self._remote.write(_name(self._number), self._content())
                self._renewed = time.monotonic()

    def check(self) -> None:
        """Raises UserError where it was lost: this program stood still for so long that another took the folder."""
        if not self._lost and time.monotonic() - self._renewed > LEASE_SECONDS / 2:
            self._renew()
        if self._lost:
            raise UserError(
                f"{self.address} is no longer this program's: it did not renew its lease for {LEASE_SECONDS:.0f} s, "
                f"and another program took it. Nothing more is written. See {self.address}/{FOLDER}, and give the same "
                "command again when no program runs there."
            )

    def end(self) -> None:
        """Gives the folder free."""
        self._ended.set()
        with self._lock:
            if not self._lost:
                self._remote.write(_name(self._number), self._content(ended=True))
