"""A folder's name and a sha256 of each of its files, noted when it was written, to find what reading would not show.

TensorStore returns an array with flipped bits as if nothing were wrong, and a folder with another name, which is its
step, is restored as that step.
"""

import asyncio
import concurrent.futures
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from orbax.checkpoint.path import atomicity

from vspw_jax.buckets import mirrors

FILE = "manifest.json"
UNREAD = ("_CHECKPOINT_METADATA", "commit_success.txt")
"""Orbax writes these notes until a save ends, and reads nothing of a state from them. They only have to exist."""

THREADS = 8

Result = TypeVar("Result")


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_list(files: Mapping[str, str | None], name: str | None) -> str:
    listed = files if name is None else {"name": name, **files}
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _each(function: Callable[[str], Result], items: Iterable[str]) -> list[Result]:
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))


def write(folder: pathlib.Path | str, name: str) -> None:
    """Writes the manifest of all files under a folder into it; `name` is the one that the folder will have."""
    folder = pathlib.Path(folder)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    digest = lambda file: None if file in UNREAD else _digest(folder / file)
    digests = dict(zip(files, _each(digest, files), strict=True))
    content = {"name": name, "sha256_of_this_list": _digest_of_list(digests, name), "sha256": digests}
    (folder / FILE).write_text(json.dumps(content, indent=1) + "\n")


def damage(folder: pathlib.Path | str) -> list[str]:
    """What is wrong with a folder that has a manifest: lines such as "weights/d/1f: missing", none if all is well."""
    folder = pathlib.Path(folder)
    try:
        content = json.loads((folder / FILE).read_text())
        digests, own_digest = content["sha256"], content["sha256_of_this_list"]
        name = content.get("name")  # Manifests of earlier versions have none.
        is_listed = own_digest == _digest_of_list(digests, name)
    except FileNotFoundError:
        return [f"{FILE}: missing"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return [f"{FILE}: unreadable, {error}"]
    if not is_listed:
        return [f"{FILE}: not what was written"]
    if name not in (None, folder.name):
        return [f"saved as {name} and renamed since: give the folder its name back"]

    def look(name: str) -> str | None:
        try:
            found = _digest(folder / name)
            return None if digests[name] in (None, found) else f"{name}: not what was written"
        except FileNotFoundError:
            return f"{name}: missing"
        except OSError as error:
            return f"{name}: unreadable, {error.strerror}"

    return [line for line in _each(look, sorted(digests)) if line]


class FolderWithManifest(atomicity.AtomicRenameTemporaryPath):
    """Where Orbax writes a checkpoint. The manifest is written before the folder gets its final name.

    In the mirror of a bucket the folder is then sent there, the manifest last.
    """

    async def finalize(self) -> None:
        final = pathlib.Path(self.get_final())
        is_step = final.name.isdigit()  # Not one of its parts, which Orbax writes in the same way.
        if is_step:
            write(self.get(), final.name)
        await super().finalize()
        mirror = mirrors.of(final) if is_step else None
        if mirror:
            await asyncio.to_thread(mirror.commit, final, FILE)
