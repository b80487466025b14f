"""What is done when a program ends, while it can still say what went wrong."""

import contextlib
from collections.abc import Callable, Iterator

_STACK = contextlib.ExitStack()


def at_end(function: Callable[[], object]) -> None:
    """Calls a function when the program ends, however it ends; the last one first."""
    _STACK.callback(function)


def reached() -> None:
    """Calls all that `at_end` was given."""
    _STACK.close()


@contextlib.contextmanager
def awaited() -> Iterator[None]:
    """At its end calls all that `at_end` was given within the block."""
    with _STACK:
        yield
