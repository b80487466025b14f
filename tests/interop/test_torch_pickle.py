"""Pickles: what a checkpoint needs is read, all else is kept as a name, and nothing runs."""

import collections
import contextlib
import io
import os
import pickle
import random
import sys
import tracemalloc

import numpy as np
import pytest

from tests.inputs import pickles
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, safetensors_files, torch_files, torch_pickle
from vspw_jax.interop.pickle_machine import Bounded, Inert
from vspw_jax.interop.stored_tensors import NewTensor, Storage


def load(data):
    return torch_pickle.load(io.BytesIO(data), "X.pth", lambda persistent_id: persistent_id)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, False, "é", (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ()]},
        collections.OrderedDict([("x", -1), ("y", 2**40), ("z", -(2**70))]),
        [{}, [], "x" * 300, list(range(300))],
    ],
    ids=["scalars", "ordered", "long"],
)
def test_plain_values_are_read(value, protocol):
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [4, 5])
def test_values_of_newer_protocols_are_read(protocol):
    value = [b"bytes", 2**4000, "x" * 70_000, {1, 2}, frozenset("ab"), *([bytearray(b"more")] if protocol > 4 else [])]
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", pickles.CALLS)
def test_a_call_is_kept_as_its_name_and_nothing_runs(name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = load(pickle.dumps({"state_dict": {"weight": pickles.calling(name)}}, protocol))
    weight = found["state_dict"]["weight"]
    assert isinstance(weight, Inert)
    assert weight.name.split(".")[-1] == name.split(".")[-1]
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", pickles.PROGRAMS)
def test_programs_by_hand_stay_harmless(name, tmp_path, monkeypatch):
    """Each would touch PWNED in Python's own unpickler, or take all memory."""
    monkeypatch.chdir(tmp_path)
    imported = set(sys.modules)
    program, expected = pickles.PROGRAMS[name]
    tracemalloc.start()
    try:
        if isinstance(expected, str):
            found = load(program)
            assert isinstance(found, Inert) and found.name == expected
        else:
            with pytest.raises(UserError, match=expected.pattern):
                load(program)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300 * 2**20
    assert not os.listdir(tmp_path)
    assert set(sys.modules) == imported


def test_a_call_of_what_a_call_gave_is_inert():
    found = load(b"\x80\x02cbuiltins\ngetattr\n(cos\npath\n" + pickles.text(b"system") + b"tRK\x01\x85R.")
    assert isinstance(found, Inert) and found.name == "builtins.getattr" and found.args == (1,)


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
        b"\x80\x02(o.",
        b"\x80\x02(a.",
        b"\x80\x02(b.",
        b"\x80\x04K\x01K\x02\x93.",
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


@pytest.mark.parametrize("program", pickles.DEEP.values(), ids=pickles.DEEP)
def test_deep_nesting_neither_recurses_nor_becomes_a_key(program):
    with contextlib.suppress(UserError):
        load(program)


def test_a_pickle_is_read_up_to_its_cap(monkeypatch):
    data = pickle.dumps("x" * 5000, 4)
    with pytest.raises(UserError, match="longer than"):
        torch_pickle.load(Bounded(io.BytesIO(data), 4000), "X.pth", None)


@pytest.mark.parametrize("protocol", [2, 4])
def test_harmless_objects_beside_the_tensors_are_let_be(protocol):
    """No class of theirs is looked for: those of packages that are not here are read like the others."""
    found = load(pickles.dumps_beside(pickles.harmless(), protocol))
    assert found.keys() == pickles.harmless().keys()
    assert not {name for name in sys.modules if name.split(".")[0] in pickles.ELSEWHERE}


def test_objects_of_torch_beside_the_tensors_are_let_be(tmp_path):
    torch = pytest.importorskip("torch")
    linear = torch.nn.Linear(2, 2)
    beside = pickles.harmless() | {
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "size": torch.Size([1, 2]),
        "rng": torch.get_rng_state(),
        "optimizer": torch.optim.AdamW(linear.parameters()).state_dict(),
        "optimizer itself": torch.optim.SGD(linear.parameters(), 0.1),
        "complex": torch.ones(2, dtype=torch.complex64),
        "sparse": torch.eye(2).to_sparse(),
        "short": torch.ones(2).to(torch.float8_e4m3fn),
        "function": torch.nn.functional.gelu,
    }
    for legacy in (False, True):
        left_out = ("complex", "short") if legacy else ()  # Where a storage ends, an old file does not tell of these.
        kept = {name: value for name, value in beside.items() if name not in left_out}
        weights = {"state_dict": {"weight": torch.ones(2)}}
        torch.save(weights | kept, tmp_path / "X.pth", _use_new_zipfile_serialization=not legacy)
        file = checkpoint_file.read(tmp_path / "X.pth")
        assert list(file.tensors) == ["weight"]
        assert set(file.others) == kept.keys()


def test_an_old_file_with_elements_that_are_not_read_says_which(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(2, dtype=torch.complex64)}, tmp_path / "X.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"tensors of torch.ComplexFloatStorage, which are not read"):
        checkpoint_file.read(tmp_path / "X.pth")


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
