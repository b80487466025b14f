"""Decoders that remember to files and back, the feature memory included."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import mcibi, memory_a, memory_b, ssltm, tmanet
from tests.interop.conftest import drawn, tiny_of_resnet, variables
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert
from vspw_jax.models.temporal.window_attention_3d import window_bias

RECIPES = {"memory_a": memory_a, "memory_b": memory_b}


def tiny(name, **changes):
    """config.model of a small BEiT with a memory decoder."""
    model = RECIPES[name].get_config("demo").model
    model.encoder.update(dim=16, heads=2)
    model.decoder.update(dim=12, memory_dim=8, auxiliary_dim=6, truth_steps=0)
    model.update(image_size=(64, 64), num_classes=7)
    model.update(changes)
    return model


def with_unseen_class(model):
    memory = model.decoder.feature_memory
    memory.valid_K[...] = memory.valid_K[...].at[3].set(False)
    return model


@pytest.mark.parametrize(
    ("name", "space"), [("memory_a", "bottleneck"), ("memory_a", "pyramid"), ("memory_b", "backbone")]
)
def test_a_file_gives_every_tensor_back_and_tells_the_network(name, space, tmp_path):
    wanted = tiny(name)
    wanted.decoder.update(memory_space=space, memory_dim=16 if space == "backbone" else 8)
    model = with_unseen_class(drawn(wanted))
    convert.save_torch(model, tmp_path / "A.pth")
    found, config = convert.model_from_torch(tmp_path / "A.pth")
    ours, theirs = variables(found), variables(model)
    assert ours.keys() == theirs.keys() and not ours["decoder/feature_memory/valid_K"].all()
    for path, array in theirs.items():
        np.testing.assert_array_equal(ours[path], array, err_msg=path)
    assert config.model.decoder.to_dict() == wanted.decoder.to_dict()
    convert.save_torch(found, tmp_path / "B.safetensors")
    first, second = (checkpoint_file.read(tmp_path / name).tensors for name in ("A.pth", "B.safetensors"))
    assert first.keys() == second.keys()
    for tensor in first:
        np.testing.assert_array_equal(first[tensor].read(), second[tensor].read(), err_msg=tensor)


def test_a_memory_of_another_number_of_classes_is_refused(tmp_path):
    convert.save_torch(drawn(tiny("memory_a", num_classes=9)), tmp_path / "A.pth")
    shapes = nnx.to_pure_dict(nnx.state(drawn(tiny("memory_a"))))
    with pytest.raises(UserError) as raised:
        convert.plan(tiny("memory_a"), [shapes], tmp_path / "A.pth")
    assert "decode_head.memory_module.memory (9, 1, 8) float32; wanted (7, 1, 8), for decoder/feature_memory" in str(
        raised.value
    )


@pytest.mark.parametrize(("recipe", "naming"), [(tmanet, "mmseg"), (mcibi, "ssseg")])
def test_files_of_public_code_are_read_and_written_bit_for_bit(recipe, naming, tmp_path, capsys):
    """Their memory too; which of its classes were seen they say by rows that are not 0."""
    wanted = tiny_of_resnet(recipe)
    if recipe is mcibi:
        wanted.decoder.dilations = (12, 24, 36)
    model = drawn(wanted)
    if recipe is mcibi:
        memory = model.decoder.feature_memory
        memory.valid_K[...] = jnp.arange(7) != 3
        memory.rows_KC[...] = memory.rows_KC[...].at[3].set(0)
    convert.save_torch(model, tmp_path / "A.pth", naming)
    found, config = convert.model_from_torch(tmp_path / "A.pth")
    assert config.model.to_dict() == wanted.to_dict()
    ours, theirs = variables(found), variables(model)
    assert ours.keys() == theirs.keys()
    for path, array in theirs.items():
        np.testing.assert_array_equal(ours[path], array, err_msg=path)
    convert.save_torch(found, tmp_path / "B.safetensors", naming)
    first, second = (checkpoint_file.read(tmp_path / name).tensors for name in ("A.pth", "B.safetensors"))
    assert first.keys() == second.keys()
    for tensor in first:
        np.testing.assert_array_equal(first[tensor].read(), second[tensor].read(), err_msg=tensor)
    said = "told from the memory's rows" if recipe is mcibi else "the first place in the past for the oldest frame"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{}, dict(blocks=0, short_term=1, clusters=2, cluster_update="ema")])
def test_a_file_of_ssltm_tells_its_parts(changes, tmp_path, capsys):
    """Its windows too, by the index beside their tables."""
    wanted = tiny_of_resnet(ssltm)
    wanted.decoder.update(dict(key_dim=8, short_term=2, window=(2, 4, 4)) | changes)
    model = drawn(wanted)
    convert.save_torch(model, tmp_path / "A.pth")
    found, config = convert.model_from_torch(tmp_path / "A.pth")
    ours, theirs = variables(found), variables(model)
    assert ours.keys() == theirs.keys()
    for path, array in theirs.items():
        np.testing.assert_array_equal(ours[path], array, err_msg=path)
    if wanted.decoder.blocks:
        tensors = checkpoint_file.read(tmp_path / "A.pth").tensors
        place = "decode_head.1.temporal.blocks.0.attn.relative_position_"
        table, index = (tensors[place + name].read() for name in ("bias_table", "index"))
        bias = window_bias(jnp.asarray(table), (2, 4, 4), (2, 4, 4))
        np.testing.assert_array_equal(bias, table[index].transpose(2, 0, 1))
    told = ["dim", "blocks", "short_term", "clusters", "cluster_update"]
    told += ["window", "heads", "mlp_ratio"] if wanted.decoder.blocks else []
    assert {name: config.model.decoder[name] for name in told} == {name: wanted.decoder[name] for name in told}
    assert "the context of a reference frame, a video's first" in capsys.readouterr().out


def test_what_ssseg_has_too_has_its_names_and_shapes(tmp_path):
    """Of MCIBI's memory module and heads, 8 wide here, for 7 classes: ssseg/modules/models/segmentors/mcibi."""
    convert.save_torch(drawn(tiny("memory_a")), tmp_path / "A.safetensors")
    tensors = checkpoint_file.read(tmp_path / "A.safetensors").tensors
    attention = "memory_module.self_attention"
    convolutions = {
        **{f"{attention}.{part}_project.0.0": (4, 8, 1, 1) for part in ("key", "query")},
        **{f"{attention}.{part}_project.1.0": (4, 4, 1, 1) for part in ("key", "query")},
        f"{attention}.value_project.0": (4, 8, 1, 1),
        f"{attention}.out_project.0": (8, 4, 1, 1),
        "decoder_stage1.0": (8, 8, 1, 1),
        "decoder_stage2.0": (8, 8, 1, 1),
        "decoder_stage1.4": (7, 8, 1, 1),
        "decoder_stage2.4": (7, 8, 1, 1),
    }
    expected = {"memory_module.memory": (7, 1, 8)} | {f"{name}.weight": shape for name, shape in convolutions.items()}
    for name in convolutions:
        if not name.endswith(".4"):
            expected |= {f"{name[:-1]}1.running_mean": convolutions[name][:1]}
    assert {name: tensors[f"decode_head.{name}"].shape for name in expected} == expected


def test_what_tmanet_has_too_has_its_names_and_shapes(tmp_path):
    """wanghao9610/TMANet: first the layer's number, then the place in the past; ours looks 2 frames back, 8 wide."""
    convert.save_torch(drawn(tiny("memory_b")), tmp_path / "B.safetensors")
    tensors = checkpoint_file.read(tmp_path / "B.safetensors").tensors
    expected = {}
    for kind, width in (("key", 16), ("value", 32)):
        for layer, shape in enumerate(((width, 8, 1, 1), (width, width, 3, 3))):
            expected[f"query_{kind}_conv.{layer}.conv.weight"] = shape
            for place in range(2):
                expected[f"memory_{kind}_conv.{layer}.{place}.conv.weight"] = shape
                expected[f"memory_{kind}_conv.{layer}.{place}.bn.running_var"] = shape[:1]
    assert {name: tensors[f"decode_head.{name}"].shape for name in expected} == expected
