"""Several sources as one: archives that a data set comes in."""

from collections.abc import Iterable, Mapping
from typing import Self

from vspw_jax.files.sources import Source


class Joined(Source):
    """Sources by a word; the names of its files begin with that word and a "/"."""

    def __init__(self, parts: Mapping[str, Source]) -> None:
        self.parts = dict(parts)
        self.path = " and ".join(part.path for part in self.parts.values())
        self.sizes = {f"{word}/{name}": size for word, part in self.parts.items() for name, size in part.sizes.items()}

    def _inside(self, name: str) -> tuple[Source, str]:
        word, _, rest = name.partition("/")
        return self.parts[word], rest

    def where(self, name: str) -> str:
        """The file as a user knows it."""
        part, rest = self._inside(name)
        return part.where(rest)

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        part, rest = self._inside(name)
        return part.read(rest)

    def only(self, names: Iterable[str]) -> Self:
        """The same sources with these files alone."""
        wanted: dict[str, list[str]] = {word: [] for word in self.parts}
        for name in names:
            word, _, rest = name.partition("/")
            wanted[word].append(rest)
        return type(self)({word: part.only(wanted[word]) for word, part in self.parts.items()})
