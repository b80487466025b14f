"""Files of torch.save with any content, written without PyTorch."""

import pickle
import struct
import zipfile

import numpy as np

from tests.inputs.pickles import text

STORAGES = {"float32": b"FloatStorage", "int64": b"LongStorage"}


def _integers(values):
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def _program(value, storages):
    """The opcodes of a value; each array is a tensor, whose bytes are added to the storages."""
    if isinstance(value, dict):
        return b"}(" + b"".join(_program(part, storages) for item in value.items() for part in item) + b"u"
    if isinstance(value, np.ndarray):
        kind = STORAGES[value.dtype.name]
        storage = b"(" + text(b"storage") + b"ctorch\n" + kind + b"\n" + text(str(len(storages)).encode())
        storage += text(b"cpu") + b"J" + struct.pack("<i", value.size) + b"tQ"
        storages.append(value.tobytes())
        strides = [stride // value.itemsize for stride in value.strides]
        view = storage + b"K\x00" + _integers(value.shape) + _integers(strides) + b"\x89}"
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + b"tR"
    return pickle.dumps(value, 2)[2:-1]


def write(path, content):
    """Writes a checkpoint of nested dicts, arrays of the kinds in `STORAGES` and plain values; returns its path."""
    storages = []
    program = b"\x80\x02" + _program(content, storages) + b"."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for number, data in enumerate(storages):
            archive.writestr(f"archive/data/{number}", data)
    return path
