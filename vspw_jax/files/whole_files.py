"""Files that are whole or not there: a run that ends in mid-write leaves nothing of that name."""

import contextlib
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def whole_file(path: pathlib.Path | str) -> Iterator[pathlib.Path]:
    """Gives a path to write to, beside `path` and of its suffix; when the block ends well, it is renamed to `path`.

    If the block raises, what was written is removed, and an older `path` stays as it was.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f"partial-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
