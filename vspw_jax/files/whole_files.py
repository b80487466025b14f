"""Files that are whole or not there: a run that ends in mid-write leaves nothing of that name."""

import contextlib
import pathlib


@contextlib.contextmanager
def whole_file(path):
    """Gives a path beside `path` to write to, of the same suffix; it takes the name `path` when the block ends well.

    Where the block raises, what was written is removed and an older `path` stays as it was.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f"partial-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
