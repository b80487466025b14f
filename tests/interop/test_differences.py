"""A file of another network than the recipe's is named as what it is, with the flags that the recipe needs for it."""

import itertools
import re

import numpy as np
import pytest

from configs import (
    baseline,
    deeplabv3,
    hrnet,
    mask2former_eva,
    mask2former_eva02,
    segformer,
    upernet,
    upernet_focalnet,
    upernet_internimage,
    upernet_swin,
)
from configs.parts import models
from tests.inputs import published
from tests.interop.conftest import KEYS, listed
from tests.interop.test_namings import NETWORKS, fits
from tests.torch_libraries import library
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, differences, namings, other_networks, sizes
from vspw_jax.interop.checkpoint_file import CheckpointFile
from vspw_jax.interop.stored_tensors import NewTensor
from vspw_jax.models import segmenter
from vspw_jax.models.encoders import resnet_rows
from vspw_jax.models.torch_names import Shapes


def another_size(there, here, flags):
    """The sentence on an encoder."""
    set_by = " ".join(f"--config.model.encoder.{flag}" for flag in flags)
    return f"Its encoder is {there}; the recipe has {here}. Set {set_by}."


SWIN_B = another_size("a Swin-B", "a Swin-T", ["dim=128", "depths='(2, 2, 18, 2)'"])
EVA_02_L = ["dim=1024", "depth=24", "hidden=2730", "heads=16", "out_blocks='(8, 12, 16, 24)'"]
INTERNIMAGE_XL = ["dim=192", "depths='(5, 5, 24, 5)'", "post_norm=True", "reach=2.0"]
FOCALNET_L = [
    *("dim=192", "levels=4", "overlaps=True", "window=3", "normalize_modulator=True", "post_norm=True"),
    "layer_scale=0.0001",
]
CASES = {
    "timm_swin_base_patch4_window7_224": (upernet_swin, "Swin-T", [SWIN_B]),
    "transformers_swin_base_w7_backbone_ondisk": (upernet_swin, "Swin-T", [SWIN_B]),
    "mmseg_upernet_swin_b_w7_ade20k": (
        upernet,
        "BEiT-L",
        [
            "Its encoder is a Swin-B (swin), the recipe's is a BEiT-L (beit).",
            "Its decoder, a upernet, has dim 512; the recipe has dim 1024. Set --config.model.decoder.dim=512.",
        ],
    ),
    "torchvision_resnet50": (
        deeplabv3,
        "ResNet-101",
        [another_size("a ResNet-50", "a ResNet-101", ["stem=plain", "depths='(3, 4, 6, 3)'"])],
    ),
    "timm_hrnet_w48": (hrnet, "HRNetV2-W18", [another_size("an HRNetV2-W48", "an HRNetV2-W18", ["width=48"])]),
    "timm_focalnet_large_fl4": (
        upernet_focalnet,
        "FocalNet-B (LRF)",
        [another_size("a FocalNet-L (FL4)", "a FocalNet-B (LRF)", FOCALNET_L)],
    ),
    "internimage_xl_backbone_official": (
        upernet_internimage,
        "InternImage-T",
        [another_size("an InternImage-XL", "an InternImage-T", INTERNIMAGE_XL)],
    ),
    "timm_eva02_large_patch14_448": (
        mask2former_eva02,
        "EVA-02-B",
        [another_size("an EVA-02-L", "an EVA-02-B", EVA_02_L)],
    ),
    "mmseg_deeplabv3_r101v1c_d8_ade20k": (deeplabv3, "ResNet-101", []),
    "beitv2_large": (upernet, "BEiT-L", []),
    "mmseg1_upernet_beit_base_640_ade20k": (
        upernet,
        "BEiT-L",
        [
            another_size("a BEiT-B", "a BEiT-L", ["dim=768", "depth=12", "heads=12", "out_blocks='(4, 6, 8, 12)'"]),
            "Its decoder, a upernet, has dim 768; the recipe has dim 1024. Set --config.model.decoder.dim=768.",
        ],
    ),
    "mask2former_896_ade20k": (
        baseline,
        "BEiT-L",
        [
            "Its decoder, a mask2former, has dim 1024, heads 32; the recipe has dim 256, heads 8. Set "
            "--config.model.decoder.dim=1024 --config.model.decoder.heads=32."
        ],
    ),
}
"""By released list of tensors: the recipe, the published size of its encoder, and what is said of them."""


def said_of(shapes, config):
    """The sentences on a file of such tensors for `config.model`."""
    tensors = {name: NewTensor(shape, np.dtype(np.float32), None) for name, shape in shapes.items()}
    file = CheckpointFile("X.pth", tensors)
    return list(differences.sentences(config, file, namings.recognise(tensors, "X.pth")))


@pytest.mark.parametrize("name", CASES)
def test_another_size_and_another_family_are_said(name):
    recipe, size, said = CASES[name]
    config = published.in_size(recipe.get_config(), size).model
    if config.encoder.name == "vit_adapter":
        config.decoder.update(dim=256, heads=8)
    assert said_of(listed(name), config) == said


def test_another_size_of_segformer_is_said():
    tensors = published.zeros(published.in_size(segformer.get_config(), "MiT-B0"), "nvlabs_mit")
    flags = ["dims='(32, 64, 160, 256)'", "depths='(2, 2, 2, 2)'", "head_dim=32"]
    said = said_of({name: array.shape for name, array in tensors.items()}, segformer.get_config().model)
    assert said == [another_size("a MiT-B0", "a MiT-B2", flags)]


def test_eva01_alone_has_its_size_too():
    """Of the released network's tensors those that the pre-training has."""
    shapes = listed("eva01_giant_adapter_backbone_official_896")
    plain = r"^(cls_token|pos_embed|patch_embed|blocks)"
    alone = {name: shape for name, shape in shapes.items() if re.search(plain, name)}
    config = mask2former_eva.get_config().model
    assert said_of(alone, config) == []
    config.encoder.depth = 24
    assert said_of(alone, config) == [another_size("an EVA-01-g", "depth 24", ["depth=40"])]


def test_a_file_of_another_family_that_lacks_tensors_is_still_said():
    shapes = {name: x for name, x in listed("timm_swin_base_patch4_window7_224").items() if "patch_embed" not in name}
    assert said_of(shapes, upernet_internimage.get_config().model) == [
        "Its encoder is a swin, the recipe's is an InternImage-XL (internimage)."
    ]


def test_a_size_without_a_name_is_said_by_its_fields():
    config = upernet_swin.get_config().model
    config.encoder.depths = (2, 2, 4, 2)
    flags = ["dim=128", "depths='(2, 2, 18, 2)'"]
    shapes = listed("timm_swin_base_patch4_window7_224")
    assert said_of(shapes, config) == [another_size("a Swin-B", "depths (2, 2, 4, 2)", flags[1:])]
    without = {name: shape for name, shape in shapes.items() if not name.startswith("layers.2.blocks.17.")}
    assert said_of(without, upernet_swin.get_config().model) == [
        "Its encoder, a swin, has depths (2, 2, 17, 2); the recipe has depths (2, 2, 18, 2). Set "
        "--config.model.encoder.depths='(2, 2, 17, 2)'."
    ]


SIZES_OF_RECIPES = {
    "BEiT-L": (models.beit_large, models.vit_adapter_large),
    "ResNet-50": (models.resnet_50,),
    "ResNet-101": (models.resnet_101,),
    "HRNetV2-W48": (models.hrnet_w48,),
    "Swin-S": (models.swin_small,),
    "Swin-B": (models.swin_base,),
    "EVA-01-g": (models.eva01_giant_adapter,),
    "EVA-02-L": (models.eva02_large,),
    "FocalNet-B (LRF)": (models.focalnet_base,),
    "InternImage-XL": (models.internimage_xl,),
    "MiT-B2": (models.mit_b2,),
}


@pytest.mark.parametrize("size", SIZES_OF_RECIPES)
def test_recipes_have_the_size_that_they_are_named_after(size):
    for make in SIZES_OF_RECIPES[size]:
        encoder = make()
        changed = encoder.copy_and_resolve_references()
        changed.update(segmenter.ENCODERS[encoder.name].PUBLISHED[size])
        assert changed == encoder


@pytest.mark.parametrize(
    ("naming", "names", "stem"),
    [
        ("timm", ("conv1.0", "bn1"), "deep"),
        ("torchvision_resnet", ("stem.0", "stem.1"), "deep"),
        ("torchvision_resnet", ("conv1", "bn1"), "plain"),
    ],
    ids=["timm", "mmseg", "torchvision"],
)
def test_the_stem_is_told_by_its_convolution(naming, names, stem):
    names = (*names, "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1")
    tensors = {f"{name}.weight": NewTensor((8, 3, 3, 3), np.dtype(np.float32), None) for name in names}
    assert namings.recognise(tensors, "X.pth").name == naming
    assert resnet_rows.NAMES[naming].sizes(Shapes("X.pth", tensors), "").fields["stem"] == stem


RESNET = ["backbone.layer1.0.conv2.weight", "backbone.layer1.0.conv3.weight", "backbone.layer2.0.conv3.weight"]
OTHERS = {
    "PSPNet": [*RESNET, "decode_head.psp_modules.0.1.conv.weight", "decode_head.bottleneck.conv.weight"],
    "DeepLabV3+": [
        *RESNET,
        "decode_head.aspp_modules.0.conv.weight",
        "decode_head.c1_bottleneck.conv.weight",
        "decode_head.sep_bottleneck.0.depthwise_conv.conv.weight",
    ],
    "an FCN with NonLocal": [*RESNET, "decode_head.convs.0.conv.weight", "decode_head.nl_block.g.conv.weight"],
    "MaskFormer": ["backbone.res2.0.conv1.weight", "sem_seg_head.predictor.transformer.decoder.norm.weight"],
    "a plain ViT": [
        "backbone.pos_embed",
        "backbone.layers.0.attn.attn.in_proj_weight",
        "decode_head.convs.0.conv.bias",
    ],
    "SegNeXt": ["backbone.block1.0.attn.spatial_gating_unit.conv0.bias", "decode_head.squeeze.conv.weight"],
    "InternImage-H": [
        "backbone.levels.0.blocks.0.dcn.center_feature_scale_proj_weight",
        "backbone.levels.0.blocks.0.res_post_norm1.0.weight",
    ],
    "InternImage-G": ["levels.0.blocks.0.dcn.center_feature_scale_proj_weight", "levels.0.norm.0.weight"],
    "ResNet-18 or ResNet-34": [RESNET[0], "backbone.layer2.0.conv2.weight", "decode_head.convs.0.conv.weight"],
}
"""Some names of other networks, by their title's beginning."""


def assert_is(names, title):
    tensors = {name: NewTensor((1,), np.dtype(np.float32), None) for name in names}
    with pytest.raises(UserError, match=re.escape(f"A.pth holds {title}") + ".*, which this program does not have"):
        sizes.read(CheckpointFile("A.pth", tensors))


@pytest.mark.parametrize("title", OTHERS)
def test_another_network_is_not_taken_for_one_of_ours(title):
    assert_is(OTHERS[title], title)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("convnext_atto", "ConvNeXt"),
        ("vit_tiny_patch16_224", "a plain ViT"),
        ("resnet18", "ResNet-18"),
        ("resnest14d", "ResNeSt"),
        ("swinv2_cr_tiny_224", "Swin V2"),
        ("swinv2_tiny_window8_256", "Swin V2"),
    ],
)
def test_timms_other_networks(name, title):
    assert_is(library("timm").create_model(name).state_dict(), title)


def transformers_others(transformers):
    """Small modules of other networks, by their titles."""
    tiny = dict(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8)
    four = dict(embed_dim=8, depths=[1] * 4, num_heads=[1] * 4)
    swin = transformers.SwinConfig(**four, out_features=[f"stage{number}" for number in range(1, 5)])
    convnext = transformers.ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4, out_features=swin.out_features)
    yield "ConvNeXt", transformers.ConvNextModel(convnext)
    over = transformers.UperNetConfig(backbone_config=convnext, hidden_size=8, use_auxiliary_head=False)
    yield "ConvNeXt", transformers.UperNetForSemanticSegmentation(over)
    basic = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic")
    yield "ResNet-18", transformers.ResNetForImageClassification(basic)
    yield "a plain ViT", transformers.ViTForImageClassification(transformers.ViTConfig(**tiny))
    yield "a plain ViT", transformers.Dinov2Model(transformers.Dinov2Config(**tiny))
    yield "Swin V2", transformers.Swinv2Model(transformers.Swinv2Config(**four))
    head = transformers.DetrConfig(d_model=8, encoder_layers=1, decoder_layers=1)
    config = transformers.MaskFormerConfig(backbone_config=swin, decoder_config=head)
    yield "MaskFormer", transformers.MaskFormerForInstanceSegmentation(config)


def test_transformers_other_networks(tmp_path):
    for title, module in transformers_others(library("transformers")):
        module.save_pretrained(tmp_path)
        for names in (module.state_dict(), checkpoint_file.read(tmp_path).tensors):
            assert_is(names, title)


def test_none_of_ours_is_taken_for_another():
    lists = [listed(path.stem) for path in KEYS.glob("*.csv")]
    for network, (name, naming) in itertools.product(NETWORKS, namings.NAMINGS.items()):
        if fits(network, name):
            lists.append([row.theirs for row in naming.rows(NETWORKS[network], ())])
    assert len(lists) > 60 and not any(map(other_networks.title, lists))
