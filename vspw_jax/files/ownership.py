"""The owner of a folder: the one program that may write there, as long as it runs.

    DIR/.owner.lock   a lease of filelock, which its owner renews
    DIR/.owner.json   who that is, for the message to others

A folder that holds a part of a bucket is owned by the lease there, see buckets/lease.py.

A program that was killed releases nothing. On its own host one sees that its process is gone, and takes the folder over
at once. From another host no process can be seen: there a lease that nobody renews while one looks is taken over. So
neither the clocks of hosts nor the locks of a network's file system matter.
"""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import filelock

from vspw_jax.buckets import mirrors
from vspw_jax.buckets.lease import BucketLease
from vspw_jax.console.errors import UserError, warn
from vspw_jax.files.owner import Owner, machine, this_program
from vspw_jax.files.whole_files import whole_file
from vspw_jax.files.writable import check_folder

LOCK, NOTE = ".owner.lock", ".owner.json"

LEASE_SECONDS = 90.0
"""So long a lease may go without being renewed. A network's file system may show a change after 60."""
BEAT_SECONDS = 10.0
POLL_SECONDS = 1.0
"""How often whoever waits looks whether a folder is free."""


class Ownership:
    """That a folder is this program's."""

    def __init__(self, folder: pathlib.Path, lease: filelock.SoftFileLease) -> None:
        self._folder, self._lease = folder, lease

    def check(self) -> None:
        """Raises UserError where it was lost: this program stood still for so long that another took the folder."""
        if self._lease.compromise:
            raise UserError(
                f"{self._folder} is no longer this program's ({self._lease.compromise.reason}): it did not renew "
                f"{LOCK} for {LEASE_SECONDS:.0f} s, and another program may write there now. Nothing more is written. "
                f"See {self._folder / NOTE}, and give the same command again when no program runs there."
            )


@contextlib.contextmanager
def owned(folder: pathlib.Path | str, flag: str, waits: bool = False) -> Iterator[Ownership | BucketLease]:
    """Within the block the folder, made if need be, is this program's alone.

    Args:
      flag: names the folder, such as "--workdir=DIR".
      waits: whether to wait until another program that owns it has ended, however long that takes; not in a bucket.

    Raises:
      UserError: another program owns it, or nothing can be written there.
    """
    folder = pathlib.Path(folder)
    check_folder(folder, flag)
    folder.mkdir(parents=True, exist_ok=True)
    mirror = mirrors.of(folder)
    if mirror:
        with mirror.owned(folder, flag) as in_bucket:
            yield in_bucket
        return
    lease = filelock.SoftFileLease(
        folder / LOCK, lease_duration=LEASE_SECONDS, heartbeat_interval=BEAT_SECONDS, thread_local=False
    )
    _take(lease, folder, flag, waits)
    try:
        with whole_file(folder / NOTE) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(this_program(lease.token)), indent=2) + "\n")
        yield Ownership(folder, lease)
    finally:
        if not lease.compromise:
            (folder / NOTE).unlink(missing_ok=True)
        lease.release()


def _take(lease: filelock.SoftFileLease, folder: pathlib.Path, flag: str, waits: bool) -> None:
    """Takes the lease, once it is free if one waits; or raises UserError."""
    says: Callable[[str], None] = warn
    while refusal := _refusal(lease, folder, says):
        if not waits:
            raise UserError(
                f"{refusal}\nTwo programs would spoil each other's files. Wait until it ends, stop it, or choose "
                f"another {flag}."
            )
        says(f"{refusal}\nWaiting until it ends.")
        says = lambda _: None
        time.sleep(POLL_SECONDS)


def _refusal(lease: filelock.SoftFileLease, folder: pathlib.Path, says: Callable[[str], None]) -> str:
    """Takes the lease and gives "", or gives who has it."""
    if _is_taken(lease, timeout=0):
        return ""
    owner = _owner(lease, folder)
    gone = owner.is_dead()
    if owner.machine != machine():
        says(f"{folder} is in use by {owner}\nLooking for up to {LEASE_SECONDS:.0f} s whether it still runs.")
        is_renewed = _renewal(folder / LOCK)
        if _is_taken(lease, timeout=LEASE_SECONDS + BEAT_SECONDS, cancel_check=is_renewed):
            return ""
        gone = not owner.pid and not is_renewed()  # A disk without power leaves empty files.
    if gone:
        lease.force_break()
        if _is_taken(lease, timeout=0):
            return ""
    return f"{folder} is in use by {_owner(lease, folder)}"


def _is_taken(lease: filelock.SoftFileLease, **options: Any) -> bool:
    with contextlib.suppress(filelock.Timeout, filelock.LeaseSettingsMismatch):  # The latter: by another version.
        lease.acquire(poll_interval=1, **options)
    return lease.is_locked


def _renewal(lock: pathlib.Path) -> Callable[[], bool]:
    """A function that says whether the lease has been renewed since."""
    look = lambda: lock.stat().st_mtime_ns if lock.exists() else None
    first = look()
    return lambda: look() not in (None, first)


def _owner(lease: filelock.SoftFileLease, folder: pathlib.Path) -> Owner:
    """Who holds the lease, as the note of the same token says."""
    record = lease.owner
    try:
        noted = Owner(**json.loads((folder / NOTE).read_text()))
    except (OSError, ValueError, TypeError):
        noted = Owner()
    if record and noted.token == record.token:
        return noted
    return Owner(record.hostname, record.pid, "a moment ago", "(not noted yet)") if record else Owner()
