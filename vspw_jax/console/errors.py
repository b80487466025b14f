"""What the user must put right, and how programs report it."""

import errno
import math
import sys


class UserError(Exception):
    """Something that the user must mend: a flag, a path, a damaged file, a config value.

    The message says what was found, what was expected and the command or edit that mends it.
    """


def choose(table, name, field):
    """The entry of a dict that a config's field names; UserError lists what there is."""
    if name not in table:
        raise UserError(f"{field} is {name!r}: expected one of {', '.join(sorted(table))}.")
    return table[name]


def check_fields(section, config, names, part):
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
            f"{section}.name is {config.name!r}, which {' and '.join(faults)}. A flag alone cannot change the fields of "
            f"a recipe: write a recipe of your own that takes this section from {part}."
        )


def check_divides(field, parts, width):
    """Raises UserError where a field of the config does not divide a number of channels into equal parts."""
    if parts < 1 or width % parts:
        fitting = math.gcd(width, max(parts, 1))
        raise UserError(
            f"{field} is {parts}, which does not divide the {width} channels there. Set --config.{field}={fitting}, or "
            f"another {field.rsplit('.', 1)[0]}.dim."
        )


def listed(names, most=8):
    """The first of many names, in words."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def differing(found, expected):
    """A line for each name at which two dicts differ, found there and expected now; empty where they do not."""
    names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return "\n".join(f"  {name}: {found.get(name)} there, {expected.get(name)} now" for name in names)


def warn(message):
    """Tells the user what is wrong but does not stop the program."""
    print(f"Warning: {message}", file=sys.stderr, flush=True)


NO_ROOM = {errno.ENOSPC: "No space left on device", errno.EDQUOT: "Disk quota exceeded"}
NOT_ALLOWED = {errno.EACCES: "Permission denied", errno.EROFS: "Read-only file system"}


def _comes_from(error, reasons):
    while error is not None:
        # Libraries in C++ (ArrayRecord, TensorStore) raise errors of their own with the system's text in them.
        if getattr(error, "errno", None) in reasons or any(text in str(error) for text in reasons.values()):
            return True
        error = error.__cause__ or error.__context__
    return False


def no_room(error):
    """Whether a full disk, or a full quota, is what an exception comes from."""
    return _comes_from(error, NO_ROOM)


def run_program(main):
    """Runs main() and exits: status 0 when done, 2 with the message alone for a UserError or what a disk refuses."""
    try:
        main()
    except UserError as error:
        message = str(error)
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        if no_room(error):
            message = (
                f"There is no room left on the disk: {first_line}\n"
                "What is whole stays. Free some space, then run the same command again."
            )
        elif _comes_from(error, NOT_ALLOWED):
            message = f"A file or folder cannot be used: {first_line}\nMake it readable and writable, or name another."
        else:
            raise
    else:
        return
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(2)
