"""Tensors that still lie in a file: name, type and shape are known, the bytes are read when asked for.

Everything a file declares is checked against the file's size before a byte of a tensor is read.
"""

import dataclasses
import math
import pathlib
import zlib

import jax.numpy as jnp
import numpy as np

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


def damaged(path, what):
    """The error for a file that is not what it claims to be."""
    return UserError(f"{path} is damaged, cut short or no checkpoint: {what}. Fetch or export it again.")


def row_major(shape):
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

    def read(self, first, count):
        """Bytes [first, first + count) as uint8, the checksum verified when they are all of it."""
        array = np.empty(count, np.uint8)
        with open(self.path, "rb") as file:
            file.seek(self.start + first)
            found = file.readinto(array)
        if found != count:
            raise damaged(self.path, f"{self.name} ends after {found} of {count} bytes")
        if self.checksum is not None and count == self.nbytes and zlib.crc32(array) != self.checksum:
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
    shape: tuple
    strides: tuple | None = None
    offset: int = 0

    def __post_init__(self):
        strides = row_major(self.shape) if self.strides is None else tuple(self.strides)
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "strides", strides)
        numbers = (*self.shape, *self.strides, self.offset)
        view = f"{self.storage.name} as shape {self.shape}, strides {self.strides}, offset {self.offset}"
        if not all(type(number) is int and number >= 0 for number in numbers) or len(self.shape) != len(self.strides):
            raise damaged(self.storage.path, f"it declares {view}")
        if len(self.shape) > MAX_RANK:
            raise damaged(self.storage.path, f"it declares {self.storage.name} with {len(self.shape)} axes")
        capacity = self.storage.nbytes // self.dtype.itemsize
        if self.size > capacity or self.offset + self._span() > capacity:
            raise damaged(self.storage.path, f"it declares {view}, but there are {capacity} elements")

    def _span(self):
        """Elements from the first to the last one used."""
        if not self.size:
            return 0
        return 1 + sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))

    @property
    def size(self):
        """Elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self):
        """Bytes of its elements."""
        return self.size * self.dtype.itemsize

    def read(self):
        """The tensor as a NumPy array; takes its own size in memory (more for a view that skips elements)."""
        itemsize = self.dtype.itemsize
        flat = self.storage.read(self.offset * itemsize, self._span() * itemsize).view(self.dtype)
        if not self.size:
            return flat.reshape(self.shape)
        strides = tuple(stride * itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides, writeable=False)


def check_apart(path, storages):
    """Raises UserError where storages overlap or end outside the file."""
    size = pathlib.Path(path).stat().st_size
    end, before = 0, None
    for storage in sorted(storages, key=lambda storage: (storage.start, storage.nbytes)):
        if storage.start + storage.nbytes > size:
            raise damaged(path, f"{storage.name} should end at byte {storage.start + storage.nbytes} of {size}")
        if storage.start < end and storage.nbytes:
            raise damaged(path, f"{before.name} and {storage.name} overlap")
        if storage.nbytes:
            end, before = storage.start + storage.nbytes, storage


@dataclasses.dataclass(frozen=True)
class NewTensor:
    """A tensor to be written: `make()` gives the array, when its turn comes.

    Tensors with the same `make` object are equal, and share their bytes where the format allows it.
    """

    shape: tuple
    dtype: np.dtype
    make: object

    @property
    def nbytes(self):
        """Bytes of its elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    def data(self):
        """The array's bytes, row-major."""
        array = np.ascontiguousarray(self.make(), self.dtype).reshape(self.shape)
        return array.reshape(-1).view(np.uint8).data
