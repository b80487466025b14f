"""Pickles: what a checkpoint needs is read, all else is refused by name, and nothing runs."""

import collections
import contextlib
import io
import os
import pickle
import random
import subprocess

import numpy as np
import pytest

from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, safetensors_files, torch_files, torch_pickle
from vspw_jax.interop.stored_tensors import NewTensor, Storage


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def load(data):
    return torch_pickle.load(io.BytesIO(data), "X.pth", lambda persistent_id: persistent_id)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, False, "é", (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ()]},
        collections.OrderedDict([("x", -1), ("y", 2**40), ("z", -(2**70))]),
        [b"bytes", {1, 2}, {}, [], "x" * 300, list(range(300))],
    ],
    ids=["scalars", "ordered", "long"],
)
def test_plain_values_are_read(value, protocol):
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "args", "named"),
    [
        (os.system, ("touch PWNED",), "posix.system"),
        (eval, ("open('PWNED', 'w')",), "eval"),
        (exec, ("open('PWNED', 'w')",), "exec"),
        (getattr, ("a", "b"), "getattr"),
        (subprocess.Popen, (["touch", "PWNED"],), "Popen"),
        (io.open, ("PWNED", "w"), "open"),
        (__import__, ("os",), "__import__"),
        (pickle.loads, (b"N.",), "loads"),
        (np.frombuffer, (b"1234",), "frombuffer"),
        (random.Random, (), "random.Random"),
    ],
)
def test_a_name_that_is_not_allowed_is_refused_and_not_called(function, args, named, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({"state_dict": {"weight": Calls(function, *args)}}, protocol)
    with pytest.raises(UserError, match=named):
        load(data)
    assert not os.listdir(tmp_path)


def test_object_arrays_are_refused():
    array = np.array([Calls(os.system, "touch PWNED"), None], dtype=object)
    for protocol in (2, 3, 4):
        with pytest.raises(UserError, match="object arrays|posix.system"):
            load(pickle.dumps({"meta": array}, protocol))
    with pytest.raises(UserError, match="object arrays"):
        load(pickle.dumps({"meta": np.array([None])}, 2))
    with pytest.raises(UserError, match="object arrays"):
        load(pickle.dumps(np.zeros(1, [("a", np.float32), ("b", object)]), 2))


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\x80\x02(ios\nsystem\n.", "the opcode INST"),
        (b"\x80\x02(cos\nsystem\no.", "posix.system|os.system|opcode OBJ"),
        (b"\x80\x02\x82\x01.", "the opcode EXT1"),
        (b"P12\n.", "the opcode PERSID"),
        (b"\x80\x05\x97.", "the opcode NEXT_BUFFER"),
        (b"\x80\x02ctorch.hub\nload\n.", "torch.hub.load"),
        (b"\x80\x02ctorch\nFloatStorage.__class__\n.", "FloatStorage.__class__"),
        (b"\x80\x02ccollections\nOrderedDict.fromkeys\n.", "fromkeys"),
    ],
)
def test_opcodes_and_names_by_hand(data, named):
    with pytest.raises(UserError, match=named):
        load(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02",
        b".",
        b"\x80\x02N",
        b"\x80\x02(.",
        b"\x80\x02NN.",
        b"\x80\x020.",
        b"\x80\x02h\x07.",
        b"\x80\x02a.",
        b"\x80\x02NNa.",
        b"\x80\x02}(NNNu.",
        b"\x80\x02}]Ns.",
        b"\x80\x02N)R.",
        b"\x80\x02ccollections\nOrderedDict\nNR.",
        b"\x80\x02ccollections\nOrderedDict\n(K\x01tR.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02K\x01Nb.",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x80\x02X\x01\x00\x00\x00\xff.",
        b"\x80\x02I" + b"9" * 5000 + b"\n.",
        b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02" + b")\x85" * 3,
        b"\xff\xfe",
    ],
)
def test_nonsense_is_an_error_of_the_file(data):
    with pytest.raises(UserError, match="X.pth"):
        load(data)


def test_a_far_memo_index_takes_no_memory():
    assert load(b"\x80\x02Nr\xff\xff\xff\x7f.") is None


def test_deep_nesting_neither_recurses_nor_becomes_a_key():
    load(b"\x80\x02)" + b"\x85" * 500_000 + b".")
    with pytest.raises(UserError, match="a tuple as a key"):
        load(b"\x80\x02})" + b"\x85" * 500_000 + b"Ns.")


def test_a_pickle_is_read_up_to_its_cap(monkeypatch):
    data = pickle.dumps("x" * 5000, 4)
    with pytest.raises(UserError, match="longer than"):
        torch_pickle.load(torch_pickle.Bounded(io.BytesIO(data), 4000), "X.pth", None)


def test_what_mmcv_and_unilm_leave_in_a_checkpoint_is_harmless(tmp_path):
    torch = pytest.importorskip("torch")
    import argparse

    meta = {
        "epoch": 3,
        "lr": np.float64(2.0),
        "when": np.array([1, 2]),
        "args": argparse.Namespace(model="beit", drop=0.1),
        "CLASSES": ("wall", "sky"),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "size": torch.Size([1, 2]),
        "counts": collections.defaultdict(list, {"a": [1]}),
    }
    torch.save(
        {"meta": meta, "state_dict": {"weight": torch.ones(2)}, "optimizer": {"state": {0: {}}}}, tmp_path / "X.pth"
    )
    file = checkpoint_file.read(tmp_path / "X.pth")
    assert list(file.tensors) == ["weight"]
    assert file.others == ("meta", "optimizer")


@pytest.fixture(scope="module", params=["zip", "legacy", "safetensors"])
def valid(request, tmp_path_factory):
    """A valid file's bytes and where to write altered ones."""
    path = tmp_path_factory.mktemp("valid") / "X.pth"
    if request.param == "legacy":
        torch = pytest.importorskip("torch")
        state = {"a.weight": torch.ones(3, 4), "a.bias": torch.ones(3)}
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)
        return path.read_bytes(), path
    tensors = {
        name: NewTensor(shape, np.dtype(np.float32), lambda shape=shape: np.ones(shape))
        for name, shape in (("a.weight", (3, 4)), ("a.bias", (3,)), ("count", ()))
    }
    if request.param == "safetensors":
        safetensors_files.write(path, tensors)
    else:
        torch_files.write(path, tensors, "state_dict")
    return path.read_bytes(), path


def read_all(path):
    """Every tensor, or None where the file is refused; anything but UserError is a failure."""
    try:
        return {name: tensor.read() for name, tensor in checkpoint_file.read(path).tensors.items()}
    except UserError:
        return None


def test_every_truncation_is_refused(valid):
    data, path = valid
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        assert read_all(path) is None


def test_altered_bytes_are_refused_or_harmless(valid):
    """Whatever is altered, a file is refused or gives arrays; nothing else comes out, and nothing runs."""
    data, path = valid
    rng = random.Random(0)
    for _ in range(600):
        altered = bytearray(data)
        for _ in range(rng.choice((1, 1, 3))):
            place = rng.randrange(len(altered))
            if rng.random() < 0.8:
                altered[place] = rng.randrange(256)
            else:
                altered[place : place + 8] = b"\xff" * 8
        path.write_bytes(altered)
        read_all(path)


def test_an_altered_pickle_is_refused_or_harmless():
    tensors = {name: NewTensor((3, 4), np.dtype(np.float32), None) for name in "ab"}
    program = torch_pickle.dump(tensors, {"a": "0", "b": "1"}, "state_dict")
    rng = random.Random(1)
    storage = lambda persistent_id: (np.dtype(np.float32), Storage("X.pth", 0, 48, "0"))
    for _ in range(3000):
        altered = bytearray(program)
        altered[rng.randrange(len(altered))] = rng.randrange(256)
        with contextlib.suppress(UserError):
            torch_pickle.load(io.BytesIO(altered), "X.pth", storage)
