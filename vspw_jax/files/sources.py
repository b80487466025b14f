"""Where a data set's files come from: a folder, a zip or a tar, read file by file and never extracted.

Names are relative to the source, with "/" between folders; files and folders that start with a dot are passed over.
The names and sizes in an archive are checked before anything is read. These are refused: an absolute name, "..", a link
or device, a name that occurs twice, a file beyond MAX_BYTES, a file packed to less than a MAX_RATIO-th of its size.
A source can be sent to another process; it opens its own handle there.
"""

import contextlib
import functools
import os
import pathlib
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from typing import Self

from vspw_jax.console.errors import UserError

MAX_BYTES = 1 << 28
MAX_RATIO = 200
"""JPEG and PNG files hardly pack at all; a PNG mask of one class packs to a third."""
WINDOWS = 0
"""Zip's number for archives made on MS-DOS and Windows."""


class Source:
    """Files by name; `Folder`, `Zip` and `Tar` read them.

    Attributes:
      path: of the folder or archive.
      sizes: bytes of each file by its name.
    """

    path: str
    sizes: dict[str, int]

    def where(self, name: str) -> str:
        """The file as a user knows it."""
        return f"{self.path}:{name}"

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        raise NotImplementedError

    def only(self, names: Iterable[str]) -> Self:
        """The same source with these files alone, to be sent to another process: it may run in another folder."""
        restricted = object.__new__(type(self))
        restricted.path = os.path.abspath(self.path)
        restricted.sizes = {name: self.sizes[name] for name in names if name in self.sizes}
        return restricted

    def _enter(self, name: str, size: int) -> None:
        """Takes an archive's member into `sizes` once its name and size are known to be harmless."""
        parts = name.removeprefix("./").split("/")
        if name.startswith("/") or "\\" in name or "\0" in name or ":" in parts[0] or {"", ".", ".."} & set(parts):
            raise UserError(f"{self.where(name)!r}: a name that leads out of the archive. Do not trust this archive.")
        if size > MAX_BYTES:
            raise UserError(f"{self.where(name)} has {size} bytes, more than any image. Is this the right archive?")
        if name in self.sizes or name.removeprefix("./") in self.sizes or f"./{name}" in self.sizes:
            raise UserError(f"{self.where(name)} is in the archive twice. Make the archive anew, or unpack it.")
        self.sizes[name] = size


class Folder(Source):
    """The files of a folder."""

    def __init__(self, path: pathlib.Path | str) -> None:
        self.path = str(path)
        self.sizes = {}
        visited = set()
        for folder, folders, files in os.walk(path, followlinks=True, onerror=_refuse):
            status = os.stat(folder)
            visible = [name for name in folders if not name.startswith(".")]
            # A link may lead back to a folder above it.
            folders[:] = [] if (status.st_dev, status.st_ino) in visited else visible
            visited.add((status.st_dev, status.st_ino))
            relative = os.path.relpath(folder, path).replace(os.sep, "/")
            prefix = "" if relative == "." else f"{relative}/"
            for name in files:
                if not name.startswith("."):
                    self.sizes[prefix + name] = _size(os.path.join(folder, name))

    def where(self, name: str) -> str:
        """The file as a user knows it."""
        return os.path.join(self.path, name)

    def read(self, name: str) -> bytes:
        """The bytes of a file; UserError where it is a link to nowhere."""
        path = pathlib.Path(self.where(name))
        if path.is_symlink() and not path.exists():
            raise UserError("is a link to a file that is not there")
        return path.read_bytes()


def _size(path: str) -> int:
    """Bytes of a file; 0 of a link to nowhere, so that it is known and whoever reads it is told."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed: its files would be missing unsaid."""
    raise error


class Zip(Source):
    """The files of a zip."""

    def __init__(self, path: pathlib.Path | str) -> None:
        self.path = str(path)
        self.sizes = {}
        self._stored: dict[str, str] = {}
        for info in _zip(self.path).infolist():
            name = _name_in(info)
            if info.is_dir() or name.endswith("/") or _hidden(name):
                continue
            if info.flag_bits & 1:
                raise UserError(f"{self.where(name)} is encrypted. Unpack the archive and give the folder.")
            if (info.external_attr >> 16) & 0o170000 == 0o120000:
                raise UserError(f"{self.where(name)} is a link. Unpack the archive and give the folder.")
            if info.file_size > MAX_RATIO * max(info.compress_size, 1 << 12):
                raise UserError(
                    f"{self.where(name)} would grow from {info.compress_size} to {info.file_size} bytes: "
                    "no image does. Is this the right archive?"
                )
            self._enter(name, info.file_size)
            self._stored[name] = info.filename

    def read(self, name: str) -> bytes:
        """The bytes of a file; zipfile checks its checksum and that it has the size that the archive says."""
        try:
            return _zip(self.path).read(self._stored[name])
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise UserError(f"cannot be unpacked ({error})") from error

    def only(self, names: Iterable[str]) -> Self:
        """The same source with these files alone."""
        restricted = super().only(names)
        restricted._stored = {name: self._stored[name] for name in restricted.sizes}
        return restricted


def _name_in(info: zipfile.ZipInfo) -> str:
    """A member's name with "/" between folders. Some programs of Windows write "\\" there, against zip's rules."""
    from_windows = info.create_system == WINDOWS and "/" not in info.filename
    return info.filename.replace("\\", "/") if from_windows else info.filename


class Tar(Source):
    """The files of a tar that is not compressed."""

    def __init__(self, path: pathlib.Path | str) -> None:
        self.path = str(path)
        self.sizes = {}
        self._offsets: dict[str, int] = {}
        end = os.path.getsize(path)
        with _opened_tar(self.path) as archive:
            for member in archive:
                if member.isdir() or _hidden(member.name):
                    continue
                if not member.isreg():
                    raise UserError(
                        f"{self.where(member.name)} is a link or device. Unpack the archive and give the folder."
                    )
                if member.offset_data + member.size > end or member.issparse():
                    raise UserError(
                        f"{self.where(member.name)} does not end within the archive: it is cut off or damaged."
                    )
                self._enter(member.name, member.size)
                self._offsets[member.name] = member.offset_data

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with open(self.path, "rb") as file:
            file.seek(self._offsets[name])
            return file.read(self.sizes[name])

    def only(self, names: Iterable[str]) -> Self:
        """The same source with these files alone."""
        restricted = super().only(names)
        restricted._offsets = {name: self._offsets[name] for name in restricted.sizes}
        return restricted


def open_source(path: Source | pathlib.Path | str) -> Source:
    """The source at a path: a folder, or a .zip or .tar. A `Source` is given back as it is.

    Raises:
      UserError: nothing is there, or it is an archive that cannot be read file by file.
    """
    if isinstance(path, Source):
        return path
    path = pathlib.Path(path)
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise UserError(f"{path}: no such folder or archive. Give --source=DIR, a .zip or a .tar.")
    if zipfile.is_zipfile(path):
        return Zip(path)
    with path.open("rb") as file:
        head = file.read(6)
    packed = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ\0": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
    for magic, program in packed.items():
        if head.startswith(magic):
            raise UserError(
                f"{path} is compressed as a whole: none of its files can be read without unpacking all before it. "
                f"Unpack it to a .tar with {program}, or to a folder."
            )
    return Tar(path)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


@functools.lru_cache(maxsize=2)
def _zip(path: str) -> zipfile.ZipFile:
    """One handle a process, or two where images and labels are in archives of their own.

    Reading the list of half a million members takes seconds.
    """
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is a damaged zip ({error}). Download it again.") from error


@contextlib.contextmanager
def _opened_tar(path: str) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as archive:
            yield archive
    except tarfile.TarError as error:
        raise UserError(f"{path} is neither a folder, a zip nor a whole tar ({error}).") from error
