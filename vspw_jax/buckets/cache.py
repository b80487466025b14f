"""The folder of this disk where copies of what is in buckets lie: VSPW_JAX_CACHE, by default ~/.cache/vspw_jax.

fetched/<digest>/<name>    copies to read from; they stay, and the same objects are not copied again
converting/<digest>/       records on their way to a bucket; the same conversion goes on from there
work/<random>/             where one program works; the next program that uses a bucket deletes what a killed one left
kept/<time>/               what could not be sent when a program ended
"""

import hashlib
import os
import pathlib
import shutil
import tempfile
import time

import filelock

from vspw_jax.console.errors import UserError

VARIABLE = "VSPW_JAX_CACHE"
_OURS: list[filelock.FileLock] = []
"""The locks of this program's folders, held until it ends."""


def folder() -> pathlib.Path:
    """The cache, which is made if need be."""
    path = pathlib.Path(os.environ.get(VARIABLE) or "~/.cache/vspw_jax").expanduser().resolve()
    path.mkdir(parents=True, exist_ok=True)
    return path


def check_room(needed: int, address: str) -> None:
    """Raises UserError where the disk has no room for a copy of so many bytes."""
    place = folder()
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"No room for a copy of {address} in {place}: it needs {needed / 2**30:.2f} GiB, {free / 2**30:.2f} GiB "
            f"are free. Delete old copies in {place / 'fetched'}, or name another disk's folder with {VARIABLE}."
        )


def new_work_folder() -> pathlib.Path:
    """A new folder for this program alone."""
    place = folder() / "work"
    place.mkdir(parents=True, exist_ok=True)
    _delete_left(place)
    made = pathlib.Path(tempfile.mkdtemp(dir=place))
    lock = filelock.FileLock(made.with_suffix(".lock"))
    lock.acquire()
    _OURS.append(lock)
    return made


def converting_folder(address: str) -> pathlib.Path:
    """The folder in which records are made that go to an address; UserError where another program makes them."""
    made = folder() / "converting" / hashlib.sha256(address.encode()).hexdigest()[:16]
    made.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(made.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise UserError(
            f"Another program on this machine converts to {address}. Wait until it ends, stop it, or choose another "
            "--output=DIR."
        ) from error
    _OURS.append(lock)
    return made


def keep(folder_in_it: pathlib.Path) -> pathlib.Path:
    """Moves a folder out of a work folder, which goes when the program ends; its new path."""
    kept = folder() / "kept" / f"{time.time():.0f}" / folder_in_it.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    folder_in_it.rename(kept)
    return kept


def delete(made: pathlib.Path) -> None:
    """Deletes a folder of this program."""
    shutil.rmtree(made, ignore_errors=True)
    release(made)


def release(made: pathlib.Path) -> None:
    """Leaves a folder to other programs."""
    for lock in [lock for lock in _OURS if lock.lock_file == str(made.with_suffix(".lock"))]:
        pathlib.Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        _OURS.remove(lock)


def _delete_left(place: pathlib.Path) -> None:
    """Deletes the folders of programs that have ended."""
    for path in place.glob("*.lock"):
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=0)
        except (filelock.Timeout, OSError):
            continue
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        path.unlink(missing_ok=True)
        lock.release()
