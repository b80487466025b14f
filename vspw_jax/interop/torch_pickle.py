"""The pickles of PyTorch checkpoints: read without running anything, and written.

`CALLS` has the functions that make tensors and plain containers. All else that a file names, such as dates, paths,
settings and optimizers, becomes an `Inert`; see `pickle_machine.py`.
"""

import collections
import pathlib
import struct
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from vspw_jax.console.errors import UserError
from vspw_jax.interop.pickle_machine import Bounded, Inert, Machine, Refused, key_of
from vspw_jax.interop.stored_tensors import DTYPES, NewTensor, Storage, StoredTensor, damaged, row_major

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
"""torch's storage classes and their element types."""

FindStorage = Callable[[Any], tuple[np.dtype, Storage] | Inert]
"""Function from a persistent id, a tuple that starts with "storage", to element type and storage; `Inert` for elements
of a type that is not read, such as complex numbers."""


def _tensor(
    storage: tuple[np.dtype, Storage] | Inert, offset: int, shape: Iterable[int], strides: Iterable[int], *_: Any
) -> StoredTensor | Inert:
    if isinstance(storage, Inert):
        return storage
    if not isinstance(storage, tuple):
        raise ValueError("a tensor without a storage")
    dtype, stored = storage
    return StoredTensor(stored, dtype, tuple(shape), tuple(strides), offset)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _typed(function: Inert, _: Any, args: Iterable[Any], __: Any) -> Any:
    """A tensor with attributes: the function that makes the tensor, and its arguments."""
    maker = CALLS.get(function.name)
    return maker(*args) if maker in (_tensor, _parameter) else Inert(function.name, tuple(args))


def _ordered(pairs: Iterable[tuple[Any, Any]] = ()) -> collections.OrderedDict[Any, Any]:
    return collections.OrderedDict((key_of(key), value) for key, value in pairs)


CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda factory=None, pairs=(): _ordered(pairs),
    "builtins.set": lambda items=(): {key_of(item) for item in items},
    "__builtin__.set": lambda items=(): {key_of(item) for item in items},
}
"""What a pickle may call. Every function here only rearranges values that were read already."""


def _find_global(name: str) -> np.dtype | None:
    """The element type for a storage's class."""
    module, _, attribute = name.rpartition(".")
    if module in ("torch", "torch.cuda", "torch.storage") and attribute in STORAGES:
        return DTYPES[STORAGES[attribute]]
    return None


def load(stream: BinaryIO | Bounded, path: pathlib.Path, find_storage: FindStorage) -> Any:
    """The value of the pickle at the stream's position: dicts, lists, scalars, `StoredTensor` and `Inert`.

    Args:
      stream: `Bounded` where its size is not known to be small.
      path: for messages.

    Raises:
      UserError: the pickle is damaged, or has opcodes that no checkpoint needs.
    """

    def find_persistent(persistent_id: Any) -> Any:
        if not isinstance(persistent_id, tuple) or not persistent_id:
            raise ValueError("a persistent id that is none of torch's")
        # ("module", class, file, source code) stands for a class in old files.
        return persistent_id[1] if persistent_id[0] == "module" else find_storage(persistent_id)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of escapes in a hostile pickle's text.
            return Machine(CALLS, _find_global, find_persistent).run(stream)
    except Refused as refused:
        raise UserError(
            f"{path} was not read: its pickle holds {refused}, which a checkpoint of tensors does not need. Nothing of "
            "it was run. If you trust where it comes from, load it in PyTorch and save its tensors alone: "
            "torch.save({'state_dict': checkpoint['state_dict']}, 'X.pth')."
        ) from None
    except (ValueError, TypeError, LookupError, AttributeError, struct.error, OverflowError, EOFError) as error:
        raise damaged(path, f"its pickle cannot be read ({error})") from error
    except RecursionError as error:  # A message about a value that is nested deeply.
        raise damaged(path, "its pickle is nested too deeply") from error


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(number: int) -> bytes:
    if -(2**31) <= number < 2**31:
        return b"J" + struct.pack("<i", number)
    return b"\x8a\x08" + struct.pack("<q", number)


def _numbers(numbers: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(_integer, numbers)) + b"t"


_EMPTY_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def _rebuild(key: str, tensor: NewTensor) -> bytes:
    """The program that makes one tensor over the whole of storage `key`."""
    kind = {dtype: name for name, dtype in STORAGES.items()}[tensor.dtype.name]
    count = tensor.nbytes // tensor.dtype.itemsize
    storage = (
        b"(" + _text("storage") + f"ctorch\n{kind}\n".encode() + _text(key) + _text("cpu") + _integer(count) + b"tQ"
    )
    strides = row_major(tensor.shape)
    view = storage + _integer(0) + _numbers(tensor.shape) + _numbers(strides) + b"\x89" + _EMPTY_ORDERED_DICT
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + b"tR"


def _value(value: Any) -> bytes:
    """The program that makes a text, a whole number, or dicts, lists and tuples of these."""
    match value:
        case str():
            return _text(value)
        case int():
            return _integer(value)
        case tuple():
            return b"(" + b"".join(map(_value, value)) + b"t"
        case list():
            return b"](" + b"".join(map(_value, value)) + b"e"
        case dict():
            return b"}(" + b"".join(_value(key) + _value(entry) for key, entry in value.items()) + b"u"
    raise TypeError(f"a {type(value).__name__} is not written")


def dump(
    tensors: Mapping[str, NewTensor],
    storage_keys: Mapping[str, str],
    wrapper: str | None,
    beside: Mapping[str, Any] | None = None,
) -> bytes:
    """The pickle (protocol 2) of {wrapper: OrderedDict of tensors}, or of the OrderedDict alone without a wrapper.

    Args:
      tensors: by name.
      storage_keys: the names of their storages, by the tensors' names.
      beside: what else stands in the dict with the wrapper, plain values.
    """
    items = b"".join(_text(name) + _rebuild(storage_keys[name], tensor) for name, tensor in tensors.items())
    inner = _EMPTY_ORDERED_DICT + b"(" + items + b"u"
    if wrapper is not None:
        rest = b"".join(_text(key) + _value(value) for key, value in (beside or {}).items())
        inner = b"}(" + _text(wrapper) + inner + rest + b"u"
    return b"\x80\x02" + inner + b"."
