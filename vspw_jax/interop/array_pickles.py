"""Checkpoints that are a pickle of NumPy arrays, as detectron2's model zoo has them (.pkl), read without unpickling.

Such a file is {"model": {name: array}, "__author__": ...}. The arrays' bytes are passed over and stay in the file.
Source: facebookresearch/detectron2 detectron2/checkpoint/detection_checkpoint.py; numpy/core/src/multiarray/methods.c
(array_reduce) for how an array is pickled.
"""

import dataclasses
import math
import pathlib
import re
from typing import Any

import numpy as np

from vspw_jax.interop import torch_pickle
from vspw_jax.interop.pickle_machine import Bounded, Inert
from vspw_jax.interop.stored_tensors import DTYPES, NewTensor, Storage, StoredTensor, damaged, row_major

LONG = 1024
"""Arrays of more bytes are passed over."""

BYTES, BYTEARRAY = (b"B", b"\x8e"), b"\x96"
"""Opcodes before many bytes."""

DTYPE = {dtype.str.lstrip("<|"): dtype for name, dtype in DTYPES.items() if name != "bfloat16"}
"""By NumPy's code, such as f4."""

OTHER = re.compile(rb"\x80.(\x95.{8})?\x8a\x0a", re.DOTALL)
"""How PyTorch's older files begin: with a long number."""


@dataclasses.dataclass(frozen=True)
class Passed:
    """Bytes that were passed over."""

    start: int
    count: int

    def __len__(self) -> int:
        return self.count


class Passing(Bounded):
    """A pickle's file that passes over long bytes and gives `Passed` in their place."""

    opcode = b""

    def read(self, count: int) -> Any:
        if count == 1:
            self.opcode = super().read(1)
            return self.opcode
        if count <= LONG or self.opcode not in (*BYTES, BYTEARRAY):
            return super().read(count)
        if self.opcode == BYTEARRAY:
            raise ValueError("arrays of pickle's protocol 5 are not read: save it with protocol=4")
        passed = Passed(self.tell(), count)
        self.file.seek(count, 1)
        return passed


def is_array_pickle(path: pathlib.Path) -> bool:
    """Whether a file is a pickle, and not one of PyTorch's before 1.6."""
    with path.open("rb") as file:
        head = file.read(16)
    return head[:1] == b"\x80" and not OTHER.match(head)


def read(path: pathlib.Path) -> Any:
    """The value in a pickle, its long arrays still in the file.

    Raises:
      UserError: it is damaged, or no pickle.
    """
    with path.open("rb") as file:
        content = torch_pickle.load(Passing(file), path, _no_storage)
    waiting, seen = [content], set()
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict) and id(found) not in seen:
            seen.add(id(found))
            found.update({name: _array(path, str(name), value) for name, value in found.items()})
            waiting += found.values()
    return content


def _no_storage(_: Any) -> Any:
    raise ValueError("a storage of PyTorch's, where arrays are expected")


def _array(path: pathlib.Path, name: str, value: Any) -> Any:
    """The array that a value stands for, or the value itself."""
    if not isinstance(value, Inert) or not re.fullmatch(r"numpy\.(_?core)\.multiarray\._reconstruct", value.name):
        return value
    match value.state:
        case (int(), tuple(shape), Inert() as kind, bool(by_columns), bytes() | Passed() as data):
            dtype = _dtype(kind)
        case _:
            dtype = None
    if dtype is None:
        return value
    if not all(type(length) is int and length >= 0 for length in shape) or math.prod(shape) * dtype.itemsize != len(
        data
    ):
        raise damaged(path, f"{name} has {len(data)} bytes for shape {shape} of {dtype}")
    strides = row_major(shape[::-1])[::-1] if by_columns else row_major(shape)
    if isinstance(data, Passed):
        storage = Storage(path, data.start, data.count, name)
        if data.start + data.count > path.stat().st_size:
            raise damaged(path, f"{name} should end at byte {data.start + data.count} of {path.stat().st_size}")
        return StoredTensor(storage, dtype, shape, strides)
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")
    return NewTensor(shape, dtype, lambda: array)


def _dtype(kind: Inert) -> np.dtype | None:
    """The element type of a pickled numpy.dtype, None of one that is not read: text, big-endian numbers, records."""
    code = kind.args[0] if kind.name == "numpy.dtype" and kind.args else None
    is_big = isinstance(kind.state, tuple) and kind.state[1:2] == (">",)
    return DTYPE.get(code) if isinstance(code, str) and not is_big else None
