"""From files to networks and back: bit for bit, strict, and by the printed rules where a file differs."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.interop.conftest import drawn, tiny_model, variables
from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert
from vspw_jax.interop.stored_tensors import NewTensor
from vspw_jax.models.encoders import relative_position

TABLE = "backbone.blocks.{}.attn.relative_position_bias_table"


def read(path):
    return {name: tensor.read() for name, tensor in checkpoint_file.read(path).tensors.items()}


def write(path, arrays, wrapper="state_dict"):
    tensors = {name: NewTensor(np.shape(x), np.asarray(x).dtype, lambda x=x: x) for name, x in arrays.items()}
    checkpoint_file.write(path, tensors, wrapper)
    return path


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    """The tiny network's file and its tensors."""
    path = tmp_path_factory.mktemp("exported") / "X.pth"
    convert.save_torch(tiny[1], path)
    return path, read(path)


@pytest.mark.parametrize("first", ["pth", "pth.tar", "safetensors"])
@pytest.mark.parametrize("second", ["pth", "safetensors"])
def test_import_then_export_gives_every_tensor_back(tiny, exported, first, second, tmp_path):
    _, arrays = exported
    path = write(tmp_path / f"A.{first}", arrays)
    model = convert.load_torch(drawn(tiny[0], seed=1), path)
    assert_equal(variables(model), variables(tiny[1]))
    convert.save_torch(model, tmp_path / f"B.{second}")
    assert_equal(read(tmp_path / f"B.{second}"), arrays)


def test_a_file_of_torch_comes_back_through_torch(tiny, exported, tmp_path):
    """What the original code would do with an exported file: torch.load, then load_state_dict(strict=True)."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    state = {
        name: torch.from_numpy(rng.normal(size=x.shape).astype(x.dtype) if x.dtype == np.float32 else np.array(x))
        for name, x in exported[1].items()
    }
    torch.save({"state_dict": state, "meta": {"epoch": 1}}, tmp_path / "A.pth")
    model = convert.load_torch(drawn(tiny[0]), tmp_path / "A.pth")
    convert.save_torch(model, tmp_path / "B.pth")
    back = torch.load(tmp_path / "B.pth", weights_only=True)["state_dict"]
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) and back[name].dtype == state[name].dtype for name in state)


def test_exported_positions_are_those_of_the_crop(exported):
    _, arrays = exported
    index = arrays["backbone.blocks.3.attn.relative_position_index"]
    np.testing.assert_array_equal(index, relative_position.index((6, 4)))
    assert arrays["backbone.norm1.num_batches_tracked"].dtype == np.int64


def test_misfits_are_listed_all_at_once(tiny, exported, tmp_path):
    arrays = dict(exported[1])
    del arrays["backbone.cls_token"], arrays["decode_head.query_feat.weight"]
    arrays["backbone.pos_embed"] = np.zeros((1, 25, 32), np.float32)
    arrays["decode_head.stranger"] = np.zeros(3, np.float32)
    arrays["backbone.level_embed"] = np.zeros((4, 32), np.float32)
    arrays["backbone.up.bias"] = np.zeros(32, np.int64)
    arrays["decode_head.transformer_decoder.layers.0.attentions.0.attn.in_proj_bias"] = np.zeros(95, np.float32)
    arrays["backbone.norm1.num_batches_tracked"] = np.zeros((2,), np.int64)
    path = write(tmp_path / "A.pth", arrays)
    before = variables(tiny[1])
    with pytest.raises(UserError) as error:
        convert.load_torch(tiny[1], path)
    text = str(error.value)
    for part in (
        "missing from the file (2)",
        "backbone.cls_token (1, 1, 32), for encoder/cls_token",
        "decode_head.query_feat.weight (10, 32), for decoder/query_feat",
        "in the file, but not in the network (2)",
        "backbone.pos_embed (1, 25, 32)",
        "decode_head.stranger (3,)",
        "of another shape or type (4)",
        "backbone.level_embed (4, 32) float32; wanted (3, 32), for encoder/level_embed",
        "backbone.up.bias (32,) int64; wanted (32,)",
        "in_proj_bias (95,) float32; wanted (96,)",
        "num_batches_tracked (2,) int64; wanted ()",
    ):
        assert part in text
    assert_equal(variables(tiny[1]), before)


def test_another_depth_is_refused(exported, tmp_path):
    """Blocks more than the network has are extra, blocks fewer missing."""
    config = tiny_model()
    config.encoder.depth = 8
    with pytest.raises(UserError, match=r"missing from the file \(64\)"):
        convert.load_torch(drawn(config), exported[0])


def test_every_number_type_is_read_and_kept_as_float32(tiny, exported, tmp_path, capsys):
    arrays = dict(exported[1])
    name = "backbone.level_embed"
    for dtype in (np.float16, jnp.bfloat16, np.float64):
        arrays[name] = exported[1][name].astype(dtype)
        model = convert.load_torch(drawn(tiny[0], seed=1), write(tmp_path / "A.pth", arrays))
        found = variables(model)["encoder/level_embed"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, arrays[name].astype(np.float32))
        assert f"1 of these are {np.dtype(dtype).name} there and float32 here" in capsys.readouterr().out


def test_a_count_of_batches_may_be_absent_but_not_too_large(tiny, exported, tmp_path, capsys):
    name = "backbone.norm1.num_batches_tracked"
    arrays = {key: x for key, x in exported[1].items() if not key.endswith("num_batches_tracked")}
    model = drawn(tiny[0], seed=1)
    counts = {path: x for path, x in variables(model).items() if path.endswith("/count")}
    assert len(counts) == 10
    convert.load_torch(model, write(tmp_path / "A.pth", arrays))
    assert "10 variables stay as initialised" in capsys.readouterr().out
    assert all(variables(model)[path] == count for path, count in counts.items())
    arrays = dict(exported[1]) | {name: np.array(2**31)}
    with pytest.raises(UserError, match="too large for int32"):
        convert.load_torch(model, write(tmp_path / "A.pth", arrays))


@pytest.mark.parametrize(("crop", "window"), [((128, 160), (8, 10)), ((64, 96), (4, 6)), ((64, 64), (4, 4))])
def test_positions_are_resized_to_the_crop(tiny, exported, crop, window, capsys):
    """From 6x4 patches to others, turned ones too: a 4x6 table has as many rows as a 6x4 one."""
    model = convert.load_torch(drawn(tiny_model(image_size=crop)), exported[0])
    assert f"resized from 6x4 to {window[0]}x{window[1]} patches" in capsys.readouterr().out
    tables = variables(model)["encoder/interactions/blocks/attn/relative_position_bias_table"]
    for block in range(4):
        wanted = relative_position.resize(exported[1][TABLE.format(block)], (6, 4), window)
        np.testing.assert_array_equal(tables[block, 0], wanted)


def test_positions_of_a_window_that_cannot_be_told_are_refused(exported, tmp_path):
    arrays = {key: x for key, x in exported[1].items() if not key.endswith("relative_position_index")}
    path = write(tmp_path / "A.pth", arrays)
    with pytest.raises(UserError, match="of another shape or type"):
        convert.load_torch(drawn(tiny_model(image_size=(64, 64))), path)
    convert.load_torch(drawn(tiny_model()), path)  # A table of our own size is taken to be of our window.


@pytest.mark.parametrize(
    ("num_classes", "name", "column"),
    [(150, "ade20k_to_vspw", "ade_trainid_0_149"), (171, "coco_to_vspw", "coco_trainid_171")],
)
def test_a_classifier_starts_from_the_classes_that_correspond(num_classes, name, column, tmp_path, capsys):
    source = drawn(tiny_model(num_classes=num_classes))
    convert.save_torch(source, tmp_path / "A.pth")
    model = drawn(tiny_model(), seed=1)
    fresh = variables(model)
    convert.load_torch(model, tmp_path / "A.pth")
    printed = capsys.readouterr().out
    for kind in ("kernel", "bias"):
        theirs = variables(source)[f"decoder/cls_embed/{kind}"]
        found, before = variables(model)[f"decoder/cls_embed/{kind}"], fresh[f"decoder/cls_embed/{kind}"]
        np.testing.assert_array_equal(found[..., -1], theirs[..., -1])
        started = 0
        for our_class in range(124):
            rows = [row for row in vspw.table(name) if row["vspw_id"] == str(our_class) and row["fit"] != "none"]
            sources = [int(row[column]) for row in rows]
            started += bool(sources)
            wanted = theirs[..., sources].mean(axis=-1) if sources else before[..., our_class]
            np.testing.assert_allclose(found[..., our_class], wanted, rtol=1e-6)
    assert f"classifier of {num_classes} classes for our 124: by {name}.csv {started} start from the file" in printed


def test_a_classifier_of_unrelated_classes_starts_anew(tmp_path, capsys):
    source, model = drawn(tiny_model(num_classes=19)), drawn(tiny_model(num_classes=7), seed=1)
    fresh = variables(model)["decoder/cls_embed/kernel"]
    convert.save_torch(source, tmp_path / "A.pth")
    convert.load_torch(model, tmp_path / "A.pth")
    assert "no table relates them" in capsys.readouterr().out
    found = variables(model)["decoder/cls_embed/kernel"]
    np.testing.assert_array_equal(found[:, :7], fresh[:, :7])
    np.testing.assert_array_equal(found[:, 7], variables(source)["decoder/cls_embed/kernel"][:, 19])


def test_known_strays_are_left_out_and_named(tiny, exported, tmp_path, capsys):
    arrays = dict(exported[1]) | {"decode_head.conv_seg.weight": np.zeros((150, 32, 1, 1), np.float32)}
    convert.load_torch(drawn(tiny[0]), write(tmp_path / "A.pth", arrays))
    printed = capsys.readouterr().out
    assert "1 not read (decode_head.conv_seg.weight): a layer that older releases held" in printed
    assert "4 not read (backbone.blocks.*.attn.relative_position_index): position indices" in printed


def beitv2(model, path, shared=False):
    """A BEiTv2 file as unilm writes it, of a model's encoder at another crop, with what we do not need."""
    convert.save_torch(model, path, "unilm")
    arrays = read(path)
    if shared:
        table = arrays["blocks.2.attn.relative_position_bias_table"]
        arrays = {name: x for name, x in arrays.items() if "relative_position" not in name}
        arrays["rel_pos_bias.relative_position_bias_table"] = table
        arrays["rel_pos_bias.relative_position_index"] = relative_position.index((2, 2))
        arrays |= {"mask_token": np.zeros((1, 1, 32), np.float32), "norm.weight": np.zeros(32, np.float32)}
    else:
        arrays |= {"fc_norm.weight": np.zeros(32, np.float32), "head.weight": np.zeros((21841, 32), np.float32)}
    return write(path, arrays, "model"), arrays


@pytest.mark.parametrize("shared", [False, True])
def test_beitv2_starts_the_encoder_and_nothing_else(shared, tmp_path, capsys):
    source = drawn(tiny_model(image_size=(32, 32)))
    path, arrays = beitv2(source, tmp_path / "A.pth", shared)
    model = drawn(tiny_model(), seed=1)
    fresh = variables(model)
    convert.load_torch(model, path)
    printed = capsys.readouterr().out
    found, wanted = variables(model), variables(source)
    blocks = "encoder/interactions/blocks/"
    for name, array in found.items():
        if name.endswith("relative_position_bias_table"):
            tables = [arrays["rel_pos_bias.relative_position_bias_table"]] * 4 if shared else wanted[name][:, 0]
            expected = np.stack([relative_position.resize(table, (2, 2), (6, 4)) for table in tables])[:, None]
        else:
            of_beit = name.startswith((blocks, "encoder/cls_token", "encoder/patch_embed"))
            expected = (wanted if of_beit else fresh)[name]
        np.testing.assert_array_equal(array, expected, err_msg=name)
    assert "4 relative position tables resized from 2x2 to 6x4 patches (geometric-cubic)" in printed
    assert "of a pretraining or image classification head" in printed
    assert "stay as initialised, as the file has none: decoder/cls_embed, decoder/layers" in printed


def test_a_part_of_a_network_goes_back_into_its_own_naming(tiny, tmp_path):
    """An encoder exported in unilm's or Hugging Face's names starts another network's encoder."""
    for naming in ("unilm", "hugging_face_beit"):
        convert.save_torch(tiny[1], tmp_path / "A.safetensors", naming)
        model = convert.load_torch(drawn(tiny[0], seed=1), tmp_path / "A.safetensors")
        for name, array in variables(model).items():
            if name.startswith("encoder/interactions/blocks/"):
                np.testing.assert_array_equal(array, variables(tiny[1])[name], err_msg=name)


def test_sizes_are_read_off_the_tensors(exported, capsys):
    path, arrays = exported
    model, config = convert.model_from_torch(path)
    wanted = tiny_model()
    wanted.encoder.update(layer_scale=1e-6, drop_path=0.3)
    wanted.decoder.norm_groups = 32
    assert config.model.to_dict() == wanted.to_dict()
    assert_equal(variables(model), variables(convert.load_torch(drawn(config.model, seed=1), path)))
    printed = capsys.readouterr().out
    assert "4 sampling points" in printed and "32 groups" in printed and "2 heads in the transformer decoder" in printed
    convert.save_torch(model, path.with_name("Y.pth"))
    assert_equal(read(path.with_name("Y.pth")), arrays)


@pytest.mark.parametrize("crop", [(64, 96), (96, 64), (32, 448), (64, 64)])
def test_the_crop_is_read_off_the_position_indices(crop, tmp_path):
    """Of (2, 28) patches the table has the rows of a square window; the index tells."""
    convert.save_torch(drawn(tiny_model(image_size=crop)), tmp_path / "A.safetensors")
    assert convert.model_from_torch(tmp_path / "A.safetensors")[1].model.image_size == crop


def test_a_model_needs_a_whole_and_known_network(tiny, exported, tmp_path):
    convert.save_torch(tiny[1], tmp_path / "A.pth", "unilm")
    with pytest.raises(UserError, match="a part of a network"):
        convert.model_from_torch(tmp_path / "A.pth")
    with pytest.raises(UserError, match="in no way that is known: found conv1.weight"):
        convert.model_from_torch(write(tmp_path / "B.pth", {"conv1.weight": np.zeros(3)}))
    arrays = {name: x for name, x in exported[1].items() if not name.startswith("backbone.spm.")}
    with pytest.raises(UserError, match="none of its names starts with .*backbone.spm."):
        convert.model_from_torch(write(tmp_path / "C.pth", arrays))
    arrays = {name: x for name, x in exported[1].items() if name != "backbone.cls_token"}
    with pytest.raises(UserError, match="backbone.cls_token is missing"):
        convert.model_from_torch(write(tmp_path / "D.pth", arrays))
    for shape, message in (((10, 33), "sizes make no network"), ((10, 64), "does not fit the network")):
        weights = {"decode_head.query_feat.weight": np.zeros(shape, np.float32)}
        with pytest.raises(UserError, match=message):
            convert.model_from_torch(write(tmp_path / "E.pth", exported[1] | weights))


def test_an_unknown_naming_is_refused(tiny, tmp_path):
    with pytest.raises(UserError, match="expected one of .*mmseg, .*unilm"):
        convert.save_torch(tiny[1], tmp_path / "A.pth", "keras")
