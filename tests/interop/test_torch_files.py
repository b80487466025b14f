"""Files of torch.save, new and old, and hostile ones."""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, torch_files
from vspw_jax.interop.stored_tensors import DTYPES, NewTensor

FLOAT = np.dtype(np.float32)


def tensors_of(arrays):
    return {name: NewTensor(array.shape, array.dtype, lambda array=array: array) for name, array in arrays.items()}


def write(path, **arrays):
    torch_files.write(path, tensors_of(arrays), "state_dict")
    return path


def rewrite(path, change, **options):
    """Packs the file's entries anew after `change(entries)`."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def small(tmp_path):
    return write(tmp_path / "X.pth", weight=np.arange(12, dtype=np.float32).reshape(3, 4), bias=np.ones(3, np.float32))


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_of_torch_are_read_whatever_their_type_and_view(tmp_path, legacy):
    torch = pytest.importorskip("torch")
    base = torch.arange(60.0).reshape(3, 4, 5)
    state = {name: (torch.arange(24) % 2).reshape(2, 12).to(getattr(torch, name)) for name in DTYPES}
    state |= {
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "rows": base[1:],
        "transposed": base.transpose(0, 2),
        "strided": base[:, ::2, 1::3],
        "parameter": torch.nn.Parameter(base[0]),
        "twice": base,
        "noted": torch.ones(2),
    }
    state["noted"].note = "tensors with attributes are pickled in another way"
    path = tmp_path / "X.pth"
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=not legacy)
    file = checkpoint_file.read(path)
    assert file.tensors.keys() == state.keys()
    for name, tensor in state.items():
        found = file.tensors[name].read()
        assert found.dtype.name == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(found.astype(np.float64), tensor.detach().double().numpy())


@pytest.mark.parametrize("weights_only", [True, False])
def test_torch_reads_what_we_write(tmp_path, weights_only):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 2, (3, 5)).astype(dtype) for name, dtype in DTYPES.items()}
    arrays |= {"scalar": np.array(7, np.int64), "empty": np.zeros((0, 3), np.float32)}
    path = write(tmp_path / "X.pth", **arrays)
    state = torch.load(path, weights_only=weights_only)["state_dict"]
    assert list(state) == list(arrays)
    for name, array in arrays.items():
        assert str(state[name].dtype) == f"torch.{array.dtype.name}"
        np.testing.assert_array_equal(state[name].double().numpy(), array.astype(np.float64))
    mapped = torch.load(path, weights_only=True, mmap=True)["state_dict"]
    assert all(torch.equal(mapped[name], state[name]) for name in state)


def test_storages_start_where_torch_aligns_them(small):
    with zipfile.ZipFile(small) as archive:
        infos = [info for info in archive.infolist() if "/data/" in info.filename]
    data = small.read_bytes()
    for info in infos:
        name_length, extra_length = struct.unpack_from("<HH", data, info.header_offset + 26)
        assert (info.header_offset + 30 + name_length + extra_length) % 64 == 0


def test_equal_buffers_are_stored_once(tmp_path):
    make = lambda: np.zeros((500, 500), np.int64)
    tensors = {f"blocks.{number}.index": NewTensor((500, 500), np.dtype(np.int64), make) for number in range(10)}
    torch_files.write(tmp_path / "X.pth", tensors, None)
    assert (tmp_path / "X.pth").stat().st_size < 2.2e6
    assert len(checkpoint_file.read(tmp_path / "X.pth").tensors) == 10


def test_only_what_is_asked_for_is_read(tmp_path):
    """A file of 80 MB, of which 8 are kept, takes little more than 8."""
    big = {f"index{number}": np.zeros(2_250_000, np.int64) for number in range(4)}
    kept = {f"weight{number}": np.full((500, 500), number, np.float32) for number in range(8)}
    path = write(tmp_path / "X.pth", **big, **kept)
    del big
    tracemalloc.start()
    file = checkpoint_file.read(path)
    arrays = [file.tensors[name].read() for name in kept]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    total = sum(array.nbytes for array in arrays)
    assert file.nbytes == 80_000_000
    assert peak < 1.1 * total


def test_writing_holds_one_tensor_at_a_time(tmp_path):
    make = lambda: np.ones((500, 500), np.float32)
    tensors = {f"weight{number}": NewTensor((500, 500), FLOAT, lambda: make()) for number in range(30)}
    for suffix in ("pth", "safetensors"):
        tracemalloc.start()
        checkpoint_file.write(tmp_path / f"X.{suffix}", tensors, None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2.5e6


def test_a_flipped_bit_is_found(small):
    data = bytearray(small.read_bytes())
    place = data.index(np.arange(12, dtype=np.float32).tobytes())
    data[place + 17] ^= 4
    small.write_bytes(data)
    file = checkpoint_file.read(small)
    file.tensors["bias"].read()
    with pytest.raises(UserError, match="checksum of archive/data/0"):
        file.tensors["weight"].read()


def test_compressed_entries_are_refused_unread(small):
    rewrite(small, lambda entries: entries.pop("archive/data/0"))
    with zipfile.ZipFile(small, "a") as archive:
        archive.writestr("archive/data/0", bytes(300 * 2**20), zipfile.ZIP_DEFLATED)
    assert small.stat().st_size < 2**20
    tracemalloc.start()
    with pytest.raises(UserError, match=r"compressed .*claim to be 314572800"):
        checkpoint_file.read(small)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**21


def test_an_entry_may_not_claim_more_than_the_file_holds(small):
    data = small.read_bytes()
    claimed = struct.pack("<II", 2**31, 2**31)
    for sizes in (struct.pack("<II", 48, 48),):
        data = data.replace(sizes, claimed)
    small.write_bytes(data)
    with pytest.raises(UserError, match="should end at byte"):
        checkpoint_file.read(small)


def test_entries_may_not_overlap(small):
    """The directory of a zip can point many entries at the same bytes."""
    data = bytearray(small.read_bytes())
    directory = data.index(b"PK\1\2")
    first = data.index(b"archive/data/0", directory) - 46
    second = data.index(b"archive/data/1", directory) - 46
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    small.write_bytes(data)
    with pytest.raises(UserError, match="overlap"):
        checkpoint_file.read(small)


def test_two_entries_of_one_name_are_refused(small):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(small, "a") as archive:
        archive.writestr("archive/data/0", bytes(48))
    with pytest.raises(UserError, match="one name"):
        checkpoint_file.read(small)


def test_a_storage_that_is_missing_or_of_another_size(small):
    kept = small.read_bytes()
    rewrite(small, lambda entries: entries.pop("archive/data/1"))
    with pytest.raises(UserError, match="storage 1 should hold 3 elements of float32, found none"):
        checkpoint_file.read(small)
    small.write_bytes(kept)
    rewrite(small, lambda entries: entries.update({"archive/data/1": bytes(16)}))
    with pytest.raises(UserError, match="found 16 bytes"):
        checkpoint_file.read(small)


def with_view(path, shape, strides, offset):
    """A file whose only tensor, over a storage of 12 floats, declares this view."""
    numbers = lambda values: b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values) + b"t"
    text = lambda value: b"X" + struct.pack("<I", len(value)) + value
    program = (
        b"\x80\x02}" + text(b"w") + b"ctorch._utils\n_rebuild_tensor_v2\n("
        b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu") + b"K\x0ctQ"
    )
    program += b"\x8a\x08" + struct.pack("<q", offset) + numbers(shape) + numbers(strides) + b"\x89}tRs."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", np.arange(12, dtype=np.float32).tobytes())
    return path


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((13,), (1,), 0),
        ((12,), (1,), 1),
        ((3, 4), (5, 1), 0),
        ((2,), (12,), 0),
        ((2,), (2**62,), 0),
        ((2**40,), (0,), 0),
        ((2**62, 4), (0, 0), 0),
        ((2,), (-1,), 5),
        ((-2,), (1,), 0),
        ((2,), (1,), -1),
        ((2,), (1, 1), 0),
        ((1,) * 40, (0,) * 40, 0),
    ],
)
def test_a_view_may_not_leave_its_storage_nor_repeat_it(tmp_path, shape, strides, offset):
    with pytest.raises(UserError, match="declares"):
        checkpoint_file.read(with_view(tmp_path / "X.pth", shape, strides, offset))


def test_a_view_inside_its_storage_is_read(tmp_path):
    file = checkpoint_file.read(with_view(tmp_path / "X.pth", (2, 3), (1, 4), 1))
    np.testing.assert_array_equal(file.tensors["w"].read(), [[1, 5, 9], [2, 6, 10]])


def test_an_archive_around_a_checkpoint_says_so(small, tmp_path):
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(small, "model.pth.tar")
    with pytest.raises(UserError, match=r"found model.pth.tar. It is an archive around a checkpoint. Unpack it"):
        checkpoint_file.read(tmp_path / "outer.zip")


def test_big_endian_files_are_refused(small):
    rewrite(small, lambda entries: entries.update({"archive/byteorder": b"big"}))
    with pytest.raises(UserError, match="big-endian"):
        checkpoint_file.read(small)


def test_a_pickle_above_the_cap_is_refused(small, monkeypatch):
    monkeypatch.setattr(torch_files, "MAX_PICKLE", 100)
    with pytest.raises(UserError, match="100 is the cap"):
        checkpoint_file.read(small)


def test_what_is_no_checkpoint_is_said(tmp_path):
    for name, data in (("empty", b""), ("text", b"hello, world\n"), ("pickle", pickle.dumps({"a": 1}))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=name):
            checkpoint_file.read(tmp_path / name)
    with pytest.raises(UserError, match="No such file"):
        checkpoint_file.read(tmp_path / "absent.pth")
    with pytest.raises(UserError, match="holds no checkpoint: found empty, pickle, text. Expected a run's workdir, or"):
        checkpoint_file.read(tmp_path)


def test_a_file_without_tensors_by_name_says_what_it_holds(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save([torch.ones(1)], tmp_path / "X.pth")
    with pytest.raises(UserError, match="holds no tensors by name: found list"):
        checkpoint_file.read(tmp_path / "X.pth")
    torch.save({"state_dict": {"step": 3}}, tmp_path / "X.pth")
    with pytest.raises(UserError, match=r"found state_dict.step \(int\)"):
        checkpoint_file.read(tmp_path / "X.pth")


def legacy_file(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "X.pth"
    torch.save({"model": {"a": torch.ones(3), "b": torch.zeros(2)}}, path, _use_new_zipfile_serialization=False)
    return path


def test_every_truncation_of_an_old_file_is_refused(tmp_path):
    path = legacy_file(tmp_path)
    data = path.read_bytes()
    for length in range(0, len(data), 5):
        path.write_bytes(data[:length])
        with pytest.raises(UserError):
            checkpoint_file.read(path)


def test_an_old_file_runs_nothing(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    pickle.dump(torch_files.LEGACY_MAGIC, buffer, 2)
    pickle.dump(1001, buffer, 2)
    pickle.dump({"little_endian": True}, buffer, 2)
    buffer.write(b"\x80\x02cos\nsystem\nX\x0b\x00\x00\x00touch PWNED\x85R.")
    pickle.dump([], buffer, 2)
    (tmp_path / "X.pth").write_bytes(buffer.getvalue())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="holds no tensors by name: found os.system"):
        checkpoint_file.read(tmp_path / "X.pth")
    assert os.listdir(tmp_path) == ["X.pth"]


def test_nothing_half_written_stays(tmp_path):
    def fail():
        raise RuntimeError("no more weights")

    tensors = tensors_of({"a": np.ones(3, np.float32)}) | {"b": NewTensor((3,), FLOAT, fail)}
    for name in ("X.pth", "X.safetensors"):
        with pytest.raises(RuntimeError):
            checkpoint_file.write(tmp_path / name, tensors, None)
    with pytest.raises(UserError, match="ends in .pth"):
        checkpoint_file.write(tmp_path / "X.onnx", tensors, None)
    assert not list(tmp_path.iterdir())
