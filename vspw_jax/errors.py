"""What the user must put right, and how programs report it."""

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


def run_program(main):
    """Runs main() and exits: status 0 when done, 2 with the message alone for a UserError."""
    try:
        main()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
