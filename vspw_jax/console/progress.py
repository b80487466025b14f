"""Progress of anything long: a moving line on a terminal, now and then a line in a log."""

import sys

from tqdm import tqdm

LOG_SECONDS = 10
BAR = "{desc}: {percentage:3.0f}% |{bar:12}| {n_fmt}/{total_fmt} {unit}s [{elapsed}, ETA {remaining}{postfix}]"
COUNT = "{desc}: {n_fmt} {unit}s [{elapsed}{postfix}]"
"""Where the total is not known."""


_hidden = False


def hide():
    """From here on nothing is shown: of several processes one is enough."""
    global _hidden
    _hidden = True


class _Lines:
    """Turns tqdm's carriage returns into lines, for logs."""

    def write(self, text):
        text = text.strip()
        if text:
            sys.stderr.write(text + "\n")

    def flush(self):
        sys.stderr.flush()


def progress(items=None, description="", unit="", total=None, initial=0):
    """A `tqdm` bar over `items`, or to be moved by hand: update(), set_postfix_str()."""
    terminal = sys.stderr.isatty()
    if total is None and hasattr(items, "__len__"):
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
