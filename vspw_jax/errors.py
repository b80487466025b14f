"""What the user must put right, and how programs report it."""

import errno
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


def warn(message):
    """Tells the user what is wrong but does not stop the program."""
    print(f"Warning: {message}", file=sys.stderr, flush=True)


def no_room(error):
    """Whether a full disk, or a full quota, is what an exception comes from."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        # Libraries in C++ (ArrayRecord, TensorStore) raise errors of their own with the system's text in them.
        if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def run_program(main):
    """Runs main() and exits: status 0 when done, 2 with the message alone for a UserError or a full disk."""
    try:
        main()
    except UserError as error:
        message = str(error)
    except Exception as error:
        if not no_room(error):
            raise
        message = (
            f"There is no room left on the disk: {str(error).strip().splitlines()[0]}\n"
            "What is whole stays. Free some space, then run the same command again."
        )
    else:
        return
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(2)
