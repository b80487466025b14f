"""Files of detectron2's Mask2Former: its names, of both versions, and its pickles of arrays."""

import pickle
import re

import numpy as np
import pytest

from configs import deeplabv3, upernet_swin
from configs.parts import models
from tests.interop.conftest import assert_reads, drawn, tiny_mask2former, tiny_resnet, tiny_swin, variables
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert, namings
from vspw_jax.interop.stored_tensors import NewTensor
from vspw_jax.training import train_state


def resnet():
    return tiny_mask2former(tiny_resnet("torchvision"))


NETWORKS = {"swin": tiny_mask2former(tiny_swin()), "resnet": resnet()}


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request, tmp_path_factory):
    """(config.model, network, the file that it was exported to)."""
    config = NETWORKS[request.param]
    model, path = drawn(config), tmp_path_factory.mktemp("detectron2") / "A.pth"
    convert.save_torch(model, path, "detectron2")
    return config, model, path


def published_head(num_classes, widths):
    """Shapes of sem_seg_head in maskformer2_*_bs16_160k.yaml by name, over maps of so many channels.

    Written after facebookresearch/Mask2Former mask2former/modeling/: pixel_decoder/msdeformattn.py,
    transformer_decoder/mask2former_transformer_decoder.py and meta_arch/mask_former_head.py.
    """
    shapes = {}

    def weight_and_bias(name, *shape):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    def multihead_attention(name):
        shapes[f"{name}.in_proj_weight"], shapes[f"{name}.in_proj_bias"] = (768, 256), (768,)
        weight_and_bias(f"{name}.out_proj", 256, 256)

    pixels, predictor = "sem_seg_head.pixel_decoder", "sem_seg_head.predictor"
    for level, width in enumerate(reversed(widths[1:])):
        weight_and_bias(f"{pixels}.input_proj.{level}.0", 256, width, 1, 1)
        weight_and_bias(f"{pixels}.input_proj.{level}.1", 256)
    shapes[f"{pixels}.transformer.level_embed"] = (3, 256)
    for layer in (f"{pixels}.transformer.encoder.layers.{number}" for number in range(6)):
        weight_and_bias(f"{layer}.self_attn.sampling_offsets", 8 * 3 * 4 * 2, 256)
        weight_and_bias(f"{layer}.self_attn.attention_weights", 8 * 3 * 4, 256)
        weight_and_bias(f"{layer}.self_attn.value_proj", 256, 256)
        weight_and_bias(f"{layer}.self_attn.output_proj", 256, 256)
        weight_and_bias(f"{layer}.linear1", 1024, 256)
        weight_and_bias(f"{layer}.linear2", 256, 1024)
        for norm in ("norm1", "norm2"):
            weight_and_bias(f"{layer}.{norm}", 256)
    weight_and_bias(f"{pixels}.mask_features", 256, 256, 1, 1)
    shapes[f"{pixels}.adapter_1.weight"], shapes[f"{pixels}.layer_1.weight"] = (256, widths[0], 1, 1), (256, 256, 3, 3)
    for name in ("adapter_1", "layer_1"):
        weight_and_bias(f"{pixels}.{name}.norm", 256)
    for number in range(9):
        multihead_attention(f"{predictor}.transformer_self_attention_layers.{number}.self_attn")
        multihead_attention(f"{predictor}.transformer_cross_attention_layers.{number}.multihead_attn")
        weight_and_bias(f"{predictor}.transformer_ffn_layers.{number}.linear1", 2048, 256)
        weight_and_bias(f"{predictor}.transformer_ffn_layers.{number}.linear2", 256, 2048)
        for kind in ("self_attention", "cross_attention", "ffn"):
            weight_and_bias(f"{predictor}.transformer_{kind}_layers.{number}.norm", 256)
    weight_and_bias(f"{predictor}.decoder_norm", 256)
    shapes |= {f"{predictor}.{name}.weight": (100, 256) for name in ("query_feat", "query_embed")}
    shapes[f"{predictor}.level_embed.weight"] = (3, 256)
    weight_and_bias(f"{predictor}.class_embed", num_classes + 1, 256)
    for number in range(3):
        weight_and_bias(f"{predictor}.mask_embed.layers.{number}", 256, 256)
    return shapes


@pytest.mark.parametrize(
    ("recipe", "widths"), [(deeplabv3, (256, 512, 1024, 2048)), (upernet_swin, (128, 256, 512, 1024))]
)
def test_the_published_head_has_the_public_sources_names(recipe, widths):
    """256 wide. What is written lacks the pixel decoder's part, as the zoo's files do; both are read."""
    config = recipe.get_config()
    config.model.decoder = models.mask2former()
    config.model.decoder.update(dim=256, heads=8, encoder_ffn_dim=1024, ffn_dim=2048, num_queries=100)
    config.model.num_classes = 150
    if recipe is deeplabv3:
        config.model.encoder.update(stem="plain", output_stride=32)
    naming, published = namings.NAMINGS["detectron2"], published_head(150, widths)
    tensors = convert.new_tensors(config.model, train_state.describe(config)[1:], naming)
    found = {name: tensor.shape for name, tensor in tensors.items() if name.startswith("sem_seg_head.")}
    assert found == {name.replace(".pixel_decoder.", "."): shape for name, shape in published.items()}
    rows = naming.rows(config.model, published)
    assert {row.theirs for row in rows if row.theirs.startswith("sem_seg_head.")} == published.keys()


def arrays_of(path):
    return {name: tensor.read() for name, tensor in checkpoint_file.read(path).tensors.items()}


@pytest.mark.parametrize("trained_norms", [False, True], ids=["frozen", "SyncBN"])
def test_the_zoos_pickles(trained_norms, exported, tmp_path):
    """Names without the pixel decoder's part, queries of the first version, the loss's weights beside; and back.

    The ResNets of Cityscapes were trained with SyncBN, which counts batches.
    """
    config, model, path = exported
    arrays = arrays_of(path)
    assert not any(".pixel_decoder." in name or name.endswith("num_batches_tracked") for name in arrays)
    content = {name.replace("query_feat", "static_query"): x for name, x in arrays.items()}
    norms = [name.removesuffix("running_var") for name in arrays if trained_norms and name.endswith("running_var")]
    content |= {f"{norm}num_batches_tracked": np.array(90_000 + n) for n, norm in enumerate(norms)}
    content |= {"criterion.empty_weight": np.ones(10, np.float32), "pixel_mean": np.ones((3, 1, 1), np.float32)}
    with (tmp_path / "A.pkl").open("wb") as file:
        pickle.dump({"model": content, "__author__": "third_party"}, file, 4)
    assert_reads(tmp_path / "A.pkl", config)
    loaded, _ = convert.model_from_torch(tmp_path / "A.pkl")
    found = variables(loaded)
    counts = {int(count) for name, array in found.items() if name.endswith("/count") for count in array.ravel()}
    assert counts - {0} == {90_000 + n for n in range(len(norms))}
    for name, array in variables(model).items():
        if not name.endswith("/count"):  # Frozen norms have none.
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    convert.save_torch(loaded, tmp_path / "B.pth", "detectron2")
    again = arrays_of(tmp_path / "B.pth")
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], x) for name, x in arrays.items())


def test_what_its_own_trainer_saves(exported, tmp_path):
    """With the pixel decoder's part in the names."""
    config, _, path = exported
    own = r"^sem_seg_head\.(?!predictor\.)"
    tensors = {
        re.sub(own, "sem_seg_head.pixel_decoder.", name): NewTensor(x.shape, x.dtype, lambda x=x: x)
        for name, x in arrays_of(path).items()
    }
    checkpoint_file.write(tmp_path / "A.pth", tensors, "model")
    assert_reads(tmp_path / "A.pth", config)


def test_a_resnet_of_the_zoo_starts_an_encoder(tmp_path):
    """detectron2's R-50.pkl has torchvision's classifier under the stem."""
    model = drawn(NETWORKS["resnet"])
    convert.save_torch(model, tmp_path / "A.pth", "detectron2")
    arrays = {
        name.removeprefix("backbone."): x for name, x in arrays_of(tmp_path / "A.pth").items() if "backbone" in name
    }
    content = {"model": arrays | {"stem.fc.weight": np.zeros((4, 3), np.float32)}, "__author__": "torchvision"}
    (tmp_path / "R.pkl").write_bytes(pickle.dumps(content, 4))
    loaded = variables(convert.load_torch(drawn(NETWORKS["resnet"], seed=1), tmp_path / "R.pkl").encoder)
    for name, array in variables(model.encoder).items():
        if not name.endswith("/count"):
            np.testing.assert_array_equal(loaded[name], array, err_msg=name)


def test_a_deep_stem_has_no_names(tmp_path):
    with pytest.raises(UserError, match="stem='deep' has no names in files of the kind detectron2"):
        config = resnet()
        config.encoder.stem = "deep"
        namings.NAMINGS["detectron2"].rows(config, ())


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.asfortranarray(np.arange(900, dtype=np.float64).reshape(30, 30)),
        np.arange(900, dtype=np.int64).reshape(30, 30).T,
        np.float16([[1.5]] * 999),
        np.zeros((0, 3), np.float32),
        np.float32(2.5) + np.zeros((), np.float32),
        np.array([True, False]),
    ],
    ids=["small", "by columns", "a view", "half", "empty", "scalar", "bool"],
)
def test_arrays_are_read(array, tmp_path):
    array = np.asarray(array)
    content = {"model": {"backbone.a": array, "b": array, "c": "x" * 5000}}
    (tmp_path / "A.pkl").write_bytes(pickle.dumps(content, 3))
    file = checkpoint_file.read(tmp_path / "A.pkl")
    assert file.notes == ("not read, as they are no tensors: c (str)",)
    for tensor in file.tensors.values():
        np.testing.assert_array_equal(tensor.read(), array)
        assert tensor.read().dtype == array.dtype


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps({"model": {"a": np.zeros(9000, np.float32)}}, 4)[:-900], "A.pkl is damaged, cut short"),
        (
            pickle.dumps({"model": {"a": np.zeros(9000, np.float32)}}, 5),
            "protocol 5 are not read: save it with protocol=4",
        ),
        (pickle.dumps({"model": {"a": np.zeros(3, ">f4"), "b": np.array(["x"])}}, 4), "holds no tensors by name"),
        (pickle.dumps([1, 2], 4), "holds no tensors by name: found list"),
    ],
    ids=["cut", "protocol 5", "big-endian", "a list"],
)
def test_what_is_not_read_is_said(data, message, tmp_path):
    (tmp_path / "A.pkl").write_bytes(data)
    with pytest.raises(UserError, match=message):
        checkpoint_file.read(tmp_path / "A.pkl")
