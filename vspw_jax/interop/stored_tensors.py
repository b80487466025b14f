"""Tensors that still lie in a file: name, type and shape are known, the bytes are read when asked for.

Everything that a file declares is checked against the file's size before a byte of a tensor is read.
"""

import dataclasses
import math
import pathlib
import zlib
from collections.abc import Callable, Iterable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from vspw_jax.console.errors import UserError

MAX_RANK = 32
"""NumPy's limit before 2.0; no checkpoint comes near."""

DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(jnp.bfloat16),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}
"""Element types by torch's name; all little-endian."""


def damaged(path: pathlib.Path | str, what: str) -> UserError:
    """The error for a file that is not what it claims to be."""
    return UserError(f"{path} is damaged, cut short or no checkpoint: {what}. Fetch or export it again.")


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a contiguous tensor."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


@dataclasses.dataclass(frozen=True)
class Storage:
    """Bytes [start, start + nbytes) of a file; `checksum` is their CRC-32 where the format has one."""

    path: pathlib.Path
    start: int
    nbytes: int
    name: str
    checksum: int | None = None

    def read(self, first: int, count: int) -> UInt8[np.ndarray, " count"]:
        """Bytes [first, first + count); where these are the whole storage, its checksum is verified."""
        array = np.empty(count, np.uint8)
        with open(self.path, "rb") as file:
            file.seek(self.start + first)
            found = file.readinto(array.data)
        if found != count:
            raise damaged(self.path, f"{self.name} ends after {found} of {count} bytes")
        if self.checksum is not None and count == self.nbytes and zlib.crc32(array.data) != self.checksum:
            raise damaged(self.path, f"the checksum of {self.name} does not match its bytes")
        return array


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A strided view into a storage; `offset` and `strides` count elements.

    Raises:
      UserError: on construction, where the view reaches outside its storage or repeats its elements.
    """

    storage: Storage
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    def __post_init__(self) -> None:
        numbers = (*self.shape, *self.strides, self.offset)
        view = f"{self.storage.name} as shape {self.shape}, strides {self.strides}, offset {self.offset}"
        if not all(type(number) is int and number >= 0 for number in numbers) or len(self.shape) != len(self.strides):
            raise damaged(self.storage.path, f"it declares {view}")
        if len(self.shape) > MAX_RANK:
            raise damaged(self.storage.path, f"it declares {self.storage.name} with {len(self.shape)} axes")
        capacity = self.storage.nbytes // self.dtype.itemsize
        if self.size > capacity or self.offset + self._span() > capacity:
            raise damaged(self.storage.path, f"it declares {view}, but there are {capacity} elements")

    def _span(self) -> int:
        """Elements from the first to the last one used."""
        if not self.size:
            return 0
        return 1 + sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self.size * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """The tensor; takes its own size in memory (more for a view that skips elements)."""
        itemsize = self.dtype.itemsize
        flat = self.storage.read(self.offset * itemsize, self._span() * itemsize).view(self.dtype)
        if not self.size:
            return flat.reshape(self.shape)
        strides = tuple(stride * itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides, writeable=False)


def check_apart(path: pathlib.Path, storages: Iterable[Storage]) -> None:
    """Raises UserError where storages overlap or end outside the file."""
    size = path.stat().st_size
    end, before = 0, ""
    for storage in sorted(storages, key=lambda storage: (storage.start, storage.nbytes)):
        if storage.start + storage.nbytes > size:
            raise damaged(path, f"{storage.name} should end at byte {storage.start + storage.nbytes} of {size}")
        if storage.start < end and storage.nbytes:
            raise damaged(path, f"{before} and {storage.name} overlap")
        if storage.nbytes:
            end, before = storage.start + storage.nbytes, storage.name


@dataclasses.dataclass(frozen=True)
class NewTensor:
    """A tensor to be written. `make()` gives the array; it is called just before the array is written.

    Tensors with the same `make` object are equal, and share their bytes where the format allows it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """The array, row-major."""
        return np.ascontiguousarray(self.make(), self.dtype).reshape(self.shape)

    def data(self) -> memoryview:
        """The array's bytes, row-major."""
        array = self.read()
        return array.reshape(-1).view(np.uint8).data
