"""Checkpoints in several files, folders of checkpoints, and compressed ones."""

import gzip
import json
import tempfile

import numpy as np
import pytest

from tests.inputs import no_checkpoints, state_dicts, torch_zips
from tests.interop.test_torch_files import tensors_of
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file

INDEX = {"safetensors": "model.safetensors.index.json", "bin": "pytorch_model.bin.index.json"}


def write_split(folder, kind):
    """A checkpoint in two files and its index, the only JSON file; returns the index's path."""
    places = {}
    for number, names in enumerate((state_dicts.NAMES[:2], state_dicts.NAMES[2:]), start=1):
        stem = "model" if kind == "safetensors" else "pytorch_model"
        path = folder / f"{stem}-{number:05d}-of-00002.{kind}"
        tensors = {name: state_dicts.TRAINED[name] for name in names}
        if kind == "safetensors":
            checkpoint_file.write(path, tensors_of(tensors), None)
        else:
            torch_zips.write(path, tensors)
        places |= dict.fromkeys(names, path.name)
    index = folder / INDEX[kind]
    index.write_text(json.dumps({"metadata": {"total_size": 24}, "weight_map": places}))
    return index


def assert_trained(file):
    assert set(file.tensors) == set(state_dicts.NAMES)
    assert all((tensor.read() == 1).all() for tensor in file.tensors.values())


@pytest.mark.parametrize("kind", INDEX)
def test_several_files_are_read_by_their_index_or_their_folder(kind, tmp_path):
    index = write_split(tmp_path, kind)
    (tmp_path / "config.json").write_text("{}")
    assert_trained(checkpoint_file.read(index))
    assert_trained(checkpoint_file.read(tmp_path))


@pytest.mark.parametrize("kind", INDEX)
def test_one_of_several_files_is_refused(kind, tmp_path):
    write_split(tmp_path, kind)
    [first, _] = sorted(tmp_path.glob(f"*-of-*.{kind}"))
    with pytest.raises(UserError, match="is one of 2 files of a checkpoint. Name its index or its folder"):
        checkpoint_file.read(first)


def test_files_that_an_index_lists_must_be_there(tmp_path):
    index = write_split(tmp_path, "safetensors")
    [first, second] = sorted(tmp_path.glob("*.safetensors"))
    second.write_bytes(no_checkpoints.POINTER)
    with pytest.raises(UserError, match=r"model-00002-of-00002.safetensors is no checkpoint: it is a Git LFS pointer"):
        checkpoint_file.read(index)
    second.write_bytes(first.read_bytes())
    with pytest.raises(UserError, match="its files lack 1 tensors that it lists: decode_head.conv_seg.weight in"):
        checkpoint_file.read(index)
    second.unlink()
    with pytest.raises(UserError, match=r"lists 2 files, of which 1 are missing beside it: model-00002"):
        checkpoint_file.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"weight_map": {"a": "../X.safetensors"}}', "names files outside its folder: ../X.safetensors"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "names files outside its folder: /etc/passwd"),
        ('{"weight_map": {"a": 3}}', "no weight_map"),
        ('{"weight_map": ["a"]}', "no weight_map"),
        ('{"weight_map": {}}', "names no file"),
        ('{"metadata": {}}', "no weight_map"),
        ('{"a":' * 100_000, "no weight_map"),
        ("version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("[]", "JSON, not tensors"),
    ],
)
def test_an_index_that_lies_is_refused(content, said, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match=said):
        checkpoint_file.read(tmp_path / "model.safetensors.index.json")


def test_the_only_checkpoint_of_a_folder_is_read(tmp_path):
    torch_zips.write(tmp_path / "pytorch_model.bin", state_dicts.AVERAGE)
    checkpoint_file.write(tmp_path / "model.safetensors", tensors_of(state_dicts.TRAINED), None)
    (tmp_path / "README.md").write_text("")
    assert_trained(checkpoint_file.read(tmp_path))  # Published folders hold one network in both kinds.
    checkpoint_file.write(tmp_path / "other.safetensors", tensors_of(state_dicts.TRAINED), None)
    with pytest.raises(UserError, match=r"holds 2 checkpoints: model.safetensors, other.safetensors. Name one: "):
        checkpoint_file.read(tmp_path)


def test_a_folder_without_a_checkpoint_says_what_it_holds(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match=r"holds no checkpoint: found a.txt. Expected a run's workdir, or a folder"):
        checkpoint_file.read(tmp_path)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where files are unpacked."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_compressed_checkpoint_is_unpacked_once(tmp_path, temporary):
    plain = torch_zips.write(tmp_path / "X.pth", {"state_dict": state_dicts.TRAINED})
    path = tmp_path / "X.pth.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    for _ in range(2):
        file = checkpoint_file.read(path)
        assert file.path == path
        assert_trained(file)
    assert len(list(temporary.iterdir())) == 1


def test_damage_inside_or_around_is_said_of_the_file_that_was_named(tmp_path, temporary):
    plain = torch_zips.write(tmp_path / "X.pth", {"state_dict": state_dicts.TRAINED})
    path = tmp_path / "X.pth.gz"
    for data in (gzip.compress(plain.read_bytes())[:-20], gzip.compress(plain.read_bytes()[:-30])):
        path.write_bytes(data)
        with pytest.raises(UserError, match=f"^{path} is damaged"):
            checkpoint_file.read(path)
    path.write_bytes(gzip.compress(gzip.compress(plain.read_bytes())))
    with pytest.raises(UserError, match=f"^{path} is no checkpoint: it is compressed more than once"):
        checkpoint_file.read(path)
    path.write_bytes(gzip.compress(no_checkpoints.QUOTA))
    with pytest.raises(UserError, match=f"^{path} is no checkpoint: it is a web page"):
        checkpoint_file.read(path)


def test_a_file_that_unpacks_to_far_more_is_refused(tmp_path, temporary):
    path = tmp_path / "X.pth.gz"
    path.write_bytes(gzip.compress(bytes(70 * 2**20), 1))
    with pytest.raises(UserError, match="more than 50 times as large"):
        checkpoint_file.read(path)
    assert not list(temporary.iterdir())


def test_names_of_tensors_may_be_anything(tmp_path):
    """Also empty, of wrappers alone, or with many dots."""
    arrays = {name: np.ones(1, np.float32) for name in ("", "module", ".", "a..b", "module.module.a", "x" * 300)}
    checkpoint_file.write(tmp_path / "X.safetensors", tensors_of(arrays), None)
    assert len(checkpoint_file.read(tmp_path / "X.safetensors").tensors) == len(arrays)
