"""The options of a command, with paths of this disk in the place of addresses in buckets."""

import argparse
from collections.abc import Sequence
from typing import Any

from vspw_jax.buckets import addresses, fetched, mirrors
from vspw_jax.console import ranges


def _copied(value: Any) -> Any:
    return str(fetched.path(value)) if addresses.is_address(value) else value


def on_disk(
    options: argparse.Namespace,
    read: Sequence[str] = (),
    records: Sequence[str] = (),
    folders: Sequence[str] = (),
    files: Sequence[str] = (),
    opened: Sequence[str] = (),
) -> None:
    """Copies what options name in buckets to this disk, and mirrors what is to be written there until the end.

    Checks first that no path is empty.

    Args:
      options: those of a command; the named ones change, where it has them.
      read: names of options, or of lists of them, whose files or folders are read.
      records, folders, files: names of options to which records are converted, and whose folders or files are written.
      opened: names of options whose files the command finds itself, in buckets too.

    Raises:
      UserError: an empty path, a bucket that cannot be used, or an address of another kind.
    """
    for name in (*read, *records, *folders, *files, *opened):
        value = getattr(options, name, None)
        for path in value if isinstance(value, list) else [value]:
            if path is not None:
                ranges.check(ranges.flag(name), path, ranges.PATH)
    for name in read:
        value = getattr(options, name, None)
        setattr(options, name, [_copied(each) for each in value] if isinstance(value, list) else _copied(value))
    opening = dict.fromkeys(records, mirrors.place_of_records) | dict.fromkeys(folders, mirrors.place_of_folder)
    for name, place in (opening | dict.fromkeys(files, mirrors.place_of_file)).items():
        value = getattr(options, name, None)
        if addresses.is_address(value):
            setattr(options, name, str(place(value)))
