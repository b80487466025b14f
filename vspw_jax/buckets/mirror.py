"""A folder of this disk that mirrors a folder of a bucket: all work is done here, and what changes is sent there.

Nothing is renamed in a bucket and nothing is appended to there. Files that are here alone, or have changed, are sent
whole: every PUSH_SECONDS, before each checkpoint, and at the end. JSON files, which say what others hold, go last. What
was here and is no longer is deleted there. So a program that is killed leaves a folder as it was some seconds before.
"""

import contextlib
import pathlib
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping

from vspw_jax.buckets import addresses, cache, lease
from vspw_jax.buckets.answers import BucketError
from vspw_jax.buckets.fetched import DESCRIPTION
from vspw_jax.buckets.remote_folder import Object, RemoteFolder
from vspw_jax.console import places
from vspw_jax.console.errors import UserError, warn

PUSH_SECONDS = 60.0
PARTIAL = "partial-"
"""How a file begins that is not whole yet."""
INCOMPLETE = "incomplete."
"""How the folder of records begins that are not whole yet, as TFDS has it."""
PROBE = ".write-probe"


class Mirror:
    """A folder of this disk that mirrors a folder of a bucket.

    Attributes:
      address: of the bucket's folder.
      folder: on this disk; it is there as soon as anything is in it.
      goes_on: whether another start goes on with what is in the folder.
    """

    def __init__(self, address: str, folder: pathlib.Path, goes_on: bool = False) -> None:
        self.address, self.folder, self.goes_on = addresses.plain(address), folder, goes_on
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
            delete(path)
            self.remove(self.under(self.name_of(path)))

    def under(self, name: str) -> dict[str, Object]:
        """The bucket's objects in one of its folders, by their names in the whole."""
        if not name:
            return self.there()
        found = RemoteFolder(f"{self.address}/{name}").objects()
        return {f"{name}/{inner}".rstrip("/"): value for inner, value in found.items()}

    def remove(self, names: Iterable[str]) -> None:
        """Deletes objects there."""
        names = list(names)
        self._remote.remove(names)
        for name in names:
            self._sent.pop(name, None)

    def close(self) -> None:
        """Sends what is left, and ends. Where that cannot be, the files stay on this disk, and it says where."""
        self._stopped.set()
        try:
            if self._writes:
                self.push()
        except UserError as error:
            kept = self.folder if self.goes_on else cache.keep(self.folder)
            cache.release(self.folder.parent)
            raise UserError(f"{error}\nWhat is not there yet is kept on this disk: {kept.parent}") from error
        is_left = self.goes_on and any(self.folder.rglob(f"{INCOMPLETE}*"))
        (cache.release if is_left else cache.delete)(self.folder.parent)


def _is_apart(name: str) -> bool:
    """Whether a file is not sent when it changes: it is not whole, is a lease, or is a checkpoint's."""
    parts = name.split("/")
    not_whole = parts[-1].startswith(PARTIAL) or any(part.startswith(INCOMPLETE) for part in parts)
    return not_whole or parts[0] in ("checkpoints", PROBE) or lease.FOLDER in parts


def _turn(name: str) -> int:
    """Of the turns in which files are sent, that of a file: JSON files say what others hold."""
    return name.endswith(".json") + name.endswith(DESCRIPTION)


def delete(path: pathlib.Path) -> None:
    """Deletes a file or folder of this disk."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
