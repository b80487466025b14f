"""Reads pickles without running anything.

A pickle is a program for a stack machine. It may call any function that it names. This interpreter calls only the
functions that its caller gives it; every other name becomes an `Inert`, which nothing imports and nothing calls. Its
memory is bounded by the pickle's size, which the caller limits, and by `MAX_COPIED`.
"""

import dataclasses
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

MAX_PICKLE = 64 * 2**20
"""Bytes. A pickle holds names and shapes alone, a few hundred bytes a tensor."""

MAX_COPIED = 8 * 2**20
"""Elements that calls may copy in all. A few bytes of a pickle can name a long list again, and ask for its copy."""

MARK = object()


class Refused(Exception):
    """The pickle holds what the message names."""


@dataclasses.dataclass(eq=False, repr=False)
class Inert:
    """Takes the place of an object or a function: its name and what it was built from. Nothing is called.

    Attributes:
      name: of the function or the class, such as "datetime.datetime".
      args: what it was called with; None for the function or the class itself.
      state: its attributes, where it was given any.
      items: what was set by key, in a subclass of dict.
    """

    name: str
    args: tuple[Any, ...] | None = None
    state: object = None
    items: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Inert({self.name!r})"  # No more: its contents may be nested deeply.


def kind(value: Any) -> str:
    """What a value is: the name of its class."""
    return value.name if isinstance(value, Inert) else type(value).__name__


def key_of(key: Any) -> Any:
    """A dict's key or a set's member as it is, or an `Inert` in its place.

    To hash a deeply nested tuple would overrun the C stack; to hash a long number takes long each time.
    """
    if isinstance(key, list | dict | set):
        raise ValueError(f"a {type(key).__name__} as a key")
    flat = isinstance(key, str | float | bytes | Inert | None) or (isinstance(key, int) and key.bit_length() <= 64)
    return key if flat else Inert(type(key).__name__, (key,))


def _copied(args: tuple[Any, ...]) -> int:
    return sum(len(arg) for arg in args if isinstance(arg, list | dict | tuple | set))


class Machine:
    """The stack and the memo. Opcodes that do more than push their argument have a method each.

    Args:
      calls: the functions that may be called, by name. They may only rearrange values, and copy each argument at most
        once.
      find_global: function of a name that gives what stands in its place, or None for `Inert`.
      find_persistent: function of a persistent id.
    """

    PUSH = {
        "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
        "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "BINUNICODE",
        "SHORT_BINUNICODE", "BINUNICODE8",
    }  # fmt: skip
    VALUES: dict[str, Callable[[], Any]] = {
        "NONE": lambda: None,
        "NEWTRUE": lambda: True,
        "NEWFALSE": lambda: False,
        "EMPTY_DICT": dict,
        "EMPTY_LIST": list,
        "EMPTY_TUPLE": tuple,
        "EMPTY_SET": set,
        "MARK": lambda: MARK,
    }
    TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

    def __init__(
        self,
        calls: Mapping[str, Callable[..., Any]],
        find_global: Callable[[str], Any],
        find_persistent: Callable[[Any], Any],
    ) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.calls, self.find_global, self.find_persistent = calls, find_global, find_persistent
        self.may_copy = MAX_COPIED

    def run(self, stream: "BinaryIO | Bounded") -> Any:
        """The value of the pickle at the stream's position."""
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
        if len(self.stack) != 1 or self.stack[0] is MARK:
            raise ValueError("it ends with no single value")
        return self.stack[0]

    def call(self, function: Any, args: Any) -> Any:
        """The result of a call, `Inert` for a function that is not of `calls`."""
        if not isinstance(function, Inert) or not isinstance(args, tuple):
            raise ValueError("it calls what is no function")
        if function.args is not None or function.name not in self.calls:
            return Inert(function.name, args)
        self.may_copy -= _copied(args)
        if self.may_copy < 0:
            raise ValueError(f"it copies more than {MAX_COPIED} elements")
        return self.calls[function.name](*args)

    def last(self, count: int) -> list[Any]:
        """The last `count` values; they stay on the stack."""
        values = self.stack[-count:]
        if len(values) != count or any(value is MARK for value in values):
            raise ValueError("its stack runs empty")
        return values

    def to_mark(self) -> list[Any]:
        """Takes the last mark and the values above it off the stack; returns the values."""
        for start in range(len(self.stack) - 1, -1, -1):
            if self.stack[start] is MARK:
                values = self.stack[start + 1 :]
                del self.stack[start:]
                return values
        raise ValueError("a mark is missing")

    def named(self, module: Any, attribute: Any) -> Any:
        """What stands in the place of a module's attribute."""
        if type(module) is not str or type(attribute) is not str:
            raise ValueError("it names a thing by what is no text")
        name = f"{module}.{attribute}"
        found = self.find_global(name)
        return Inert(name) if found is None else found

    def do_POP(self, _: Any) -> None:
        self.stack.pop()

    def do_POP_MARK(self, _: Any) -> None:
        self.to_mark()

    def do_DUP(self, _: Any) -> None:
        self.stack.append(self.last(1)[0])

    def do_TUPLE(self, _: Any) -> None:
        self.stack.append(tuple(self.to_mark()))

    def do_LIST(self, _: Any) -> None:
        self.stack.append(self.to_mark())

    def do_DICT(self, _: Any) -> None:
        values = self.to_mark()
        self.stack.append({})
        self.set_items(values)

    def do_FROZENSET(self, _: Any) -> None:
        self.stack.append(frozenset(key_of(member) for member in self.to_mark()))

    def do_PUT(self, number: int) -> None:
        self.memo[number] = self.last(1)[0]

    do_BINPUT = do_LONG_BINPUT = do_PUT

    def do_MEMOIZE(self, _: Any) -> None:
        self.do_PUT(len(self.memo))

    def do_GET(self, number: int) -> None:
        self.stack.append(self.memo[number])

    do_BINGET = do_LONG_BINGET = do_GET

    def do_APPEND(self, _: Any) -> None:
        [value] = self.last(1)
        del self.stack[-1]
        self.extend([value])

    def do_APPENDS(self, _: Any) -> None:
        self.extend(self.to_mark())

    def extend(self, values: list[Any]) -> None:
        """Appends to the list on the stack; those of an `Inert`, a subclass of list, are let go."""
        target = self.last(1)[0]
        if type(target) is list:
            target.extend(values)
        elif not isinstance(target, Inert):
            raise ValueError(f"it appends to a {type(target).__name__}")

    def do_ADDITEMS(self, _: Any) -> None:
        members = self.to_mark()
        target = self.last(1)[0]
        if type(target) is not set:
            raise ValueError(f"it adds members to a {type(target).__name__}")
        target.update(key_of(member) for member in members)

    def do_SETITEM(self, _: Any) -> None:
        key, value = self.last(2)
        del self.stack[-2:]
        self.set_items([key, value])

    def do_SETITEMS(self, _: Any) -> None:
        self.set_items(self.to_mark())

    def set_items(self, values: list[Any]) -> None:
        """Sets items of the dict on the stack."""
        target = self.last(1)[0]
        items = target.items if isinstance(target, Inert) else target
        if not isinstance(items, dict):
            raise ValueError(f"it sets items of a {type(target).__name__}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            items[key_of(key)] = value

    def do_GLOBAL(self, names: str) -> None:
        self.stack.append(self.named(*names.split(" ", 1)))

    def do_STACK_GLOBAL(self, _: Any) -> None:
        module, attribute = self.last(2)
        self.stack[-2:] = [self.named(module, attribute)]

    def do_EXT1(self, number: int) -> None:
        # The number of a name that the writer's program registered.
        self.stack.append(Inert(f"extension {number}"))

    do_EXT2 = do_EXT4 = do_EXT1

    def do_BINPERSID(self, _: Any) -> None:
        self.stack[-1:] = [self.find_persistent(self.last(1)[0])]

    def do_REDUCE(self, _: Any) -> None:
        function, args = self.last(2)
        self.stack[-2:] = [self.call(function, args)]

    do_NEWOBJ = do_REDUCE

    def do_NEWOBJ_EX(self, _: Any) -> None:
        function, args, _ = self.last(3)
        self.stack[-3:] = [self.call(function, args)]

    def do_OBJ(self, _: Any) -> None:
        values = self.to_mark()
        if not values:
            raise ValueError("it makes an object of no class")
        self.stack.append(self.call(values[0], tuple(values[1:])))

    def do_INST(self, names: str) -> None:
        args = tuple(self.to_mark())
        self.stack.append(self.call(self.named(*names.split(" ", 1)), args))

    def do_BUILD(self, _: Any) -> None:
        target, state = self.last(2)
        del self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif target is MARK or isinstance(target, str | int | float | tuple | list | set | None):
            # Of others, such as a dict's _metadata and a tensor's notes, the state says nothing here.
            raise ValueError(f"it sets the state of a {type(target).__name__}")


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
