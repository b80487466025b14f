"""Progress of anything long: a moving bar on a terminal, now and then a line in a log."""

import sys

from tqdm import tqdm

LOG_SECONDS = 10


class _Lines:
    """Turns tqdm's carriage returns into lines, for logs."""

    def write(self, text):
        text = text.strip("\r\n")
        if text:
            sys.stderr.write(text + "\n")

    def flush(self):
        sys.stderr.flush()


def progress(items=None, description="", unit="", total=None, initial=0):
    """A `tqdm` bar over `items`, or to be moved by hand: update(), set_postfix_str()."""
    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        desc=description,
        unit=unit,
        total=total,
        initial=initial,
        file=sys.stderr if terminal else _Lines(),
        mininterval=0.2 if terminal else LOG_SECONDS,
        maxinterval=LOG_SECONDS,
        dynamic_ncols=terminal,
        ncols=None if terminal else 120,
    )
