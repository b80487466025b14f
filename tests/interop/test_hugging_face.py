"""Files of Hugging Face's transformers, as it saves them and as its modules are named in memory."""

import json

import numpy as np
import pytest

from tests.interop.conftest import drawn, tiny_model, variables
from tests.torch_libraries import library
from vspw_jax.console.errors import UserError
from vspw_jax.interop import convert

torch = pytest.importorskip("torch")
transformers = library("transformers")

BEIT = dict(
    hidden_size=32,
    num_hidden_layers=4,
    num_attention_heads=2,
    intermediate_size=128,
    image_size=64,
    layer_scale_init_value=0.1,
)
BLOCKS = "encoder/interactions/blocks/"


def redrawn(module):
    """The module with every parameter and buffer of floats drawn."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return module


def assert_holds(model, state, prefix, shared=False):
    """The encoder's BEiT is the one of a version 5 state dict."""
    found = variables(model)
    state = {name.removeprefix(prefix): x.numpy() for name, x in state.items() if name.startswith(prefix)}
    np.testing.assert_array_equal(found["encoder/cls_token"], state["embeddings.cls_token"])
    patches = state["embeddings.patch_embeddings.projection.weight"]
    np.testing.assert_array_equal(found["encoder/patch_embed/proj/kernel"], patches.transpose(2, 3, 1, 0))
    for number in range(4):
        block = {name.removeprefix(BLOCKS): x[number, 0] for name, x in found.items() if name.startswith(BLOCKS)}
        theirs = lambda name, number=number: state[f"layers.{number}.{name}"]
        table = "relative_position_bias.relative_position_bias_table"
        table = state[f"shared_position_bias.{table.split('.')[1]}"] if shared else theirs(table)
        qkv = np.concatenate([theirs(f"attention.{name}_proj.weight") for name in "qkv"])
        wanted = {
            "attn/qkv/kernel": qkv.T,
            "attn/q_bias": theirs("attention.q_proj.bias"),
            "attn/v_bias": theirs("attention.v_proj.bias"),
            "attn/relative_position_bias_table": table,
            "attn/proj/kernel": theirs("attention.o_proj.weight").T,
            "attn/proj/bias": theirs("attention.o_proj.bias"),
            "mlp/fc1/kernel": theirs("mlp.fc1.weight").T,
            "mlp/fc1/bias": theirs("mlp.fc1.bias"),
            "mlp/fc2/kernel": theirs("mlp.fc2.weight").T,
            "mlp/fc2/bias": theirs("mlp.fc2.bias"),
            "norm1/scale": theirs("layernorm_before.weight"),
            "norm1/bias": theirs("layernorm_before.bias"),
            "norm2/scale": theirs("layernorm_after.weight"),
            "norm2/bias": theirs("layernorm_after.bias"),
            "gamma_1": theirs("lambda_1"),
            "gamma_2": theirs("lambda_2"),
        }
        assert block.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(block[name], array, err_msg=name)


@pytest.mark.parametrize("shared", [False, True])
def test_beit_in_memory_and_as_saved(shared, tmp_path):
    kind = "use_shared_relative_position_bias" if shared else "use_relative_position_bias"
    theirs = redrawn(transformers.BeitModel(transformers.BeitConfig(**BEIT, **{kind: True}, use_mask_token=True)))
    torch.save(theirs.state_dict(), tmp_path / "memory.pth")
    theirs.save_pretrained(tmp_path)
    for name in ("memory.pth", "model.safetensors"):
        model = convert.load_torch(drawn(tiny_model(image_size=(64, 64))), tmp_path / name)
        assert_holds(model, theirs.state_dict(), "", shared)


def test_a_classifying_beit(tmp_path):
    config = transformers.BeitConfig(**BEIT, use_relative_position_bias=True, num_labels=7)
    theirs = redrawn(transformers.BeitForImageClassification(config))
    theirs.save_pretrained(tmp_path)
    model = convert.load_torch(drawn(tiny_model(image_size=(64, 64))), tmp_path / "model.safetensors")
    assert_holds(model, theirs.state_dict(), "beit.")


def test_an_exported_beit_is_loaded_by_transformers(tmp_path):
    model = drawn(tiny_model(image_size=(64, 64)))
    convert.save_torch(model, tmp_path / "model.safetensors", "hugging_face_beit")
    config = transformers.BeitConfig(**BEIT, use_relative_position_bias=True)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": ["BeitModel"]}))
    theirs, report = transformers.BeitModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_holds(model, theirs.state_dict(), "")


HEAD = dict(
    feature_size=32,
    mask_feature_size=32,
    hidden_dim=32,
    encoder_feedforward_dim=48,
    dim_feedforward=32,
    encoder_layers=1,
    decoder_layers=3,
    num_attention_heads=2,
    num_queries=10,
    num_labels=124,
)


def mask2former():
    backbone = transformers.BeitConfig(
        **BEIT,
        use_relative_position_bias=True,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        add_fpn=True,
        reshape_hidden_states=True,
    )
    config = transformers.Mask2FormerConfig(backbone_config=backbone, **HEAD)
    return redrawn(transformers.Mask2FormerForUniversalSegmentation(config))


def test_mask2former_in_memory_and_as_saved(tmp_path, capsys):
    theirs = mask2former()
    state = {name: x.numpy() for name, x in theirs.state_dict().items()}
    torch.save(theirs.state_dict(), tmp_path / "memory.pth")
    theirs.save_pretrained(tmp_path)
    for name in ("memory.pth", "model.safetensors"):
        model = convert.load_torch(drawn(tiny_model(image_size=(64, 64))), tmp_path / name)
        printed = capsys.readouterr().out
        assert "criterion.empty_weight): class weights" in printed and "pyramid; the adapter takes its place" in printed
        stay = printed.split("has none: ")[1]
        assert "decoder" not in stay and "encoder/prior" in stay
        assert_holds(model, theirs.state_dict(), "model.pixel_level_module.encoder.beit.")
        found = variables(model)
        np.testing.assert_array_equal(found["decoder/cls_embed/kernel"], state["class_predictor.weight"].T)
        there = "model.transformer_module.decoder.layers.1"
        cross = np.split(state[f"{there}.cross_attn.in_proj_weight"], 3)
        for part, weight in zip(("query", "key", "value"), cross, strict=True):
            np.testing.assert_array_equal(found[f"decoder/layers/1/cross_attn/{part}/kernel"], weight.T)
        values = state[f"{there}.self_attn.v_proj.weight"].T
        np.testing.assert_array_equal(found["decoder/layers/1/self_attn/value/kernel"], values)
        pixels = state["model.pixel_level_module.decoder.layer_1.0.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(found["decoder/pixel_decoder/output_conv/kernel"], pixels)


def test_a_mask2former_decoder_comes_back(tmp_path):
    """What we export in these names is, tensor for tensor, what was read."""
    theirs = mask2former()
    torch.save(theirs.state_dict(), tmp_path / "A.pth")
    model = convert.load_torch(drawn(tiny_model(image_size=(64, 64))), tmp_path / "A.pth")
    convert.save_torch(model, tmp_path / "B.pth", "hugging_face_mask2former")
    back = torch.load(tmp_path / "B.pth")
    decoder = {
        name: x
        for name, x in theirs.state_dict().items()
        if not name.startswith(("model.pixel_level_module.encoder", "criterion"))
    }
    assert {name for name in back if "pixel_level_module.encoder" not in name} == decoder.keys()
    assert all(torch.equal(back[name], x) for name, x in decoder.items())


def test_another_backbone_is_refused(tmp_path):
    """Files on the hub have a Swin: its tensors are extra, those of a BEiT missing."""
    swin = transformers.SwinConfig(embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, out_indices=[1, 2, 3, 4])
    config = transformers.Mask2FormerConfig(backbone_config=swin, **HEAD)
    transformers.Mask2FormerForUniversalSegmentation(config).save_pretrained(tmp_path)
    with pytest.raises(UserError) as error:
        convert.load_torch(drawn(tiny_model(image_size=(64, 64))), tmp_path / "model.safetensors")
    assert "Its encoder is a swin, the recipe's is a vit_adapter." in str(error.value)
    for part in ("missing from the file", "cls_token", "in the file, but not in the network", "relative_position_bias"):
        assert part in str(error.value)
