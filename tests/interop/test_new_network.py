"""An encoder and a decoder that nothing in interop knows: their files and their lines in the dicts are enough."""

import dataclasses

import numpy as np
import pytest

from tests.interop.conftest import drawn, tiny_model, tiny_upernet, variables
from tests.models import small_network
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert, namings
from vspw_jax.models import segmenter
from vspw_jax.models.torch_names import Names


@pytest.fixture(autouse=True)
def known(monkeypatch):
    small_network.register(monkeypatch)


def assert_same(ours, theirs):
    ours, theirs = variables(ours), variables(theirs)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def test_every_kind_of_file_that_a_part_names_is_listed():
    for kind in (*segmenter.ENCODERS.values(), *segmenter.DECODERS.values()):
        assert kind.TORCH_NAMES and kind.TORCH_NAMES.keys() <= namings.NAMINGS.keys()


def test_a_new_network_is_written_read_and_recognised(tmp_path, capsys):
    """Its memory too, which is neither trained nor a statistic of a batch."""
    model = drawn(small_network.config(num_classes=7))
    convert.save_torch(model, tmp_path / "A.pth")
    assert "decode_head.memory.sums" in checkpoint_file.read(tmp_path / "A.pth").tensors
    assert_same(convert.load_torch(drawn(small_network.config(num_classes=7), seed=1), tmp_path / "A.pth"), model)
    found, config = convert.model_from_torch(tmp_path / "A.pth")
    assert config.model.to_dict() == small_network.config(num_classes=7).to_dict()
    assert_same(found, model)
    assert "Assumed, as the tensors do not say: a crop of 32x32." in capsys.readouterr().out


def test_a_memory_without_a_name_is_found(tmp_path, monkeypatch):
    """Rows of a whole network name all of its variables."""
    names = small_network.Remembering.TORCH_NAMES["mmseg"]
    rows = lambda *arguments: [row for row in names.rows(*arguments) if not row.ours.endswith("pixels_K")]
    monkeypatch.setitem(small_network.Remembering.TORCH_NAMES, "mmseg", dataclasses.replace(names, rows=rows))
    model = drawn(small_network.config())
    convert.save_torch(model, tmp_path / "A.pth")
    with pytest.raises(UserError, match=r"without a name in such files \(1\):\n  decoder/pixels_K"):
        convert.load_torch(model, tmp_path / "A.pth")


def test_a_part_without_names_in_a_file_is_refused(tmp_path):
    """Both ways, and the message says which files there are for it."""
    config = small_network.config()
    with pytest.raises(UserError, match=r"encoder, patches, has no names in .* unilm: .* It has names in mmseg\."):
        convert.save_torch(drawn(config), tmp_path / "A.pth", "unilm")
    convert.save_torch(drawn(tiny_upernet()), tmp_path / "B.pth", "hugging_face_upernet")
    with pytest.raises(UserError, match=r"encoder, patches, has no names in .* hugging_face_upernet:"):
        convert.load_torch(drawn(config), tmp_path / "B.pth")
    config = tiny_model()
    config.decoder = small_network.config().decoder
    with pytest.raises(UserError, match=r"decoder, remembering, has no names in .* hugging_face_mask2former:"):
        convert.save_torch(drawn(config), tmp_path / "C.pth", "hugging_face_mask2former")


def test_a_new_kind_of_file_is_one_entry(tmp_path, monkeypatch, capsys):
    """Without marks of its own it is known by those of its encoders."""
    names = Names(("patches.",), small_network.encoder_rows, whole=False, left_out={r"^fc\.": "a classifier"})
    monkeypatch.setitem(small_network.Patches.TORCH_NAMES, "imagenet", names)
    entry = namings.Naming("imagenet", title="ImageNet's", encoder="stem.")
    monkeypatch.setitem(namings.NAMINGS, "imagenet", entry)
    source = drawn(small_network.config())
    convert.save_torch(source, tmp_path / "A.safetensors", "imagenet")
    tensors = {
        name: checkpoint_file.NewTensor(x.shape, x.dtype, x.read)
        for name, x in checkpoint_file.read(tmp_path / "A.safetensors").tensors.items()
    }
    assert tensors.keys() == {"stem.patches.weight", "stem.patches.bias"}
    zeros = np.zeros(3, np.float32)
    tensors["stem.fc.bias"] = checkpoint_file.NewTensor((3,), zeros.dtype, lambda: zeros)
    checkpoint_file.write(tmp_path / "B.pth", tensors, None)
    model = drawn(small_network.config(), seed=1)
    before = variables(model)
    loaded = variables(convert.load_torch(model, tmp_path / "B.pth"))
    for path, array in loaded.items():
        wanted = variables(source) if path.startswith("encoder/") else before
        np.testing.assert_array_equal(array, wanted[path], err_msg=path)
    printed = capsys.readouterr().out
    assert "1 not read (stem.fc.bias): a classifier" in printed
    assert "stay as initialised, as the file has none: decoder/classifier" in printed
    with pytest.raises(UserError, match="holds a part of a network"):
        convert.model_from_torch(tmp_path / "B.pth")


def test_sizes_that_shapes_do_not_tell_are_asked_for(tmp_path, monkeypatch):
    names = dataclasses.replace(small_network.Remembering.TORCH_NAMES["mmseg"], sizes=None)
    monkeypatch.setitem(small_network.Remembering.TORCH_NAMES, "mmseg", names)
    convert.save_torch(drawn(small_network.config()), tmp_path / "A.pth")
    with pytest.raises(UserError, match="its shapes do not tell all sizes of its remembering"):
        convert.model_from_torch(tmp_path / "A.pth")
