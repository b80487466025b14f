"""Copies of what is in buckets, to read from: made once, and again only where an object is another one.

A copy lies in cache/fetched/<digest>/, where the digest is of the address and of what the objects are there. So a run
reads the same bytes until it ends, whoever overwrites the objects meanwhile; the next run sees that they are others.
"""

import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable, Mapping

import filelock

from vspw_jax.buckets import addresses, cache
from vspw_jax.buckets.remote_folder import Object, RemoteFolder
from vspw_jax.console import places
from vspw_jax.console.progress import progress

DESCRIPTION = "dataset_info.json"
"""By this file records are found."""
_COPIES: dict[pathlib.Path, "Copy"] = {}
_WILD = re.compile(r"[*?\[]")


class Copy:
    """The copy of what is at an address; its files come as they are asked for.

    Attributes:
      path: the copy of the address itself, a file or a folder; where nothing is there, no such path.
      names: of the objects below it; that of a file is "".
    """

    def __init__(self, address: str, found: Mapping[str, Object]) -> None:
        name = addresses.last_name(address)
        self._remote, self._objects, self.names = RemoteFolder(address), found, list(found)
        listed = json.dumps([address, sorted((key, value.size, value.identity) for key, value in found.items())])
        self._folder = cache.folder() / "fetched" / hashlib.sha256(listed.encode()).hexdigest()[:16]
        self.path = self._folder / name
        self._folder.parent.mkdir(exist_ok=True)
        _COPIES[self.path] = self
        places.name(self._folder, addresses.folder_of(address))

    def bring(self, names: Iterable[str] | None = None) -> pathlib.Path:
        """Copies those of the named objects, by default of all, that are not here; gives the path."""
        wanted = list(self._objects if names is None else names)
        with filelock.FileLock(self._folder.with_suffix(".lock")):  # Several processes of a machine read the same.
            missing = {name: self._objects[name] for name in wanted if not (self.path / name).exists()}
            size = sum(found.size for found in missing.values())
            if missing:
                cache.check_room(size, self._remote.address)
                said = f"copying {self._remote.address} ({size / 2**20:.1f} MiB)"
                with progress(None, said, "file", total=len(missing)) as bar:
                    self._remote.download_all(self.path, missing, bar.update)
        return self.path


@functools.cache
def copy_of(address: str) -> Copy:
    """The copy of what is at an address now; asked again, this program gives the same one."""
    return Copy(address, RemoteFolder(address).objects())


@functools.cache
def copy_of_records(address: str) -> Copy:
    """The copy of the folders at or below an address that hold records, without what lies deeper in these."""
    found = RemoteFolder(address).objects()
    holding = {name.removesuffix(DESCRIPTION) for name in found if name.endswith(DESCRIPTION)}
    return Copy(address, {name: each for name, each in found.items() if name[: name.rfind("/") + 1] in holding})


def path(place: pathlib.Path | str) -> pathlib.Path:
    """A path to read from: of a bucket's address a copy, of anything else itself."""
    return copy_of(addresses.plain(place)).bring() if addresses.is_address(place) else pathlib.Path(place)


def pattern(argument: str) -> str:
    """A path or pattern of shells to read from: where it is in a bucket, all that matches is copied."""
    wild = _WILD.search(argument)
    if not addresses.is_address(argument) or wild is None:
        return str(path(argument))
    fixed = argument[: wild.start()].rpartition("/")[0]
    rest = argument.removeprefix(f"{fixed}/")
    remote = RemoteFolder(fixed)
    found, matches = remote.objects(), remote.matching(rest)
    chosen = {
        name: found[name] for name in found if any(name == match or name.startswith(f"{match}/") for match in matches)
    }
    return str(Copy(fixed, chosen).bring() / rest)


def bring(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Copies files that are missing in a folder, where it is a copy, or lies in one."""
    for copy in [_COPIES[place] for place in (folder, *folder.parents) if place in _COPIES]:
        inner = folder.relative_to(copy.path)
        copy.bring({str(inner / name) for name in names} & set(copy.names))
