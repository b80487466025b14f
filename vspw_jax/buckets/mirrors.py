"""Folders in buckets that this program works in: each is mirrored by a folder of this disk, where all work is done.

Nothing is renamed in a bucket and nothing is appended to there. Files that are here alone, or have changed, are sent
whole: every PUSH_SECONDS, before each checkpoint, and at the end. JSON files, which say what others hold, go last. What
was here and is no longer is deleted there. So a program that is killed leaves a folder as it was some seconds before.
"""

import contextlib
import pathlib
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from vspw_jax.buckets import addresses, cache, lease
from vspw_jax.buckets.answers import BucketError
from vspw_jax.buckets.fetched import DESCRIPTION
from vspw_jax.buckets.remote_folder import Object, RemoteFolder
from vspw_jax.console import ending, places
from vspw_jax.console.errors import UserError, warn

PUSH_SECONDS = 60.0
PARTIAL = "partial-"
"""How a file begins that is not whole yet."""
INCOMPLETE = "incomplete."
"""How the folder of records begins that are not whole yet, as TFDS has it."""
PROBE = ".write-probe"

_OPEN: list["Mirror"] = []


class Mirror:
    """A folder of this disk that mirrors a folder of a bucket.

    Attributes:
      address: of the bucket's folder.
      folder: on this disk; it is there as soon as anything is in it.
    """

    def __init__(self, address: str, folder: pathlib.Path) -> None:
        self.address, self.folder = addresses.plain(address), folder
        self._remote, self._sent = RemoteFolder(address), dict[str, tuple[int, int]]()
        self._lock, self._stopped, self._writes = threading.Lock(), threading.Event(), False
        self._lease: lease.BucketLease | None = None
        places.name(folder, self.address)

    def there(self) -> dict[str, Object]:
        """The bucket's objects by name."""
        return {name: found for name, found in self._remote.objects().items() if not _is_apart(name)}

    def bring(self, chosen: Mapping[str, Object]) -> None:
        """Copies objects that are not here."""
        missing = {name: found for name, found in chosen.items() if not (self.folder / name).exists()}
        cache.check_room(sum(found.size for found in missing.values()), self.address)
        self._remote.download_all(self.folder, missing)
        self._sent |= {name: state for name, state in self._here().items() if name in missing}

    def name_of(self, path: pathlib.Path) -> str:
        """The name of what is at a path of this disk, "" of the folder itself."""
        name = str(path.relative_to(self.folder))
        return "" if name == "." else name

    def _here(self) -> dict[str, tuple[int, int]]:
        """(time, size) of each file that is sent when it changes."""
        found = {}
        for path in self.folder.rglob("*"):
            name = self.name_of(path)
            with contextlib.suppress(FileNotFoundError):  # Others write while one looks.
                if path.is_file() and not _is_apart(name):
                    status = path.stat()
                    found[name] = (status.st_mtime_ns, status.st_size)
        return found

    def check_writable(self) -> None:
        """Raises BucketError where objects there cannot be made, replaced and deleted."""
        for _ in range(2):
            self._remote.write(PROBE, b"")
        self._remote.remove([PROBE])

    @contextlib.contextmanager
    def owned(self, folder: pathlib.Path, flag: str) -> Iterator[lease.BucketLease]:
        """Within the block a folder in it is this program's alone, and what changes is sent; see `ownership.owned`."""
        name = self.name_of(folder)
        held = lease.BucketLease(f"{self.address}/{name}".rstrip("/"), flag)
        self._lease = held
        self.begin()
        try:
            yield held
        finally:
            try:
                if self._writes:  # Not where the folder is another program's now.
                    self.push()
            finally:
                held.end()
                self._lease = None

    def begin(self) -> None:
        """From now on changes are sent."""
        if not self._writes:
            self._writes = True
            threading.Thread(target=self._push_now_and_then, daemon=True).start()

    def _push_now_and_then(self) -> None:
        said = ""
        while not self._stopped.wait(PUSH_SECONDS):
            try:
                self.push()
            except UserError as error:
                if str(error) != said:
                    warn(f"{error}\nTrying again in {PUSH_SECONDS:.0f} s.")
                said = str(error)

    def push(self) -> None:
        """Sends what has changed; see the module."""
        with self._lock:
            self._check()
            here = self._here()
            changed = [name for name, state in here.items() if self._sent.get(name) != state]
            for turn in range(3):
                self._remote.upload_all(self.folder, [name for name in changed if _turn(name) == turn])
            gone = self._sent.keys() - here.keys()
            self._remote.remove(gone)
            self._sent = here

    def _check(self) -> None:
        """Raises UserError where the folder is another program's now: nothing is sent any more."""
        if self._lease:
            try:
                self._lease.check()
            except BucketError:
                raise
            except UserError:
                self._writes = False
                raise

    def commit(self, folder: pathlib.Path, last: str) -> None:
        """Sends a folder that counts once its file `last` is there; all that has changed elsewhere goes before."""
        self.push()
        names = [self.name_of(path) for path in folder.rglob("*") if path.is_file()]
        final = self.name_of(folder / last)
        self._remote.upload_all(self.folder, [name for name in names if name != final])
        self._check()
        self._remote.upload_all(self.folder, [final])

    def delete(self, path: pathlib.Path) -> None:
        """Deletes a file or folder here and there."""
        with self._lock:
            _delete(path)
            self.remove(self.under(self.name_of(path)))

    def under(self, name: str) -> dict[str, Object]:
        """The bucket's objects in one of its folders, by their names in the whole."""
        found = RemoteFolder(f"{self.address}/{name}").objects()
        return {f"{name}/{inner}".rstrip("/"): value for inner, value in found.items()}

    def remove(self, names: Iterable[str]) -> None:
        """Deletes objects there."""
        names = list(names)
        self._remote.remove(names)
        for name in names:
            self._sent.pop(name, None)

    def close(self) -> None:
        """Sends what is left, and ends. Where that cannot be, it says where the files are."""
        self._stopped.set()
        _OPEN.remove(self)
        try:
            if self._writes:
                self.push()
        except UserError as error:
            kept = self.folder.parent.parent.parent / "kept" / f"{time.time():.0f}_{self.folder.name}"
            kept.parent.mkdir(parents=True, exist_ok=True)
            self.folder.rename(kept)
            raise UserError(f"{error}\nWhat is not there yet is kept in {kept}; copy it there yourself.") from error
        finally:
            cache.delete(self.folder.parent, but=INCOMPLETE)


def _is_apart(name: str) -> bool:
    """Whether a file is not sent when it changes: it is not whole, is a lease, or is a checkpoint's."""
    parts = name.split("/")
    not_whole = parts[-1].startswith(PARTIAL) or any(part.startswith(INCOMPLETE) for part in parts)
    return not_whole or parts[0] in ("checkpoints", PROBE) or lease.FOLDER in parts


def _turn(name: str) -> int:
    """Of the turns in which files are sent, that of a file: JSON files say what others hold."""
    return name.endswith(".json") + name.endswith(DESCRIPTION)


def opened(address: str, wanted: Callable[[str], bool] = lambda _: True) -> Mirror:
    """A mirror of a folder in a bucket until this program ends.

    Args:
      wanted: which of its files are copied here at once, by name.

    Raises:
      BucketError: there is no such bucket, or it cannot be listed.
    """
    mirror = Mirror(address, cache.new_work_folder() / addresses.last_name(address))
    mirror.bring({name: found for name, found in mirror.there().items() if wanted(name)})
    return _entered(mirror)


def _entered(mirror: Mirror) -> Mirror:
    _OPEN.append(mirror)
    ending.at_end(mirror.close)
    return mirror


def _written(mirror: Mirror) -> pathlib.Path:
    mirror.check_writable()
    mirror.begin()
    return mirror.folder


def place_of_folder(address: str) -> pathlib.Path:
    """Where on this disk a program writes a folder that is to be at an address when it ends."""
    return _written(opened(address))


def place_of_file(address: str) -> pathlib.Path:
    """Where on this disk a program writes a file that is to be at an address when it ends; its folder is made."""
    folder = _written(opened(addresses.folder_of(address), lambda name: False))
    folder.mkdir(parents=True)
    return folder / addresses.last_name(address)


def place_of_records(address: str) -> pathlib.Path:
    """Where on this disk records are written that are to be at an address when the program ends.

    What is not whole then stays here, and the same command goes on with it. Of whole records that are there already
    all but the shards is copied here.
    """
    work = cache.converting_folder(address)
    mirror = Mirror(address, work / addresses.last_name(address))
    there = mirror.there()
    if any(name.endswith(DESCRIPTION) for name in there):
        mirror.bring({name: found for name, found in there.items() if ".array_record" not in name})
    return _written(_entered(mirror))


def of(path: pathlib.Path | str) -> Mirror | None:
    """The mirror that a path of this disk lies in, None where it is only on this disk."""
    return next((mirror for mirror in _OPEN if pathlib.Path(path).is_relative_to(mirror.folder)), None)


def bring(folder: pathlib.Path) -> None:
    """Copies what the bucket has in a folder of a mirror and is not here."""
    mirror = of(folder)
    if mirror:
        mirror.bring(mirror.under(mirror.name_of(folder)))


def send(folder: pathlib.Path) -> None:
    """Sends what has changed, where a folder is one of a mirror."""
    mirror = of(folder)
    if mirror:
        mirror.push()


def delete(path: pathlib.Path) -> None:
    """Deletes a file or folder, in the bucket too where it is one of a mirror."""
    mirror = of(path)
    if mirror:
        mirror.delete(path)
    else:
        _delete(path)


def _delete(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
