"""What the user must put right, and how programs report it."""

import difflib
import errno
import math
import os
import re
import select
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO, TypeVar

from ml_collections import ConfigDict

from vspw_jax.console import ending, places, starting

T = TypeVar("T")


class UserError(Exception):
    """Something that the user must mend: a flag, a path, a damaged file, a config value.

    The message says what was found, what was expected and the command or edit that mends it.
    """


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant; None where none is like it."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return near[0] if near else None


def choose(table: Mapping[str, T], name: str, field: str) -> T:
    """The entry of a dict that a config's field names; UserError lists the names there are and suggests the nearest."""
    if name not in table:
        near = nearest(str(name), table)
        hint = f" Did you mean {near!r}?" if near else ""
        raise UserError(f"{field} is {name!r}: expected one of {', '.join(sorted(table))}.{hint}")
    return table[name]


def check_fields(section: str, config: Mapping[str, Any] | ConfigDict, names: Sequence[str], part: str) -> None:
    """Raises UserError where a section of a recipe lacks fields that its choice of a name needs, or has others.

    Args:
      section: its path in the config, such as "optimizer".
      config: the section; its field `name` is the choice.
      names: of the fields that the choice reads.
      part: what makes such a section, such as "configs/parts/training.py".
    """
    missing = [name for name in names if name not in config]
    meaningless = [name for name in config if name not in ("name", *names)]
    if missing or meaningless:
        faults = [f"needs {', '.join(missing)}"] if missing else []
        faults += [f"does not read {', '.join(meaningless)}"] if meaningless else []
        raise UserError(
            f"{section}.name is {config['name']!r}, which {' and '.join(faults)}. A flag cannot add or remove "
            f"fields of a recipe: write a recipe of your own that takes this section from {part}."
        )


def check_divides(field: str, parts: int, width: int) -> None:
    """Raises UserError where a field of the config does not divide a number of channels into equal parts."""
    if parts < 1 or width % parts:
        fitting = math.gcd(width, max(parts, 1))
        raise UserError(
            f"{field} is {parts}, which does not divide the {width} channels there. Set --config.{field}={fitting}, or "
            f"another {field.rsplit('.', 1)[0]}.dim."
        )


def counted(number: int, noun: str) -> str:
    """1 frame, 2 frames."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Iterable[str], most: int = 8) -> str:
    """The first of many names, in words."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def differing(found: Mapping[str, object], expected: Mapping[str, object]) -> str:
    """A line for each name whose values differ: the one found there and the one expected now; "" if none differs."""
    names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return "\n".join(f"  {name}: {found.get(name)} there, {expected.get(name)} now" for name in names)


def warn(message: str) -> None:
    """Tells the user what is wrong but does not stop the program."""
    print(f"Warning: {message}", file=sys.stderr, flush=True)


PIPE_CLOSED = 141
NO_ROOM = {errno.ENOSPC: "No space left on device", errno.EDQUOT: "Disk quota exceeded"}
NOT_ALLOWED = {
    errno.EACCES: "Permission denied",
    errno.EROFS: "Read-only file system",
    errno.ENAMETOOLONG: "File name too long",
    errno.ENOTDIR: "Not a directory",
    errno.EISDIR: "Is a directory",
}


def _comes_from(error: BaseException | None, reasons: Mapping[int, str]) -> bool:
    while error is not None:
        # Libraries in C++ (ArrayRecord, TensorStore) raise errors of their own with the system's text in them.
        if getattr(error, "errno", None) in reasons or any(text in str(error) for text in reasons.values()):
            return True
        error = error.__cause__ or error.__context__
    return False


def no_room(error: BaseException | None) -> bool:
    """Whether an exception comes from a full disk or a full quota."""
    return _comes_from(error, NO_ROOM)


def check_arguments(arguments: Sequence[str]) -> None:
    """Raises UserError where a command that reads and writes on disks alone is given an address in a bucket."""
    for argument in arguments:
        if re.match(r"(--?[^=]+=)?(gs|s3):/", argument):
            raise UserError(f"{argument}: this command takes paths on a disk alone. Copy it to a disk first.")


def run_program(main: Callable[[], object], takes_addresses: bool = False) -> None:
    """Runs main(), and ends with one line and an exit status where it does not end well.

    Args:
      takes_addresses: whether arguments may be addresses in buckets, gs:// or s3://.

    Status 2 for a UserError, or for what a disk refuses; 130 for Ctrl-C; 141, and no line, where nothing reads what is
    printed any more, as after `| head`. Both are the statuses that shells give such programs.
    """
    starting.over()
    status: int | str | None = PIPE_CLOSED
    try:
        with places.told(sys.stdout, sys.stderr):
            status = _run(main, takes_addresses)
            sys.stdout.flush()  # Here a closed pipe can be told; at exit Python would complain.
    except BrokenPipeError:
        closed = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
        if not closed:
            raise
        for stream in closed:  # What is still in its buffer goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        status = status or PIPE_CLOSED
    sys.exit(status)


def _run(main: Callable[[], object], takes_addresses: bool) -> int | str | None:
    """Runs main(), prints what went wrong, and gives the exit status."""
    try:
        if not takes_addresses:
            check_arguments(sys.argv[1:])
        with ending.awaited():
            main()
        return 0
    except SystemExit as ended:
        return ended.code
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return starting.INTERRUPTED
    except UserError as error:
        message = str(error)
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        if no_room(error):
            message = (
                f"There is no room left on the disk: {first_line}\n"
                "Whole files stay. Free some space, then run the same command again."
            )
        elif _comes_from(error, NOT_ALLOWED):
            message = (
                f"A file or folder cannot be used: {first_line}\n"
                "Make it readable and writable and of the expected kind, or name another."
            )
        else:
            raise
    print(f"Error: {message}", file=sys.stderr)
    return 2


def _has_no_reader(stream: TextIO) -> bool:
    """Whether a stream goes into a pipe that nothing reads any more."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)  # Errors are always told.
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
