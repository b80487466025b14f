"""A file of another network than the recipe's is named as what it is, with the flags that the recipe needs for it."""

import itertools
import re

import numpy as np
import pytest

from configs import baseline, deeplabv3, upernet, upernet_swin
from tests.interop.conftest import KEYS, listed
from tests.interop.test_namings import NETWORKS, fits
from tests.torch_libraries import library
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, differences, namings, other_networks, sizes
from vspw_jax.interop.checkpoint_file import CheckpointFile
from vspw_jax.interop.stored_tensors import NewTensor
from vspw_jax.models.encoders import resnet_rows
from vspw_jax.models.torch_names import Shapes

SWIN_B = (
    "Its encoder, a swin, has dim 128, depths (2, 2, 18, 2); the recipe has dim 96, depths (2, 2, 6, 2). Set "
    "--config.model.encoder.dim=128 --config.model.encoder.depths='(2, 2, 18, 2)'."
)
CASES = {
    "timm_swin_base_patch4_window7_224": (upernet_swin, [SWIN_B]),
    "transformers_swin_base_w7_backbone_ondisk": (upernet_swin, [SWIN_B]),
    "mmseg_upernet_swin_b_w7_ade20k": (
        upernet,
        [
            "Its encoder is a swin, the recipe's is a beit.",
            "Its decoder, a upernet, has dim 512; the recipe has dim 1024. Set --config.model.decoder.dim=512.",
        ],
    ),
    "torchvision_resnet50": (
        deeplabv3,
        [
            "Its encoder, a resnet, has stem plain, depths (3, 4, 6, 3); the recipe has stem deep, depths "
            "(3, 4, 23, 3). Set --config.model.encoder.stem=plain --config.model.encoder.depths='(3, 4, 6, 3)'."
        ],
    ),
    "mmseg_deeplabv3_r101v1c_d8_ade20k": (deeplabv3, []),
    "beitv2_large": (upernet, []),
    "mask2former_896_ade20k": (
        baseline,
        [
            "Its decoder, a mask2former, has dim 1024, heads 32; the recipe has dim 256, heads 8. Set "
            "--config.model.decoder.dim=1024 --config.model.decoder.heads=32."
        ],
    ),
}
"""By released list of tensors: the recipe, and what is said of them."""


@pytest.mark.parametrize("name", CASES)
def test_another_size_and_another_family_are_said(name):
    recipe, said = CASES[name]
    config = recipe.get_config().model
    if config.encoder.name == "swin":
        config.encoder.update(dim=96, depths=(2, 2, 6, 2))
    if config.encoder.name == "vit_adapter":
        config.decoder.update(dim=256, heads=8)
    tensors = {tensor: NewTensor(shape, np.dtype(np.float32), None) for tensor, shape in listed(name).items()}
    file = CheckpointFile(name, tensors)
    assert list(differences.sentences(config, file, namings.recognise(tensors, name))) == said


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
