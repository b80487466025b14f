"""The safetensors format: eight bytes of header length, a JSON header, the tensors' bytes.

Format: huggingface/safetensors README.md. Its checks are kept: every byte belongs to exactly one tensor.
"""

import json
import pathlib
import struct
from collections.abc import Mapping
from typing import Any

from vspw_jax.console.errors import UserError
from vspw_jax.interop.stored_tensors import DTYPES, NewTensor, Storage, StoredTensor, check_apart, damaged, row_major

MAX_HEADER = 100 * 2**20
"""Most bytes of a header that the format allows."""

CODES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""Element types by their name in the header."""


def is_safetensors(path: pathlib.Path) -> bool:
    """Whether the file starts as safetensors do: a header length, then an opening brace."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) != len(pairs):
        raise ValueError("a name stands there twice")
    return items


def _read_header(path: pathlib.Path) -> tuple[dict[str, Any], Any, int]:
    """Entries by tensor, the text beside them, and where the tensors' bytes begin."""
    with open(path, "rb") as file:
        size = path.stat().st_size
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if length > min(MAX_HEADER, size - 8):
            raise damaged(
                path, f"its header should have {length} bytes, the file has {size} and {MAX_HEADER} is the cap"
            )
        try:
            header = json.loads(file.read(length), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise damaged(path, f"its header cannot be read ({error})") from error
    if not isinstance(header, dict):
        raise damaged(path, "its header is no table")
    return header, header.pop("__metadata__", None), 8 + length


def _tensor(path: pathlib.Path, name: str, entry: Any, data_start: int) -> StoredTensor:
    try:
        code, shape, (first, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, first, end)):
            raise ValueError(f"shape {shape}, bytes {first} to {end}")
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, f"its header says nothing sensible of {name} ({error})") from error
    if code not in CODES:
        raise UserError(f"{path}: {name} has elements of type {code}; read are {', '.join(CODES)}.")
    if end < first:
        raise damaged(path, f"{name} should lie at bytes {first} to {end}")
    storage = Storage(path, data_start + first, end - first, name)
    tensor = StoredTensor(storage, DTYPES[CODES[code]], tuple(shape), row_major(shape))
    if tensor.nbytes != end - first:
        raise damaged(path, f"{name} of shape {tuple(shape)} needs {tensor.nbytes} bytes, but has {end - first}")
    return tensor


def read(path: pathlib.Path) -> dict[str, StoredTensor]:
    """Tensors by name, still in the file."""
    header, _, data_start = _read_header(path)
    tensors = {name: _tensor(path, name, entry, data_start) for name, entry in header.items()}
    check_apart(path, [tensor.storage for tensor in tensors.values()])
    expected, found = data_start + sum(tensor.nbytes for tensor in tensors.values()), path.stat().st_size
    if expected != found:
        raise damaged(path, f"its tensors end at byte {expected}, the file at {found}")
    return tensors


def metadata(path: pathlib.Path) -> dict[Any, Any]:
    """What a file says beside its tensors; the format has texts by name there."""
    _, found, _ = _read_header(path)
    return found if isinstance(found, dict) else {}


def write(path: pathlib.Path, tensors: Mapping[str, NewTensor], beside: Mapping[str, str] | None = None) -> None:
    """Writes tensors by name, and texts beside them; one tensor is in memory at a time."""
    codes = {name: code for code, name in CODES.items()}
    header: dict[str, dict[str, Any]] = {"__metadata__": {"format": "pt", **(beside or {})}}
    end = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": codes[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.data())
