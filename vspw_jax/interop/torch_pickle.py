"""Reads the pickles of PyTorch checkpoints without running anything, and writes one.

A pickle is a program for a stack machine. It may call any function that it names. This interpreter knows the opcodes
that `torch.save` uses and calls only the functions in `CALLS`; it refuses every other name, except those in `INERT`,
which it keeps without a call. Its memory is bounded by the pickle's size, which the caller limits.
"""

import collections
import dataclasses
import pathlib
import pickletools
import struct
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from vspw_jax.console.errors import UserError
from vspw_jax.interop.stored_tensors import DTYPES, NewTensor, Storage, StoredTensor, damaged, row_major

MAX_PICKLE = 64 * 2**20
"""Bytes. A pickle holds names and shapes alone, a few hundred bytes a tensor."""

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

FindStorage = Callable[[Any], tuple[np.dtype, Storage]]
"""Function from a persistent id, a tuple that starts with "storage", to element type and storage."""


class Refused(Exception):
    """The pickle holds what the message names."""


@dataclasses.dataclass(eq=False)
class Inert:
    """Takes the place of an object of a harmless class: its name and what it was built from. Nothing is called."""

    name: str
    args: tuple[Any, ...] = ()
    state: object = None


@dataclasses.dataclass(frozen=True)
class Global:
    """A module's attribute that the pickle names."""

    name: str


def _tensor(
    storage: tuple[np.dtype, Storage], offset: int, shape: Iterable[int], strides: Iterable[int], *_: Any
) -> StoredTensor:
    dtype, stored = storage
    return StoredTensor(stored, dtype, tuple(shape), tuple(strides), offset)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _typed(function: Global, _: Any, args: Iterable[Any], __: Any) -> Any:
    return call(function.name, args)


def _numpy_dtype(name: Any, *flags: Any) -> Inert:
    if "O" in str(name):
        raise Refused("object arrays")
    return Inert("numpy.dtype", (name, *flags))


def _ordered(pairs: Iterable[tuple[Any, Any]] = ()) -> collections.OrderedDict[Any, Any]:
    return collections.OrderedDict((_key(key), value) for key, value in pairs)


CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.Size": lambda sizes: tuple(sizes),
    "torch.device": lambda *place: Inert("torch.device", place),
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda factory=None, pairs=(): _ordered(pairs),
    "builtins.set": lambda items=(): {_key(item) for item in items},
    "__builtin__.set": lambda items=(): {_key(item) for item in items},
    "_codecs.encode": lambda text, encoding: text.encode("latin-1"),
    "numpy.dtype": _numpy_dtype,
}
"""What a REDUCE may call. Every function here only rearranges values that were read already."""

INERT = {
    "argparse.Namespace",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.torch_version.TorchVersion",
    *(f"torch.{dtype}" for dtype in DTYPES),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("dict", "float", "int", "list", "str")),
}
"""Names that mmcv, mmengine and unilm leave in a checkpoint's metadata; see `Inert`."""


def _key(key: Any) -> Any:
    """A dict's key or set's member. It must be flat: to hash a deeply nested one would overrun the C stack."""
    if not isinstance(key, str | int | float | bytes | None):
        raise ValueError(f"a {type(key).__name__} as a key")
    return key


def _resolve(name: str) -> np.dtype | Global:
    module, _, attribute = name.rpartition(".")
    if module in ("torch", "torch.cuda", "torch.storage") and attribute in STORAGES:
        return DTYPES[STORAGES[attribute]]
    if name in CALLS or name in INERT:
        return Global(name)
    raise Refused(f"the name {name}")


def call(name: str, args: Iterable[Any]) -> Any:
    """The result of a call of the global."""
    return CALLS[name](*args) if name in CALLS else Inert(name, tuple(args))


class _Machine:
    """The pickle machine's stack and memo. Opcodes that do more than push their argument have a method each."""

    MARK = object()
    PUSH = {
        "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "STRING", "BINSTRING",
        "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    }  # fmt: skip
    VALUES: dict[str, Callable[[], Any]] = {
        "NONE": lambda: None,
        "NEWTRUE": lambda: True,
        "NEWFALSE": lambda: False,
        "EMPTY_DICT": dict,
        "EMPTY_LIST": list,
        "EMPTY_TUPLE": tuple,
        "EMPTY_SET": set,
    }
    TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

    def __init__(self, find_storage: FindStorage) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.find_storage = find_storage

    def run(self, stream: "BinaryIO | Bounded") -> Any:
        # Bounded has all that genops uses of a file.
        for opcode, arg, _ in pickletools.genops(stream):  # type: ignore[arg-type]
            name = opcode.name
            if name in self.PUSH:
                self.stack.append(arg)
            elif name in self.VALUES:
                self.stack.append(self.VALUES[name]())
            elif name in self.TUPLES:
                self.stack[-self.TUPLES[name] :] = [tuple(self.last(self.TUPLES[name]))]
            elif name not in ("PROTO", "FRAME", "STOP"):
                method = getattr(self, f"do_{name}", None)
                if method is None:
                    raise Refused(f"the opcode {name}")
                method(arg)
        if len(self.stack) != 1 or self.stack[0] is self.MARK:
            raise ValueError("it ends with no single value")
        return self.stack[0]

    def last(self, count: int) -> list[Any]:
        """The last `count` values; they stay on the stack."""
        values = self.stack[-count:]
        if len(values) != count or any(value is self.MARK for value in values):
            raise ValueError("its stack runs empty")
        return values

    def to_mark(self) -> list[Any]:
        """Takes the last mark and the values above it off the stack; returns the values."""
        for start in range(len(self.stack) - 1, -1, -1):
            if self.stack[start] is self.MARK:
                values = self.stack[start + 1 :]
                del self.stack[start:]
                return values
        raise ValueError("a mark is missing")

    def do_MARK(self, _: Any) -> None:
        self.stack.append(self.MARK)

    def do_POP(self, _: Any) -> None:
        self.stack.pop()

    def do_TUPLE(self, _: Any) -> None:
        self.stack.append(tuple(self.to_mark()))

    def do_BINPUT(self, number: int) -> None:
        self.memo[number] = self.last(1)[0]

    do_LONG_BINPUT = do_BINPUT

    def do_MEMOIZE(self, _: Any) -> None:
        self.do_BINPUT(len(self.memo))

    def do_BINGET(self, number: int) -> None:
        self.stack.append(self.memo[number])

    do_LONG_BINGET = do_BINGET

    def do_APPEND(self, _: Any) -> None:
        self.extend([self.stack.pop()])

    def do_APPENDS(self, _: Any) -> None:
        self.extend(self.to_mark())

    def extend(self, values: list[Any]) -> None:
        target = self.last(1)[0]
        if type(target) is not list:
            raise ValueError(f"it appends to a {type(target).__name__}")
        target.extend(values)

    def do_ADDITEMS(self, _: Any) -> None:
        members = self.to_mark()
        target = self.last(1)[0]
        if type(target) is not set:
            raise ValueError(f"it adds members to a {type(target).__name__}")
        target.update(_key(member) for member in members)

    def do_SETITEM(self, _: Any) -> None:
        key, value = self.last(2)
        del self.stack[-2:]
        self.set_items([key, value])

    def do_SETITEMS(self, _: Any) -> None:
        self.set_items(self.to_mark())

    def set_items(self, values: list[Any]) -> None:
        target = self.last(1)[0]
        if not isinstance(target, dict):
            raise ValueError(f"it sets items of a {type(target).__name__}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_key(key)] = value

    def do_GLOBAL(self, names: str) -> None:
        self.stack.append(_resolve(names.replace(" ", ".", 1)))

    def do_STACK_GLOBAL(self, _: Any) -> None:
        module, attribute = self.last(2)
        self.stack[-2:] = [_resolve(f"{module}.{attribute}")]

    def do_BINPERSID(self, _: Any) -> None:
        self.stack[-1:] = [self.find_storage(self.last(1)[0])]

    def do_REDUCE(self, _: Any) -> None:
        function, args = self.last(2)
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise ValueError("it calls what is no function")
        self.stack[-2:] = [call(function.name, args)]

    do_NEWOBJ = do_REDUCE

    def do_BUILD(self, _: Any) -> None:
        target, state = self.last(2)
        del self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, dict | StoredTensor):  # Attributes of these, such as _metadata, say nothing here.
            raise ValueError(f"it sets the state of a {type(target).__name__}")


def load(stream: "BinaryIO | Bounded", path: pathlib.Path, find_storage: FindStorage) -> Any:
    """The value of the pickle at the stream's position: dicts, lists, scalars, `StoredTensor` and `Inert`.

    Args:
      stream: `Bounded` where its size is not known to be small.
      path: for messages.

    Raises:
      UserError: the pickle is damaged, or names something that no checkpoint of tensors needs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of escapes in a hostile pickle's text.
            return _Machine(find_storage).run(stream)
    except Refused as refused:
        raise UserError(
            f"{path} was not read: its pickle holds {refused}, which a checkpoint of tensors does not need. Nothing of "
            "it was run. If you trust where it comes from, load it in PyTorch and save its tensors alone: "
            "torch.save({'state_dict': checkpoint['state_dict']}, 'X.pth')."
        ) from None
    except (ValueError, TypeError, LookupError, AttributeError, struct.error, OverflowError, EOFError) as error:
        raise damaged(path, f"its pickle cannot be read ({error})") from error


class Bounded:
    """A file's reading side that gives at most `limit` bytes in all."""

    def __init__(self, file: BinaryIO, limit: int = MAX_PICKLE) -> None:
        self.file, self.left = file, limit

    def _take(self, count: int, read: Callable[[int], bytes]) -> bytes:
        if count > self.left:
            raise ValueError(f"it is longer than {MAX_PICKLE} bytes")
        data = read(count)
        self.left -= len(data)
        return data

    def read(self, count: int) -> bytes:
        """The next bytes; ValueError past the limit."""
        return self._take(count, self.file.read)

    def readline(self) -> bytes:
        """The rest of the line."""
        return self._take(min(self.left, 4096), self.file.readline)

    def tell(self) -> int:
        """The position in the file."""
        return self.file.tell()


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


def dump(tensors: Mapping[str, NewTensor], storage_keys: Mapping[str, str], wrapper: str | None) -> bytes:
    """The pickle (protocol 2) of {wrapper: OrderedDict of tensors}, or of the OrderedDict alone without a wrapper.

    Args:
      tensors: by name.
      storage_keys: the names of their storages, by the tensors' names.
    """
    items = b"".join(_text(name) + _rebuild(storage_keys[name], tensor) for name, tensor in tensors.items())
    inner = _EMPTY_ORDERED_DICT + b"(" + items + b"u"
    return b"\x80\x02" + (inner if wrapper is None else b"}" + _text(wrapper) + inner + b"s") + b"."
