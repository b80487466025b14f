"""What a folder on this disk is called before the user: where it holds a part of a bucket, by the bucket's address."""

import contextlib
from collections.abc import Iterator
from typing import Any, TextIO

_ADDRESSES: dict[str, str] = {}


def name(folder: object, address: str) -> None:
    """From now on a folder goes by that address, and what is in it by addresses below."""
    _ADDRESSES[str(folder)] = address


def shown(text: object) -> str:
    """A path or a message, with addresses in the place of folders that have one."""
    result = str(text)
    for folder, address in list(_ADDRESSES.items()):  # Threads may add some.
        result = result.replace(folder, address)
    return result


class _Shown:
    """A stream that writes addresses in the place of folders."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As the stream's own."""
        return self._stream.write(shown(text))

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._stream, attribute)


@contextlib.contextmanager
def told(stdout: TextIO, stderr: TextIO) -> Iterator[None]:
    """Within the block all that is printed goes to these streams, with addresses in the place of folders."""
    shown_streams: list[Any] = [_Shown(stdout), _Shown(stderr)]
    with contextlib.redirect_stdout(shown_streams[0]), contextlib.redirect_stderr(shown_streams[1]):
        yield
