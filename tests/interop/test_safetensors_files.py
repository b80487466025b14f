"""The safetensors format: against its own package where that is installed, and hostile files."""

import json
import struct

import numpy as np
import pytest

from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file
from vspw_jax.interop.stored_tensors import DTYPES, NewTensor


def pack(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(shape, first, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, end]}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 2, (3, 5)).astype(dtype) for name, dtype in DTYPES.items()}
    return arrays | {"scalar": np.array(7, np.int64), "empty": np.zeros((0, 3), np.float32)}


def test_round_trip(tmp_path, arrays):
    tensors = {name: NewTensor(array.shape, array.dtype, lambda array=array: array) for name, array in arrays.items()}
    checkpoint_file.write(tmp_path / "X.safetensors", tensors, "ignored")
    found = checkpoint_file.read(tmp_path / "X.safetensors").tensors
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name].read(), array)


def test_its_own_package_agrees(tmp_path, arrays):
    torch_side = pytest.importorskip("safetensors.torch")
    tensors = {name: NewTensor(array.shape, array.dtype, lambda array=array: array) for name, array in arrays.items()}
    checkpoint_file.write(tmp_path / "ours.safetensors", tensors, None)
    theirs = torch_side.load_file(tmp_path / "ours.safetensors")
    assert theirs.keys() == arrays.keys()
    torch_side.save_file(theirs, tmp_path / "theirs.safetensors")
    found = checkpoint_file.read(tmp_path / "theirs.safetensors").tensors
    for name, array in arrays.items():
        assert str(theirs[name].dtype) == f"torch.{array.dtype.name}"
        np.testing.assert_array_equal(found[name].read(), array)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry([2], 0, 8)}, b"1234", "should end at byte"),
        ({"a": entry([2], 0, 8)}, b"123456789", "the file at"),
        ({"a": entry([3], 0, 8)}, b"12345678", "declares"),
        ({"a": entry([1], 0, 8)}, b"12345678", "needs 4 bytes"),
        ({"a": entry([1], 8, 4)}, b"12345678", "bytes 8 to 4"),
        ({"a": entry([1], -4, 0)}, b"1234", "nothing sensible"),
        ({"a": entry([2**70], 0, 4)}, b"1234", "declares"),
        ({"a": entry([-1], 0, 4)}, b"1234", "nothing sensible"),
        ({"a": entry([1.0], 0, 4)}, b"1234", "nothing sensible"),
        ({"a": entry([True], 0, 4)}, b"1234", "nothing sensible"),
        ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"12345678", "overlap"),
        ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"123456789012", "the file at"),
        ({"a": entry([1], 0, 4, "F8_E4M3")}, b"1234", "F8_E4M3"),
        ({"a": {"dtype": "F32"}}, b"", "nothing sensible"),
        ({"a": 3}, b"", "nothing sensible"),
        (b'{"a": 1, "a": 2}', b"", "twice"),
        (b"{nonsense", b"", "cannot be read"),
        (b"{" + b'"a":{' * 100_000, b"", "cannot be read"),
        (b'{"\xff": 1}', b"", "cannot be read"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, header, data, message):
    with pytest.raises(UserError, match=message):
        checkpoint_file.read(pack(tmp_path / "X.safetensors", header, data))


@pytest.mark.parametrize("length", [3, 2**20, 2**31, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file_or_cut_short(tmp_path, length):
    with pytest.raises(UserError, match="header"):
        checkpoint_file.read(pack(tmp_path / "X.safetensors", {"a": entry([1], 0, 4)}, b"1234", length))


def test_every_truncation_is_refused(tmp_path):
    path = pack(tmp_path / "X.safetensors", {"a": entry([2], 0, 8), "b": entry([], 8, 12)}, bytes(12))
    data = path.read_bytes()
    assert checkpoint_file.read(path).tensors.keys() == {"a", "b"}
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(UserError):
            checkpoint_file.read(path)
