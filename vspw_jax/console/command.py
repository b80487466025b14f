"""The command that runs a program as it runs now, for people to copy."""

import shlex
import sys
from collections.abc import Sequence


def as_typed(module: str, arguments: Sequence[str] | None = None) -> str:
    """`python -m module` with its arguments, by default those of this process."""
    return shlex.join(["python", "-m", module, *(sys.argv[1:] if arguments is None else arguments)])
