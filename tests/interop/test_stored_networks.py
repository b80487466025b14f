"""Which of a checkpoint's tensors are taken: under which key, without which prefix, and what is said of the others."""

import numpy as np
import pytest

from tests.inputs import state_dicts, torch_zips
from tests.interop.conftest import tiny_model, tiny_upernet
from tests.interop.test_torch_files import tensors_of
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, namings, stored_networks, wrapped_names
from vspw_jax.interop.pickle_machine import Inert
from vspw_jax.models import segmenter


@pytest.mark.parametrize("case", state_dicts.KEPT)
def test_the_trained_network_is_found_by_its_own_names(case, tmp_path):
    content, label = state_dicts.KEPT[case]
    file = checkpoint_file.read(torch_zips.write(tmp_path / "X.pth", content))
    assert file.wrapper == label
    assert set(file.tensors) >= set(state_dicts.NAMES)
    assert all(name.startswith(("backbone.", "decode_head.")) for name in file.tensors)
    assert all((tensor.read() == 1).all() for tensor in file.tensors.values())


@pytest.mark.parametrize("prefixes", [("model.",), ("_orig_mod.module.",), ("net._orig_mod.",), ("module.", "")])
def test_prefixes_are_taken_off_in_safetensors_too(prefixes, tmp_path):
    tensors = tensors_of(state_dicts.mixed(prefixes, state_dicts.TRAINED))
    checkpoint_file.write(tmp_path / "X.safetensors", tensors, None)
    assert set(checkpoint_file.read(tmp_path / "X.safetensors").tensors) == set(state_dicts.NAMES)


def test_what_is_taken_and_what_else_is_there_is_said(tmp_path):
    content = {"state_dict": state_dicts.TRAINED, "state_dict_ema": state_dicts.AVERAGE}
    path = torch_zips.write(tmp_path / "X.pth", content)
    [note] = checkpoint_file.read(path).notes
    assert note == (
        "other weights are there and not taken: 'state_dict_ema' (an average, by its name); "
        "--config.init_from_key=state_dict_ema takes those"
    )
    average = checkpoint_file.read(path, "state_dict_ema")
    assert average.wrapper == "state_dict_ema"
    assert all((tensor.read() == 2).all() for tensor in average.tensors.values())
    assert average.notes[0] == "these are an average of weights, by the name 'state_dict_ema'"
    with pytest.raises(UserError, match=r"init_from_key=ema: .* has weights under 'state_dict', 'state_dict_ema'\."):
        checkpoint_file.read(path, "ema")


def test_a_key_may_name_a_prefix_or_the_start_of_a_label(tmp_path):
    names = state_dicts.prefixed("teacher.", state_dicts.AVERAGE) | state_dicts.prefixed(
        "student.", state_dicts.TRAINED
    )
    path = torch_zips.write(tmp_path / "X.pth", {"state_dict": names})
    assert checkpoint_file.read(path, "state_dict.teacher").wrapper == "state_dict.teacher"
    assert checkpoint_file.read(path, "state_dict").wrapper == "state_dict.student"


def test_networks_of_which_none_is_rather_meant_are_asked_for(tmp_path):
    path = torch_zips.write(tmp_path / "X.pth", {"first": state_dicts.TRAINED, "second": state_dicts.AVERAGE})
    with pytest.raises(UserError, match="holds 2 networks, and nothing tells which is meant: first, second. Choose"):
        checkpoint_file.read(path)
    assert checkpoint_file.read(path, "second").wrapper == "second"


def test_tensors_outside_the_network_and_what_is_no_tensor_are_said(tmp_path):
    loss = {"criterion.weight": np.zeros(2, np.float32)}
    content = {"state_dict": state_dicts.prefixed("model.", state_dicts.TRAINED) | loss | {"steps": 3}}
    assert checkpoint_file.read(torch_zips.write(tmp_path / "X.pth", content)).notes == (
        "1 tensors are outside this network and not read: criterion.weight",
        "not read, as they are no tensors: steps (int)",
    )


def test_one_name_with_a_wrapper_and_without_is_not_mixed_up(tmp_path):
    content = state_dicts.TRAINED | state_dicts.prefixed("module.", state_dicts.AVERAGE)
    file = checkpoint_file.read(torch_zips.write(tmp_path / "X.pth", content))
    assert all((tensor.read() == 1).all() for tensor in file.tensors.values())
    assert "other weights are there and not taken: 'module'" in file.notes[0]


def test_a_pickled_module_is_read_as_its_state_dict(tmp_path):
    torch = pytest.importorskip("torch")
    network = torch.nn.Module()
    network.backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    network.decode_head = torch.nn.Linear(2, 3)
    network.decode_head.register_buffer("not_saved", torch.ones(1), persistent=False)
    for content in (network, {"epoch": 3, "model": network}):
        torch.save(content, tmp_path / "X.pth")
        tensors = checkpoint_file.read(tmp_path / "X.pth").tensors
        assert set(tensors) == set(network.state_dict())
        for name, tensor in network.state_dict().items():
            np.testing.assert_array_equal(tensors[name].read(), tensor.numpy())


@pytest.mark.parametrize("prefix", ["backbone.", "module.backbone.", "model.backbone.", "encoder."])
def test_an_encoder_alone_is_found_under_the_prefix_of_a_backbone(prefix, tmp_path):
    names = ("cls_token", "blocks.0.attn.qkv.weight", "patch_embed.proj.weight")
    tensors = state_dicts.prefixed(prefix, {name: np.zeros(2, np.float32) for name in names})
    path = torch_zips.write(tmp_path / "X.pth", tensors | {"head.weight": np.zeros(2, np.float32)})
    file = checkpoint_file.read(path)
    assert set(file.tensors) == set(names)
    assert namings.recognise(file.tensors, path).name == "unilm"
    assert file.notes == ("1 tensors are outside this network and not read: head.weight",)


@pytest.mark.parametrize(
    ("label", "is_average"),
    [("modelEMA", True), ("EMA", True), ("ModelEma", True), ("schema", False), ("model", False)],
)
def test_an_average_is_known_by_a_word_of_its_key(label, is_average):
    assert stored_networks.Network(label, {}, known=True).is_average == is_average


def test_content_that_names_itself_ends(tmp_path):
    """A pickle may hold a dict that holds itself, or a module that is its own part."""
    state = {"_parameters": {}, "_modules": {}}
    module = Inert("M", (), state)
    state["_modules"]["inner"] = state["_parameters"]["p"] = module
    content = {"a": module}
    content["b"] = content
    assert stored_networks.find(content) == []


def test_a_hugging_face_encoder_keeps_its_names_under_any_prefix():
    names = ("embeddings.cls_token", "encoder.layer.0.output.dense.weight", "pooler.layernorm.weight")
    for own in ("", "beit."):
        for prefix in ("", "model.", "teacher.", "model.vision."):
            tensors = dict.fromkeys(f"{prefix}{own}{name}" for name in names)
            [found] = wrapped_names.networks(tensors).values()
            assert {name.removeprefix("beit.") for name in found} == set(names)


def test_no_network_has_a_name_with_a_part_of_a_wrapper():
    """Else that part would be taken off."""
    for config in (tiny_model(), tiny_upernet()):
        encoder, decoder = segmenter.encoder_of(config), segmenter.decoder_of(config)
        for name, naming in namings.NAMINGS.items():
            if name in encoder.TORCH_NAMES and (naming.decoder is None or name in decoder.TORCH_NAMES):
                parts = {part for row in naming.rows(config, ()) for part in row.theirs.split(".")}
                assert not parts & wrapped_names.WRAPPERS
