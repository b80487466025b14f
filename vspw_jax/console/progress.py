"""Progress of anything long: a moving line on a terminal, now and then a line in a log."""

import sys
from collections.abc import Iterable, Sized
from typing import Any

from tqdm import tqdm

LOG_SECONDS = 10
BAR = "{desc}: {percentage:3.0f}% |{bar:12}| {n_fmt}/{total_fmt} {unit}s [{elapsed}, ETA {remaining}{postfix}]"
COUNT = "{desc}: {n_fmt} {unit}s [{elapsed}{postfix}]"
"""Where the total is not known."""


_hidden = False


def hide() -> None:
    """From here on nothing is shown: of several processes, one that shows its progress is enough."""
    global _hidden
    _hidden = True


class _Lines:
    """Turns tqdm's carriage returns into lines, for logs."""

    def write(self, text: str) -> None:
        text = text.strip()
        if text:
            sys.stderr.write(text + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress(
    items: Iterable[Any] | None = None,
    description: str = "",
    unit: str = "",
    total: int | None = None,
    initial: int = 0,
) -> tqdm:
    """A `tqdm` bar over `items`; without them it is moved by hand: update(), set_postfix_str()."""
    terminal = sys.stderr.isatty()
    if total is None and isinstance(items, Sized):
        total = len(items)
    return tqdm(
        items,
        desc=description,
        unit=unit,
        total=total,
        initial=initial,
        bar_format=COUNT if total is None else BAR,
        file=sys.stderr if terminal else _Lines(),
        mininterval=0.2 if terminal else LOG_SECONDS,
        maxinterval=LOG_SECONDS,
        dynamic_ncols=terminal,
        disable=_hidden,
    )
