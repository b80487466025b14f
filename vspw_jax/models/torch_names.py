"""What an encoder or a decoder declares about PyTorch files: its names there, and how to read its sizes off them.

`Encoder.TORCH_NAMES` and `Decoder.TORCH_NAMES` have a `Names` for each kind of file; `interop/namings.py` lists the
kinds. The functions stand in a file beside the class, such as `encoders/beit_rows.py`.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.models.torch_rows import Row, Stored


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The tensors of a file, asked for their sizes.

    Attributes:
      stated: fields of an encoder's or a decoder's config that the file names beside the tensors.
    """

    path: pathlib.Path
    tensors: Mapping[str, Stored]
    stated: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def size(self, name: str, axis: int) -> int:
        """The length of an axis.

        Raises:
          UserError: the tensor is not there, or has no such axis.
        """
        tensor = self.tensors.get(name)
        if tensor is None or len(tensor.shape) <= axis or not tensor.shape[axis]:
            found = "is missing" if tensor is None else f"has shape {tensor.shape}"
            raise UserError(f"{self.path}: {name} {found}, so the network's sizes cannot be read off the file.")
        return tensor.shape[axis]

    def count(self, name: str) -> int:
        """How many tensors the file has of a name with {} in it for a number, from 0 on without a gap."""
        return next(number for number in itertools.count() if name.format(number) not in self.tensors)


class EncoderSizes(NamedTuple):
    """What the shapes say: fields of the encoder's config, (height, width) of the image, what had to be assumed."""

    fields: dict[str, Any]
    image_size: tuple[int, int]
    assumed: list[str]


class DecoderSizes(NamedTuple):
    """What the shapes say: fields of the decoder's config, number of real classes, what had to be assumed."""

    fields: dict[str, Any]
    num_classes: int
    assumed: list[str]


Sizes = TypeVar("Sizes", EncoderSizes, DecoderSizes)

Rows = Callable[[str, str, ConfigDict, Collection[str]], Iterable[Row]]
"""Function of (ours, theirs, config, names) that gives a part's rows.

`ours` is its path here, such as "encoder". `theirs` is how its names there start, such as "backbone.", or "". `config`
is its section of config.model. `names` are those in a file: where several forms are known they tell which. Without
names the rows are of the form that an export writes.
"""


@dataclasses.dataclass(frozen=True)
class Names(Generic[Sizes]):
    """How one kind of file names the tensors of an encoder or a decoder.

    Attributes:
      marks: how names start, after `theirs`, of which one is in every such file with this part, and in none with
        another that is listed after it: a part that has another's tensors and more is listed before it. None where a
        kind only writes names that files of another kind have too, and are known by.
      rows: see `Rows`.
      sizes: function of (shapes, theirs) that reads its config, all fields but the name; None where shapes do not tell.
      told: the fields of these that shapes tell; the others it assumes.
      whole: whether such files hold all of it. What they lack stays as initialised.
      left_out: patterns of names, after `theirs`, that are not read, each with the reason.
    """

    marks: tuple[str, ...]
    rows: Rows
    sizes: Callable[[Shapes, str], Sizes] | None = None
    told: tuple[str, ...] = ()
    whole: bool = True
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def starts(self, theirs: str) -> tuple[str, ...]:
        """The marks as they stand in a file."""
        return tuple(theirs + mark for mark in self.marks)


EncoderNames = Mapping[str, Names[EncoderSizes]]
DecoderNames = Mapping[str, Names[DecoderSizes]]
"""By the kind of file, a key of `interop.namings.NAMINGS`."""
