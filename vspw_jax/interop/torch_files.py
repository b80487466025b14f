"""PyTorch's .pth files, read and written without PyTorch.

Since PyTorch 1.6 `torch.save` writes a zip of uncompressed entries: `<root>/data.pkl`, the pickled structure, and
`<root>/data/<key>`, the storages' bytes. Older files are five pickles, then the storages one after another.
Formats: pytorch/pytorch torch/serialization.py, caffe2/serialize/inline_container.h.
"""

import io
import pathlib
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from vspw_jax.console.errors import UserError, listed
from vspw_jax.interop import foreign_files, torch_pickle
from vspw_jax.interop.pickle_machine import MAX_PICKLE, Bounded, Inert, kind
from vspw_jax.interop.stored_tensors import NewTensor, Storage, check_apart, damaged

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
ALIGNMENT = 64
"""Where storages start in torch's own zips."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")


def is_zip(path: pathlib.Path) -> bool:
    """Whether a file begins as a zip archive does."""
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def _entry_storage(path: pathlib.Path, file: BinaryIO, info: zipfile.ZipInfo) -> Storage:
    """The bytes of a zip entry; refuses what torch never writes: compression, encryption, two sizes."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
        raise UserError(
            f"{path} was not read: its entry {info.filename} is compressed or encrypted ({info.compress_size} bytes "
            f"that claim to be {info.file_size}). PyTorch stores entries as they are; if this is an archive around a "
            "checkpoint, unpack it first."
        )
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise damaged(path, f"the header of {info.filename} is not where the directory says")
    _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    return Storage(path, start, info.file_size, info.filename, info.CRC)


def _zip_entries(path: pathlib.Path) -> dict[str, Storage]:
    """Storage by entry name; all inside the file and apart from each other."""
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            entries = {info.filename: _entry_storage(path, file, info) for info in infos}
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        ValueError,
        OverflowError,
        OSError,
        EOFError,
        struct.error,
    ) as error:
        raise damaged(path, f"its zip directory cannot be read ({error})") from error
    if len(entries) != len(infos):
        raise damaged(path, "two of its entries have one name")
    check_apart(path, entries.values())
    return entries


def read_zip(path: pathlib.Path) -> Any:
    """The value in a .pth of PyTorch 1.6 or later, its tensors still in the file."""
    entries = _zip_entries(path)
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    what = foreign_files.describe_zip(list(entries))
    if len(pickles) != 1 or what:
        raise UserError(
            f"{path} is a zip, but not one of torch.save: expected one entry */data.pkl, found {listed(entries, 5)}. "
            f"It is {what or 'of a kind that is not known'}."
        )
    root = pickles[0].removesuffix("data.pkl")
    order = entries.get(f"{root}byteorder")
    if order and bytes(order.read(0, min(order.nbytes, 16))) != b"little":
        raise UserError(f"{path} was written on a big-endian machine. Save it again on a little-endian one.")
    if entries[pickles[0]].nbytes > MAX_PICKLE:
        raise UserError(f"{path}: its pickle has {entries[pickles[0]].nbytes} bytes; {MAX_PICKLE} is the cap.")

    def find_storage(persistent_id: Any) -> tuple[np.dtype, Storage] | Inert:
        if len(persistent_id) != 5:
            raise ValueError("a persistent id that is no storage's")
        _, dtype, key, _, count = persistent_id
        if isinstance(dtype, Inert):
            return dtype
        if type(key) is not str or not isinstance(dtype, np.dtype):
            raise ValueError("a storage without a name or an element type")
        storage = entries.get(f"{root}data/{key}")
        if storage is None or type(count) is not int or storage.nbytes != count * dtype.itemsize:
            found = "none" if storage is None else f"{storage.nbytes} bytes"
            raise damaged(path, f"storage {key} should hold {count} elements of {dtype}, found {found}")
        return dtype, storage

    pickled = entries[pickles[0]]
    return torch_pickle.load(io.BytesIO(pickled.read(0, pickled.nbytes).data), path, find_storage)


def read_legacy(path: pathlib.Path) -> Any:
    """The value in a .pth from before PyTorch 1.6, its tensors still in the file."""
    with open(path, "rb") as file:
        pickles = Bounded(file)
        first = torch_pickle.load(pickles, path, _no_storage)
        if first != LEGACY_MAGIC:
            raise damaged(
                path,
                "it is neither a zip, nor safetensors, nor PyTorch's older format, but a pickle that begins with a "
                f"{kind(first)}",
            )
        torch_pickle.load(pickles, path, _no_storage)
        machine = torch_pickle.load(pickles, path, _no_storage)
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise damaged(path, "it does not say that it was written on a little-endian machine")
        # The places of the storages come after the structure: read it once to count them, and again to place them.
        structure = file.tell()
        sizes: dict[str, tuple[np.dtype, int]] = {}
        torch_pickle.load(pickles, path, lambda persistent_id: _legacy_size(path, sizes, *persistent_id[1:]))
        keys = torch_pickle.load(pickles, path, _no_storage)
        storages = _legacy_storages(path, file, keys, sizes)
        file.seek(structure)
        return torch_pickle.load(Bounded(file), path, lambda persistent_id: storages[persistent_id[2]])


def _no_storage(_: Any) -> tuple[np.dtype, Storage]:
    raise ValueError("a storage where none can be")


def _legacy_size(
    path: pathlib.Path,
    sizes: dict[str, tuple[np.dtype, int]],
    dtype: np.dtype,
    key: Any,
    _: Any,
    count: Any,
    view: Any,
) -> tuple[np.dtype, Storage]:
    """Notes a storage's type and size; returns both, the size as a storage that cannot be read yet."""
    if view is not None:
        raise UserError(f"{path}: storages that are views (PyTorch 0.3) are not read. Save it again in PyTorch 1.6.")
    if isinstance(dtype, Inert):  # How long it is cannot be told, and so not where the next one starts.
        raise UserError(
            f"{path} has tensors of {dtype.name}, which are not read. In PyTorch, save those of a network's weights "
            "alone."
        )
    if type(key) is not str or type(count) is not int or count < 0 or not isinstance(dtype, np.dtype):
        raise damaged(path, f"a storage is named {key!r:.50} and has {count!r:.50} elements")
    if sizes.setdefault(key, (dtype, count)) != (dtype, count):
        raise damaged(path, f"storage {key} declares {count} elements of {dtype}")
    return dtype, Storage(path, 0, count * dtype.itemsize, f"storage {key}")


def _legacy_storages(
    path: pathlib.Path, file: BinaryIO, keys: Any, sizes: dict[str, tuple[np.dtype, int]]
) -> dict[str, tuple[np.dtype, Storage]]:
    """Type and storage by key. In the file, each storage is its element count, then its bytes."""
    if not isinstance(keys, list) or not all(type(key) is str for key in keys) or sorted(keys) != sorted(sizes):
        raise damaged(path, "its list of storages is not that of its tensors")
    storages, size = {}, path.stat().st_size
    for key in keys:
        dtype, count = sizes[key]
        if file.tell() + 8 + count * dtype.itemsize > size or file.read(8) != struct.pack("<q", count):
            raise damaged(path, f"storage {key} should hold {count} elements")
        storages[key] = dtype, Storage(path, file.tell(), count * dtype.itemsize, f"storage {key}")
        file.seek(count * dtype.itemsize, io.SEEK_CUR)
    return storages


def _aligned(name: str, offset: int) -> zipfile.ZipInfo:
    """A zip entry with its header at `offset` and its bytes at a multiple of `ALIGNMENT`."""
    info = zipfile.ZipInfo(name)
    padding = -(offset + 30 + len(name) + 4) % ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + bytes(padding)
    return info


def write(
    path: pathlib.Path,
    tensors: Mapping[str, NewTensor],
    wrapper: str | None,
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Writes a .pth that `torch.load` reads, with weights_only too; one tensor is in memory at a time.

    The same tensors give the same bytes, whenever they are written.

    Args:
      tensors: by name, in the order that the file shall have.
      wrapper: the key under which their dict stands, or None for the dict alone.
      beside: plain values that stand beside that dict; a dict alone has no place for them.
    """
    key_of_make: dict[int, int] = {}
    keys = {name: str(key_of_make.setdefault(id(tensor.make), len(key_of_make))) for name, tensor in tensors.items()}
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), torch_pickle.dump(tensors, keys, wrapper, beside))
        archive.writestr(zipfile.ZipInfo("archive/byteorder"), "little")
        written = set()
        for name, tensor in tensors.items():
            if keys[name] not in written:
                written.add(keys[name])
                info = _aligned(f"archive/data/{keys[name]}", file.tell())
                info.file_size = tensor.nbytes
                with archive.open(info, "w") as entry:
                    entry.write(tensor.data())
        archive.writestr(zipfile.ZipInfo("archive/version"), "3\n")
