"""BEiT with UperNet to files and back, in the names of mmseg and of transformers."""

import json

import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from tests.interop.conftest import drawn, tiny_upernet, variables
from tests.torch_libraries import library
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert


def assert_same(ours, theirs):
    ours, theirs = variables(ours), variables(theirs)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


@pytest.mark.parametrize("naming", ["mmseg", "hugging_face_upernet"])
def test_import_then_export_gives_every_tensor_back(naming, tmp_path):
    config = tiny_upernet(image_size=(96, 64))
    model = drawn(config)
    convert.save_torch(model, tmp_path / "A.pth", naming)
    loaded = convert.load_torch(drawn(config, seed=1), tmp_path / "A.pth")
    assert_same(loaded, model)
    convert.save_torch(loaded, tmp_path / "B.pth", naming)
    first, second = (checkpoint_file.read(tmp_path / name).tensors for name in ("A.pth", "B.pth"))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        np.testing.assert_array_equal(tensor.read(), second[name].read())


@pytest.mark.parametrize("naming", ["mmseg", "hugging_face_upernet"])
def test_sizes_are_read_off_the_tensors(naming, tmp_path, capsys):
    model = drawn(tiny_upernet())
    convert.save_torch(model, tmp_path / "A.pth", naming)
    found, config = convert.model_from_torch(tmp_path / "A.pth")
    assert_same(found, model)
    assert "maps after blocks" in capsys.readouterr().out
    assert config.model.decoder.to_dict() == tiny_upernet().decoder.to_dict()
    assert config.model.encoder.out_blocks == (1, 2, 3, 4)
    assert config.model.encoder.dim == 32 and config.model.image_size == (64, 64) and config.model.num_classes == 7


def test_both_heads_of_other_classes_start_through_the_label_map(tmp_path, capsys):
    convert.save_torch(drawn(tiny_upernet(num_classes=150)), tmp_path / "A.pth")
    convert.load_torch(drawn(tiny_upernet(num_classes=124)), tmp_path / "A.pth")
    printed = capsys.readouterr().out
    assert "   4 classifier of 150 classes for our 124: by ade20k_to_vspw.csv" in printed


def test_an_exported_network_is_loaded_by_transformers(tmp_path):
    transformers = library("transformers")
    model = drawn(tiny_upernet())
    convert.save_torch(model, tmp_path / "model.safetensors", "hugging_face_upernet")
    config = transformers.BeitConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=128,
        image_size=64,
        use_relative_position_bias=True,
        out_indices=[1, 2, 3, 4],
        auxiliary_channels=16,
        num_labels=7,
    )
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    theirs, report = transformers.BeitForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    found = theirs.state_dict()["decode_head.psp_bottleneck.convolution.weight"].numpy()
    np.testing.assert_array_equal(found.transpose(2, 3, 1, 0), variables(model)["decoder/bottleneck/conv/kernel"])


def test_a_projection_head_and_a_bank_are_not_in_files_and_stay_as_they_are(tmp_path):
    """Files without them start a network that has them, and predict as before."""
    projection = ConfigDict(dict(dim=4, hidden=0, layers=3, input="decoder", level=0))
    parts = dict(projection=projection, bank=ConfigDict(dict(kind="class", slots=2, images=1)))
    model = drawn(tiny_upernet(**parts))
    convert.save_torch(model, tmp_path / "A.safetensors")
    names = checkpoint_file.read(tmp_path / "A.safetensors").tensors
    assert not [name for name in names if "projection" in name or "bank" in name]
    other = drawn(tiny_upernet(**parts), seed=1)
    kept = {path: array for path, array in variables(other).items() if path.startswith(("projection/", "bank/"))}
    loaded = variables(convert.load_torch(other, tmp_path / "A.safetensors"))
    assert len(kept) == 19
    for path, array in variables(model).items():
        np.testing.assert_array_equal(loaded[path], kept.get(path, array), err_msg=path)
    shapes = nnx.to_pure_dict(nnx.state(model))
    plan = convert.plan(model.config, [shapes], tmp_path / "A.safetensors")
    (read,) = convert.read_weights(plan, [shapes])
    assert read["projection"]["conv"]["kernel"].shape == (32, 32)


def test_a_file_without_the_auxiliary_head_leaves_that_as_it_is_and_predicts(tmp_path, capsys):
    """A pretraining has none, and predicting needs none. A file that has a part of it is damaged."""
    without = tiny_upernet()
    without.decoder.auxiliary_dim = 0
    model, other = drawn(without), drawn(tiny_upernet(), seed=1)
    convert.save_torch(model, tmp_path / "A.pth")
    kept = {path: array for path, array in variables(other).items() if path.startswith("decoder/auxiliary")}
    loaded = variables(convert.load_torch(other, tmp_path / "A.pth"))
    assert len(kept) == 8 and loaded.keys() == variables(model).keys() | kept.keys()
    for path, array in loaded.items():
        np.testing.assert_array_equal(array, kept[path] if path in kept else variables(model)[path], err_msg=path)
    assert "8 variables stay as initialised, as the file has none: decoder/auxiliary" in capsys.readouterr().out
    weights = [nnx.to_pure_dict(nnx.state(other))]
    assert convert.plan(other.config, weights, tmp_path / "A.pth").unsettled() == []

    torch = pytest.importorskip("torch")
    convert.save_torch(drawn(tiny_upernet()), tmp_path / "B.pth")
    stored = torch.load(tmp_path / "B.pth", weights_only=True)
    del stored["state_dict"]["auxiliary_head.conv_seg.bias"]
    torch.save(stored, tmp_path / "B.pth")
    with pytest.raises(UserError, match=r"missing from the file \(1\):\s+auxiliary_head.conv_seg.bias"):
        convert.load_torch(drawn(tiny_upernet()), tmp_path / "B.pth")
