"""The mirrors of folders in buckets that this program works in, until it ends; see mirror.py."""

import pathlib
from collections.abc import Callable

from vspw_jax.buckets import addresses, cache, mirror
from vspw_jax.buckets.fetched import DESCRIPTION
from vspw_jax.buckets.mirror import Mirror
from vspw_jax.console import ending

_OPEN: list[Mirror] = []


def opened(address: str, wanted: Callable[[str], bool] = lambda _: True) -> Mirror:
    """A mirror of a folder in a bucket until this program ends.

    Args:
      wanted: which of its files are copied here at once, by name.

    Raises:
      BucketError: there is no such bucket, or it cannot be listed.
    """
    made = Mirror(address, cache.new_work_folder() / addresses.last_name(address))
    made.bring({name: found for name, found in made.there().items() if wanted(name)})
    return _entered(made)


def _entered(made: Mirror) -> Mirror:
    _OPEN.append(made)
    ending.at_end(made.close)
    ending.at_end(lambda: _OPEN.remove(made))
    return made


def _written(made: Mirror) -> pathlib.Path:
    made.check_writable()
    made.begin()
    return made.folder


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
    made = Mirror(address, cache.converting_folder(address) / addresses.last_name(address), goes_on=True)
    there = made.there()
    if any(name.endswith(DESCRIPTION) for name in there):
        made.bring({name: found for name, found in there.items() if ".array_record" not in name})
    return _written(_entered(made))


def of(path: pathlib.Path | str) -> Mirror | None:
    """The mirror that a path of this disk lies in, None where it is only on this disk."""
    return next((found for found in _OPEN if pathlib.Path(path).is_relative_to(found.folder)), None)


def bring(folder: pathlib.Path) -> None:
    """Copies what the bucket has in a folder of a mirror and is not here."""
    found = of(folder)
    if found:
        found.bring(found.under(found.name_of(folder)))


def send(folder: pathlib.Path) -> None:
    """Sends what has changed, where a folder is one of a mirror."""
    found = of(folder)
    if found:
        found.push()


def delete(path: pathlib.Path) -> None:
    """Deletes a file or folder, in the bucket too where it is one of a mirror."""
    found = of(path)
    if found:
        found.delete(path)
    else:
        mirror.delete(path)
