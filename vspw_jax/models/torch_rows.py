"""Which parameter here is which tensor of a PyTorch checkpoint: rows of an invertible table.

"Here" is this codebase, "there" is the file. A row says where a tensor stands here (slash-joined path, index into
stacked axes, slice of a joined tensor) and there (key, slice of a joined tensor), and how its axes lie there. An
encoder or a decoder makes its rows by walking its layers; both directions use the same rows. This file has what they
share; `torch_names.py` says how an encoder or a decoder declares them.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a tensor's axes lie in PyTorch.

    Attributes:
      to_torch: transposes ours.
      pad: so many axes of length 1 are appended.
      splits: our first axis is split, before that, into axes of these lengths and one of what is left.
      second: whether an axis of length 1 follows the first.
      joins: so many of the last axes are one in PyTorch.
    """

    to_torch: tuple[int, ...] | None = None
    pad: int = 0
    splits: tuple[int, ...] = ()
    second: bool = False
    joins: int = 1

    def export(self, array: np.ndarray) -> np.ndarray:
        """A view of our array as PyTorch holds it, but for axes that are one there."""
        if self.splits:
            array = array.reshape(*self._split(array.shape))
        array = array if self.to_torch is None else array.transpose(self.to_torch)
        array = array[:, None] if self.second else array
        return array[(..., *(None,) * self.pad)]

    def export_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that our array of `shape` has in PyTorch."""
        shape = self._split(shape)
        shape = shape if self.to_torch is None else tuple(shape[axis] for axis in self.to_torch)
        if self.second:
            shape = (shape[0], 1, *shape[1:])
        if self.joins > 1:
            shape = (*shape[: -self.joins], math.prod(shape[-self.joins :]))
        return (*shape, *(1,) * self.pad)

    def _split(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*self.splits, shape[0] // math.prod(self.splits), *shape[1:]) if self.splits else shape


SAME = Layout()
LINEAR = Layout((1, 0))
CONV_1X1 = Layout((1, 0), pad=2)
CONV = Layout((3, 2, 0, 1))
SLOTS = Layout(second=True)
"""One slot a class: (class, 1, width) there, (class, width) here."""
UPSAMPLE = Layout((0, 3, 1, 2))
"""ConvTranspose2d: (in, out, ky, kx) there, (in, ky, kx, out) here."""

CLASSES = "classes"
CLASSES_AND_NONE = "classes and no-object"
"""What the first axis there counts, where a file may have other classes; `interop/misfits.py` has the rules."""


class Stored(Protocol):
    """A tensor of a file: its shape is known, `read` reads it."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Rule:
    """How a tensor becomes ours. All arrays are in PyTorch's axes.

    Attributes:
      text: says what is done.
      apply: function of (theirs, fresh) that gives ours; `fresh()` gives our initial value.
      settles: whether the result does not depend on our initial value.
      derives: whether the result is a number of another kind, such as a flag told from numbers.
    """

    text: str
    apply: Callable[[np.ndarray, Callable[[], np.ndarray]], np.ndarray]
    settles: bool = True
    derives: bool = False


AS_IT_IS = Rule("read as they are", lambda theirs, _: theirs)


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A tensor that follows from the network's sizes: an import skips it, an export makes it anew.

    Equal buffers with the same `make` object share their bytes where the format allows it.
    """

    theirs: str
    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]


class Fit:
    """How a tensor becomes ours whose size depends on what a network was trained with, such as the crop.

    An encoder whose tables, positions or kernels may have another size in a file has a subclass of its own.
    """

    def rule(
        self, theirs: str, tensors: Mapping[str, Stored], our_shape: tuple[int, ...], image_size: tuple[int, int]
    ) -> Rule | None:
        """The rule for the tensor `theirs`, or None where none fits its shape.

        Args:
          tensors: all of the file, by name.
          our_shape: the shape that the tensor should have.
          image_size: of our network, (height, width).
        """
        raise NotImplementedError

    def buffers(self, theirs: str, image_size: tuple[int, int]) -> Iterator[Buffer]:
        """What an export writes beside the tensor `theirs`."""
        return iter(())


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor. A part (number, count) is one of `count` equal slices of the first axis in PyTorch.

    Attributes:
      ours, theirs: path here, key there.
      layout: how its axes lie there.
      index: picks from our stacked axes.
      part: the slice of their tensor that this is.
      our_part: the slice of ours that it fills.
      counts: what the first axis there counts, if a file may have other classes.
      fit: how a tensor of another size becomes ours, if the encoder knows a way.
    """

    ours: str
    theirs: str
    layout: Layout = SAME
    index: tuple[int, ...] = ()
    part: tuple[int, int] | None = None
    our_part: tuple[int, int] | None = None
    counts: str | None = None
    fit: Fit | None = None

    def their_shape(self, our_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the whole tensor there, given our shape."""
        shape = self.layout.export_shape(our_shape[len(self.index) :])
        times, among = (part[1] if part else 1 for part in (self.part, self.our_part))
        return (shape[0] * times // among, *shape[1:]) if shape else shape

    def buffers(self, image_size: tuple[int, int]) -> Iterator[Buffer]:
        """What an export writes beside the tensor there."""
        return iter(()) if self.fit is None else self.fit.buffers(self.theirs, image_size)

    def cut(self, tensor: np.ndarray) -> np.ndarray:
        """This part of their tensor."""
        return slice_of(tensor, self.part)

    def view(self, array: np.ndarray) -> np.ndarray:
        """The place of this part in our array, as a view in PyTorch's axes: read it to export, write it to import.

        Axes that the layout joins stand apart here.
        """
        place: tuple[Any, ...] = (*self.index, ...)
        return slice_of(self.layout.export(array[place]), self.our_part)


def slice_of(tensor: np.ndarray, part: tuple[int, int] | None) -> np.ndarray:
    """The slice of a part (number, count), see `Row`; for None the whole tensor."""
    if part is None:
        return tensor
    number, count = part
    size = tensor.shape[0] // count
    return tensor[number * size : (number + 1) * size]


def layer(
    ours: str, theirs: str, index: tuple[int, ...], kernel_layout: Layout, bias: bool = True, kernel: str = "kernel"
) -> Iterator[Row]:
    """Rows of a layer that has a weight, called `kernel` here, and perhaps a bias."""
    yield Row(f"{ours}/{kernel}", f"{theirs}.weight", kernel_layout, index)
    if bias:
        yield Row(f"{ours}/bias", f"{theirs}.bias", SAME, index)


def linear(ours: str, theirs: str, index: tuple[int, ...] = (), bias: bool = True) -> Iterator[Row]:
    """Rows of a linear layer."""
    return layer(ours, theirs, index, LINEAR, bias)


def norm(ours: str, theirs: str, index: tuple[int, ...] = ()) -> Iterator[Row]:
    """Rows of a layer norm or a group norm."""
    return layer(ours, theirs, index, SAME, kernel="scale")


def conv(ours: str, theirs: str, index: tuple[int, ...] = (), bias: bool = True) -> Iterator[Row]:
    """Rows of a convolution."""
    return layer(ours, theirs, index, CONV, bias)


def conv_1x1(ours: str, theirs: str, bias: bool = True) -> Iterator[Row]:
    """Rows of a 1x1 convolution that is a linear layer here."""
    return layer(ours, theirs, (), CONV_1X1, bias)


def upsample(ours: str, theirs: str) -> Iterator[Row]:
    """Rows of a transposed convolution."""
    return layer(ours, theirs, (), UPSAMPLE)


def batch_norm(ours: str, theirs: str, index: tuple[int, ...] = (), counts: bool = True) -> Iterator[Row]:
    """Rows of a batch norm, with its running statistics; frozen ones have no count of batches."""
    yield from norm(ours, theirs, index)
    yield Row(f"{ours}/mean", f"{theirs}.running_mean", SAME, index)
    yield Row(f"{ours}/var", f"{theirs}.running_var", SAME, index)
    if counts:
        yield Row(f"{ours}/count", f"{theirs}.num_batches_tracked", SAME, index)


def conv_norm(
    ours: str, conv: str, norm: str, layout: Layout = CONV, index: tuple[int, ...] = (), counts: bool = True
) -> Iterator[Row]:
    """Rows of a convolution `conv` and a batch norm `norm`, as of a `ConvNormRelu`; `layout` is CONV_1X1 for size 1."""
    yield from layer(f"{ours}/conv", conv, index, layout, bias=False)
    yield from batch_norm(f"{ours}/norm", norm, index, counts)


def class_head(rows: Iterable[Row], counts: str) -> Iterator[Row]:
    """The rows of a layer whose outputs are classes: a file may have other classes."""
    return (dataclasses.replace(row, counts=counts) for row in rows)


def deformable_attention(ours: str, theirs: str, index: tuple[int, ...] = ()) -> Iterator[Row]:
    """Rows of a `DeformableAttention`."""
    for name in ("sampling_offsets", "attention_weights", "value_proj", "output_proj"):
        yield from linear(f"{ours}/{name}", f"{theirs}.{name}", index)


def attention(ours: str, theirs: str) -> Iterator[Row]:
    """Rows of torch.nn.MultiheadAttention. Its projections of query, key and value are one tensor."""
    for number, name in enumerate(("query", "key", "value")):
        yield Row(f"{ours}/{name}/kernel", f"{theirs}.in_proj_weight", LINEAR, part=(number, 3))
        yield Row(f"{ours}/{name}/bias", f"{theirs}.in_proj_bias", SAME, part=(number, 3))
    yield from linear(f"{ours}/out", f"{theirs}.out_proj")
