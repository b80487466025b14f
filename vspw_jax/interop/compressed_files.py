"""Checkpoints compressed by gzip. They stay unpacked until the program ends, as tensors are read from their places."""

import atexit
import functools
import gzip
import pathlib
import shutil
import tempfile
import zlib

from vspw_jax.console.errors import UserError, no_room
from vspw_jax.interop.stored_tensors import damaged

MOST_TIMES = 50
"""Weights are nearly random: gzip makes them a tenth smaller, and what it makes so much smaller is none."""

BLOCK = 2**20


def is_compressed(path: pathlib.Path) -> bool:
    """Whether a file begins as gzip's do."""
    with open(path, "rb") as file:
        return file.read(3) == b"\x1f\x8b\x08"


def unpacked(path: pathlib.Path) -> pathlib.Path:
    """A file with the content, in the system's folder for temporary files.

    Raises:
      UserError: it is damaged, or there is no room.
    """
    written = path.stat()
    return _unpacked(path, written.st_size, written.st_mtime_ns)


@functools.cache  # A run reads its checkpoint more than once.
def _unpacked(path: pathlib.Path, size: int, _: int) -> pathlib.Path:
    folder = tempfile.mkdtemp(prefix="vspw_jax-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target = pathlib.Path(folder) / path.name
    try:
        _unpack(path, target, MOST_TIMES * (size + BLOCK))
    except BaseException:
        shutil.rmtree(folder)
        raise
    return target


def _unpack(path: pathlib.Path, target: pathlib.Path, room: int) -> None:
    try:
        with gzip.open(path) as source, open(target, "wb") as file:
            while block := source.read(BLOCK):
                room -= len(block)
                if room < 0:
                    raise damaged(path, f"it becomes more than {MOST_TIMES} times as large when it is unpacked")
                file.write(block)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, f"it cannot be unpacked ({error})") from error
    except OSError as error:
        if not no_room(error):
            raise
        raise UserError(
            f"There is no room to unpack {path} in {target.parent}. Set TMPDIR to a folder with more, or unpack it "
            "with gunzip."
        ) from error
