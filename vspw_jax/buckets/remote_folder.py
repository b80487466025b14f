"""A folder in a bucket: its objects are listed, read and written whole, by fsspec (gcsfs, s3fs)."""

import concurrent.futures
import contextlib
import dataclasses
import importlib
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from vspw_jax.buckets import addresses
from vspw_jax.buckets.answers import BucketError, Changed, patient

THREADS = 16
"""How many objects are on their way at a time."""
MODULES = {"gs": "gcsfs", "s3": "s3fs"}
OPTIONS: dict[str, dict[str, Any]] = {"gs": {}, "s3": {"config_kwargs": {"retries": {"max_attempts": 0}}}}
"""Of fsspec's file systems. Requests are made again in `answers.py`, which says so."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Object:
    """A file in a bucket.

    Attributes:
      size: in bytes.
      identity: changes whenever it is overwritten with other bytes.
    """

    size: int
    identity: str


def _object(info: Mapping[str, Any]) -> Object:
    return Object(int(info["size"]), str(info.get("generation") or info.get("ETag")))


def _filesystem(scheme: str) -> Any:
    """fsspec's file system. It keeps no listings: another program may write at any time."""
    os.environ.setdefault(
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false"
    )  # It asks each bucket for its kind, and complains.
    try:
        importlib.import_module(MODULES[scheme])
        import fsspec
    except ImportError as error:
        raise BucketError(
            f"Addresses {scheme}:// need {MODULES[scheme]}, which is not installed. Install it with: pip install -r "
            "requirements-buckets.txt"
        ) from error
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # It logs a traceback for each try.
    return fsspec.filesystem(scheme, use_listings_cache=False, **OPTIONS[scheme])


class RemoteFolder:
    """The objects whose names begin with an address and a slash.

    Every method raises BucketError where there is no such bucket, credentials are missing or lack a right, or the
    server does not answer.
    """

    def __init__(self, address: str) -> None:
        self.address, self._scheme = addresses.plain(address), address.split(":")[0]
        self._root, self._files = self.address.split("://")[1], _filesystem(self._scheme)

    def objects(self) -> dict[str, Object]:
        """All objects below it by name, with "/" between folders; where the address is an object's, that one, as ""."""
        found = self._ask("Listing", "", lambda: self._files.find(self._root, detail=True))
        kept = {}
        for key, info in found.items():
            name = key.removeprefix(self._root).removeprefix("/")
            if info["type"] == "file" and not key.endswith("/"):  # Consoles make empty objects to show folders.
                self._check(name)
                kept[name] = _object(info)
        return kept

    def _check(self, name: str) -> None:
        """Raises BucketError where a name could be no file's on this disk."""
        parts = name.split("/")
        if {"..", "."} & set(parts) or (name and "" in parts) or not name.isprintable():
            raise BucketError(f"{self.address} holds an object named {name!r}, which no file can be called. Rename it.")

    def matching(self, pattern: str) -> list[str]:
        """The names of the objects that match a pattern of shells, or lie below a folder that does."""
        found = self._ask("Listing", pattern, lambda: self._files.glob(f"{self._root}/{pattern}"))
        return sorted(key.removeprefix(f"{self._root}/") for key in found)

    def read(self, name: str) -> bytes | None:
        """An object's bytes, None where there is none."""
        try:
            return patient(self._doing("Reading", name), self._scheme, lambda: self._files.cat_file(self._key(name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Makes or replaces an object, all of it at once."""
        self._ask("Writing", name, lambda: self._files.pipe_file(self._key(name), data))

    def create(self, name: str, data: bytes) -> bool:
        """Makes an object unless there is one; whether it did."""
        try:
            self._ask("Writing", name, lambda: self._files.pipe_file(self._key(name), data, mode="create"))
        except FileExistsError:
            return self.read(name) == data  # The answer to a first request may have been lost.
        return True

    def upload_all(self, folder: pathlib.Path, names: Iterable[str]) -> None:
        """Makes or replaces the objects of files below a folder of this disk, by their names there."""
        upload = lambda name: self._files.put_file(str(folder / name), self._key(name))
        _each(lambda name: self._ask("Writing", name, lambda: upload(name)), names)

    def download_all(
        self, folder: pathlib.Path, chosen: Mapping[str, Object], done: Callable[[], object] = lambda: None
    ) -> None:
        """Copies objects below a folder of this disk; each file is there whole or not at all.

        Args:
          done: is called for each.

        Raises:
          Changed: one of them is not what it was when it was listed.
        """
        _each(lambda name: self._download(name, folder / name, chosen[name]), chosen, done)

    def _download(self, name: str, path: pathlib.Path, expected: Object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial, key = path.with_name(f"partial-{path.name}"), self._key(name)
        doing = self._doing("Reading", name)
        try:
            patient(doing, self._scheme, lambda: self._files.get_file(key, str(partial)))
            found = patient(doing, self._scheme, lambda: _object(self._files.info(key)))
            if found != expected or partial.stat().st_size != expected.size:
                raise FileNotFoundError(name)
            partial.replace(path)
        except FileNotFoundError as error:
            raise Changed(
                f"{self._doing('', name).strip()} was overwritten or deleted while it was copied. Give the same "
                "command again when nothing writes there."
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def remove(self, names: Iterable[str]) -> None:
        """Deletes objects; those that are gone already are none."""
        _each(self._remove, names)

    def _remove(self, name: str) -> None:
        doing = self._doing("Deleting", name)
        with contextlib.suppress(FileNotFoundError):
            patient(doing, self._scheme, lambda: self._files.rm_file(self._key(name)))

    def _key(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _doing(self, doing: str, name: str) -> str:
        return f"{doing} {self.address}/{name}".rstrip("/")

    def _ask(self, doing: str, name: str, request: Callable[[], T]) -> T:
        """The answer to a request that needs no object to be there, only the bucket."""
        try:
            return patient(self._doing(doing, name), self._scheme, request)
        except FileNotFoundError as error:
            if error.filename:  # One of this disk.
                raise
            raise BucketError(
                f"{self._doing(doing, name)} fails: there is no bucket {self._root.split('/')[0]}. Make it, or name "
                "another."
            ) from error


def _each(function: Callable[[str], None], names: Iterable[str], done: Callable[[], object] = lambda: None) -> None:
    """Calls a function of each name in threads; after the first error no further one is begun."""
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        try:
            for ended in concurrent.futures.as_completed([pool.submit(function, name) for name in names]):
                ended.result()
                done()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
