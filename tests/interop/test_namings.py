"""The table of names against the released networks' lists of tensors, at full size and without allocating them."""

import functools
import itertools

import numpy as np
import pytest

from configs import baseline, deeplabv3, hrnet, mcibi, mdp, ocrnet, ssltm, ssltm_swin, tmanet, upernet
from tests.interop.conftest import (
    drawn,
    listed,
    tiny_eva,
    tiny_eva01,
    tiny_fcn,
    tiny_focalnet,
    tiny_hrnet,
    tiny_internimage,
    tiny_mask2former,
    tiny_model,
    tiny_ocrnet,
    tiny_of_resnet,
    tiny_resnet,
    tiny_segformer,
    tiny_swin,
    tiny_upernet,
    variables,
)
from vspw_jax.console.errors import UserError
from vspw_jax.interop import convert, namings, sizes
from vspw_jax.interop.checkpoint_file import CheckpointFile
from vspw_jax.interop.stored_tensors import NewTensor
from vspw_jax.models import segmenter
from vspw_jax.training import train_state


@functools.cache
def full_size(crop, num_classes=124):
    """(config, abstract params and model_state) of the full recipe."""
    config = baseline.get_config()
    config.model.update(image_size=(crop, crop), num_classes=num_classes)
    return config, train_state.describe(config)[1:]


def exported(config, weights, naming):
    tensors = convert.new_tensors(config.model, weights, namings.NAMINGS[naming])
    return {name: tensor.shape for name, tensor in tensors.items()}


@pytest.mark.parametrize("num_classes", [150, 171])
def test_the_896_network_has_the_released_tensors(num_classes):
    wanted = listed("mask2former_896_ade20k")
    wanted["decode_head.cls_embed.weight"], wanted["decode_head.cls_embed.bias"] = (
        (num_classes + 1, 1024),
        (num_classes + 1,),
    )
    assert len(wanted) == 942
    assert exported(*full_size(896, num_classes), "mmseg") == wanted


@pytest.mark.parametrize(
    ("name", "naming", "number"),
    [("upernet_640_ade20k", "mmseg", 504), ("mmseg1_upernet_beit_base_640_ade20k", "mmseg_1", 300)],
)
def test_plain_beit_with_upernet_has_the_released_tensors(name, naming, number):
    """BEiT-L in the names of unilm's mmseg, BEiT-B in those of mmsegmentation 1."""
    config = upernet.get_config()
    config.model.update(image_size=(640, 640), num_classes=150)
    if naming == "mmseg_1":
        config.model.encoder.update(dim=768, depth=12, heads=12, out_blocks=(4, 6, 8, 12))
        config.model.decoder.dim = 768
    wanted = listed(name)
    assert len(wanted) == number
    assert exported(config, train_state.describe(config)[1:], naming) == wanted


def deeplabv3_of(code, depths, num_classes):
    """(config, abstract params and model_state) of a published DeepLabV3."""
    config = deeplabv3.get_config()
    config.model.num_classes, config.model.encoder.depths = num_classes, depths
    if code == "torchvision":
        config.model.encoder.stem = "plain"
        config.model.decoder.update(variant="torchvision", dim=256)
    return config, train_state.describe(config)[1:]


RELEASED = {
    "mmseg_deeplabv3_r50v1c_d8_ade20k": ("mmseg", (3, 4, 6, 3), 150, 68.214),
    "mmseg_deeplabv3_r101v1c_d8_ade20k": ("mmseg", (3, 4, 23, 3), 150, 87.206),
    "torchvision_deeplabv3_resnet50_aux": ("torchvision", (3, 4, 6, 3), 21, 42.004),
}


@pytest.mark.parametrize("name", RELEASED)
def test_deeplabv3_has_the_released_tensors(name):
    """And the published number of parameters, in millions."""
    code, depths, num_classes, size = RELEASED[name]
    config, weights = deeplabv3_of(code, depths, num_classes)
    assert exported(config, weights, code) == listed(name)
    assert round(millions(weights[0]), 3) == size


def test_tmanet_has_the_released_tensors():
    config = tmanet.get_config()
    config.model.num_classes = 19
    config.model.decoder.auxiliary_dim = 256
    params, model_state = train_state.describe(config)[1:]
    found = exported(config, (params, model_state), "mmseg")
    beside = listed("mmseg_deeplabv3_r50v1c_d8_ade20k")
    wanted = {name: shape for name, shape in beside.items() if not name.startswith("decode_head.")}
    wanted |= {"auxiliary_head.conv_seg.weight": (19, 256, 1, 1), "auxiliary_head.conv_seg.bias": (19,)}
    assert found == wanted | listed("tmanet_r50_cityscapes_head")
    of_head = {name: part for name, part in params["decoder"].items() if name != "auxiliary"}
    assert round(millions(of_head), 2) == 6.22


def test_mcibi_has_the_released_tensors():
    config = mcibi.get_config()
    params, model_state = train_state.describe(config)[1:]
    found = exported(config, (params, model_state), "ssseg")
    assert found.keys() > {"backbone_net.stem.0.weight", "backbone_net.layer4.2.bn3.num_batches_tracked"}
    of_head = {name: shape for name, shape in found.items() if not name.startswith("backbone_net.")}
    assert of_head == listed("ssseg_mcibi_aspp_heads_k124")
    assert round(millions(params["decoder"]), 1) == 67.8


def test_resnet_50_is_the_encoder_and_a_head():
    wanted = {name: shape for name, shape in listed("torchvision_resnet50").items() if not name.startswith("fc.")}
    config, (params, model_state) = deeplabv3_of("torchvision", (3, 4, 6, 3), 21)
    assert exported(config, (params, model_state), "torchvision_resnet") == wanted
    assert round(millions({"encoder": params["encoder"]}) + (2048 + 1) * 1000 / 1e6, 3) == 25.557


def test_a_pretraining_gives_torchvisions_backbone():
    """All that torchvision's resnet50 has but its classifier of ImageNet."""
    config = mdp.get_config()
    found = exported(config, train_state.describe(config)[1:], "torchvision_resnet")
    assert found == {
        name: shape for name, shape in listed("torchvision_resnet50").items() if not name.startswith("fc.")
    }


def test_hrnet_and_ocrnet_have_the_released_tensors():
    """And mmsegmentation's numbers of parameters, in millions: of the backbone, and with either head."""
    found = {}
    for name, recipe in (("fcn", hrnet), ("ocrnet", ocrnet)):
        config = recipe.get_config()
        config.model.num_classes = 150
        found[name] = (config, train_state.describe(config)[1:])
    assert exported(*found["ocrnet"], "mmseg") == listed("mmseg_ocrnet_hrnetv2_w48_ade20k")
    heads = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")
    wanted = {name: shape for name, shape in listed("timm_hrnet_w48").items() if not name.startswith(heads)}
    assert exported(*found["fcn"], "hrnet_alone") == wanted
    sizes = {name: round(millions(weights[0]), 3) for name, (_, weights) in found.items()}
    assert sizes == {"fcn": 65.953, "ocrnet": 70.533}
    assert round(millions({"encoder": found["fcn"][1][0]["encoder"]}), 3) == 65.325


def test_beitv2_is_the_encoder_and_a_head():
    wanted = {name: shape for name, shape in listed("beitv2_large").items() if not name.startswith(("fc_norm", "head"))}
    assert exported(*full_size(224), "unilm") == wanted


def millions(params):
    return sum(np.prod(leaf.shape, dtype=np.int64) for leaf in convert.leaves_by_path(params).values()) / 1e6


def test_the_published_sizes():
    """Of czczup/ViT-Adapter segmentation/README.md: 571 M and 120 M."""
    assert round(millions(full_size(896, 150)[1][0]), 2) == 570.74
    config = baseline.get_config()
    config.model.update(image_size=(512, 512), num_classes=150)
    config.model.encoder.update(dim=768, depth=12, heads=12, adapter_heads=12)
    config.model.decoder.update(dim=256, heads=8, encoder_ffn_dim=1024, ffn_dim=2048, num_queries=100)
    assert round(millions(train_state.describe(config)[1]), 1) == 120.2


def test_ssltms_size_and_ocrnets_beside_it():
    """The supplementary's table 1 has 59.3 M and 55.5 M on Swin-S; docs/ssltm.md says how ours differ."""

    def size_of(**changes):
        config = ssltm_swin.get_config()
        config.model.decoder.update(changes)
        params = train_state.describe(config)[1]
        return round(millions(params), 2), params["decoder"]

    (size, decoder), (of_ocrnet, _) = size_of(), size_of(context="query", blocks=0, short_term=1, clusters=0)
    assert (size, of_ocrnet) == (58.83, 55.46)
    assert of_ocrnet == pytest.approx(55.5, abs=0.05) and size == pytest.approx(59.3, rel=0.0085)
    assert round(millions(decoder["temporal"]), 2) == 3.18 and round(millions(decoder["clusters"]), 2) == 0.19
    assert round(size_of(blocks=2)[0], 1) == 62.0


SWIN_B = dict(name="swin", dim=128, depths=(2, 2, 18, 2), head_dim=32, mlp_ratio=4.0)
SIZES = {
    "hf_mask2former_swin_base_ade_semantic": (
        SWIN_B | dict(window=12),
        dict(name="mask2former", dim=256, heads=8, encoder_ffn_dim=1024, ffn_dim=2048, encoder_layers=6)
        | dict(decoder_layers=9, num_queries=100),
    ),
    "mask2former_896_ade20k": (
        dict(name="vit_adapter", dim=1024, depth=24, heads=16, adapter_channels=64),
        dict(name="mask2former", dim=1024, heads=32, encoder_ffn_dim=4096, ffn_dim=4096, num_queries=200),
    ),
    "mmseg_upernet_swin_b_w7_ade20k": (SWIN_B | dict(window=7), dict(name="upernet", dim=512, auxiliary_dim=256)),
    "mmseg1_upernet_beit_base_640_ade20k": (
        dict(name="beit", dim=768, depth=12, heads=12, out_blocks=(4, 6, 8, 12)),
        dict(name="upernet", dim=768, auxiliary_dim=256),
    ),
    "mmseg_deeplabv3_r101v1c_d8_ade20k": (
        dict(name="resnet", stem="deep", width=64, depths=(3, 4, 23, 3), output_stride=8),
        dict(name="deeplabv3", variant="mmseg", dim=512, dilations=(12, 24, 36)),
    ),
}
"""Some fields of the encoder's and the decoder's config of released networks of 150 classes."""


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_read_off_the_released_tensors(name):
    tensors = {tensor: NewTensor(shape, np.dtype(np.float32), None) for tensor, shape in listed(name).items()}
    config, _ = sizes.read(CheckpointFile(name, tensors))
    for section, expected in zip((config.encoder, config.decoder), SIZES[name], strict=True):
        assert {field: section[field] for field in expected} == expected
    assert config.num_classes == 150
    naming = namings.recognise(tensors, name)
    assert {row.theirs for row in naming.rows(config, tensors)} <= tensors.keys()
    assert all(
        naming.why_left_out(config, name)
        for name in tensors.keys() - {row.theirs for row in naming.rows(config, tensors)}
    )


def eva01_upernet():
    model = tiny_eva01()
    model.decoder = tiny_upernet().decoder
    return model


NETWORKS = {
    "vit_adapter, mask2former": tiny_model(),
    "beit, upernet": tiny_upernet(),
    "swin, upernet": tiny_swin(),
    "mmseg: resnet, deeplabv3": tiny_resnet("mmseg"),
    "torchvision: resnet, deeplabv3": tiny_resnet("torchvision"),
    "mmseg: resnet, fcn": tiny_fcn("mmseg"),
    "torchvision: resnet, fcn": tiny_fcn("torchvision"),
    "resnet, tmanet": tiny_of_resnet(tmanet),
    "resnet, mcibi": tiny_of_resnet(mcibi),
    "resnet, ssltm": tiny_of_resnet(ssltm),
    "mmseg: hrnet, fcn": tiny_hrnet(),
    "hrnet: hrnet, fcn": tiny_hrnet("hrnet"),
    "mmseg: hrnet, ocrnet": tiny_ocrnet(),
    "hrnet: hrnet, ocrnet": tiny_ocrnet("hrnet"),
    "eva01, mask2former": tiny_eva01(),
    "eva, upernet": tiny_eva(),
    "internimage, upernet": tiny_internimage(),
    "internimage, norms behind, upernet": tiny_internimage(post_norm=True),
    "focalnet, upernet": tiny_focalnet(layer_scale=0.1, modulation_norm=True),
    "nvlabs: mit, segformer": tiny_segformer(),
    "mmseg: mit, segformer": tiny_segformer("mmseg"),
    "eva01, upernet": eva01_upernet(),
    "eva, mask2former": tiny_mask2former(tiny_eva()),
    "internimage, mask2former": tiny_mask2former(tiny_internimage()),
    "focalnet, mask2former": tiny_mask2former(tiny_focalnet()),
    "swin, mask2former": tiny_mask2former(tiny_swin()),
    "resnet, mask2former": tiny_mask2former(tiny_resnet("torchvision")),
}
"""config.model by name; a head that differs between two codes has one of them before its name."""


HEADS = {
    **{name: name for name in ("mmseg", "torchvision", "hrnet")},
    **dict.fromkeys(("nvlabs_segformer", "hugging_face_segformer"), "nvlabs"),
}
"""The code whose form of a head a kind of file has."""


def fits(network, naming):
    """Whether files of a kind hold such a network, with this form of its head."""
    config, (code, _, of_one_code) = NETWORKS[network], network.partition(": ")
    parts = [segmenter.encoder_of(config)]
    parts += [segmenter.decoder_of(config)] if namings.NAMINGS[naming].decoder is not None else []
    is_anothers = of_one_code and HEADS.get(naming, code) != code
    has_no_stem = naming == "hugging_face_resnet" and config.encoder.get("stem") == "deep"
    return all(naming in part.TORCH_NAMES for part in parts) and not is_anothers and not has_no_stem


@pytest.mark.parametrize(
    ("code", "naming", "field"),
    [("mmseg", "hrnet", "encoder.upsampling=aligned"), ("hrnet", "mmseg", "encoder.upsampling=bilinear")],
)
@pytest.mark.parametrize("tiny", [tiny_hrnet, tiny_ocrnet])
def test_an_hrnet_that_resizes_otherwise_has_no_names_in_files_of_another_code(tiny, code, naming, field):
    """The tensors would fit, but the network of that code would compute other maps."""
    with pytest.raises(UserError, match=f"To read such a file set --config.model.{field}"):
        list(namings.NAMINGS[naming].rows(tiny(code), ()))
    config = tiny(code)
    config.encoder.upsampling = "bilinear" if naming == "mmseg" else "aligned"
    with pytest.raises(UserError, match=r"a file set .*--config.model.decoder.align_corners="):
        list(namings.NAMINGS[naming].rows(config, ()))


@functools.cache
def drawn_network(name):
    """(network, its variables), not to be changed."""
    model = drawn(NETWORKS[name])
    return model, variables(model)


@functools.cache
def rest_of(name):
    """The variables of another draw."""
    return variables(drawn(NETWORKS[name], seed=1))


PAIRS = [pair for pair in itertools.product(NETWORKS, namings.NAMINGS) if fits(*pair)]


@pytest.mark.parametrize(("network", "naming"), PAIRS)
def test_what_is_written_is_read_back(network, naming, tmp_path):
    """Bit for bit, all that such files name; the rest stays as it is."""
    config, (ours, wanted) = NETWORKS[network], drawn_network(network)
    convert.save_torch(ours, tmp_path / "A.pth", naming)
    found = variables(convert.load_torch(drawn(config, seed=1), tmp_path / "A.pth"))
    named = {row.ours for row in namings.NAMINGS[naming].rows(config, ())}
    wanted = {path: array if path in named else rest_of(network)[path] for path, array in wanted.items()}
    assert not [path for path, array in wanted.items() if not np.array_equal(found[path], array)]


@pytest.mark.parametrize(("network", "naming"), PAIRS)
def test_every_place_of_a_variable_has_one_name(network, naming):
    """Rows fill each of the places they claim once; a whole naming claims all places of the network."""
    config = NETWORKS[network]
    rows = namings.NAMINGS[naming].rows(config, ())
    filled = {path: np.zeros(array.shape, np.int32) for path, array in drawn_network(network)[1].items()}
    for row in rows:
        row.view(filled[row.ours])[...] += 1
    assert {int(array.max(initial=0)) for array in filled.values()} <= {0, 1}
    assert all(array.min() == array.max() for array in filled.values())
    if namings.NAMINGS[naming].whole(config):
        frozen = naming == "detectron2"  # Whose norms count no batches.
        assert all(array.min() == 1 for path, array in filled.items() if not (frozen and path.endswith("/count")))
