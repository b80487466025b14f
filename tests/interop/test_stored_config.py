"""The config in a checkpoint of mmsegmentation tells networks apart whose tensors are alike."""

import pytest

from tests.interop.conftest import (
    drawn,
    tiny_fcn,
    tiny_hrnet,
    tiny_resnet,
    tiny_segformer,
    tiny_swin,
    tiny_upernet,
    written,
)
from tests.interop.test_torch_files import tensors_of
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert, sizes, stored_config, torch_files

CONFIG = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    pretrained='open-mmlab://resnet101_v1c',
    backbone=dict(
        type={type!r},
        depth=101,
        out_indices=(0, 1, 2, 3),{backbone}
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        norm_eval=False),
    decode_head=dict(
        type='ASPPHead',
        in_index=3,{head}
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=dict(type='FCNHead', in_index=2, align_corners=True, dilation=6),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(769, 769), stride=(513, 513)))
dataset_type = 'CityscapesDataset'
train_pipeline = [dict(type='Resize', ratio_range=(0.5, 2.0)), dict(type='Pad', pad_val=-1)]
"""
"""As mmcv writes it."""

D8 = "dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1), style='pytorch', contract_dilation=True,"
D16 = "dilations=(1, 1, 1, 2), strides=[1, 2, 2, 1], style='pytorch', contract_dilation=True,"
ASPP, ASPP_D16 = "dilations=(1, 12, 24, 36), align_corners=False,", "dilations=(1, 6, 12, 18), align_corners=False,"


def text(backbone="", head="", kind="ResNetV1c"):
    return CONFIG.format(type=kind, backbone=backbone, head=head)


def of_resnet(output_stride, decoder=None):
    model = tiny_resnet("mmseg")
    model.encoder.output_stride = output_stride
    model.decoder = decoder or model.decoder
    return model


def file_of(model, config, folder, place="config"):
    """A checkpoint of the network with this text in its meta."""
    convert.save_torch(drawn(model), folder / "A.pth")
    torch_files.write(folder / "B.pth", tensors_of(written(folder / "A.pth")), "state_dict", {"meta": {place: config}})
    return folder / "B.pth"


ALIKE = {
    "deeplabv3_r101-d8": (of_resnet(8), text(D8, ASPP), 8, (12, 24, 36)),
    "deeplabv3_r101-d16": (of_resnet(8), text(D16, ASPP_D16), 16, (6, 12, 18)),
    "of ones": (of_resnet(8), text(D8 + "multi_grid=(1, 1, 1),", ASPP), 8, (12, 24, 36)),
    "of mmdet": (of_resnet(8), text(kind="mmdet.ResNet"), 32, (12, 24, 36)),
    "fcn_r101-d8": (tiny_fcn("mmseg"), text(D8, "num_convs=2, align_corners=True,"), 8, None),
    "upernet_r101": (of_resnet(32, tiny_upernet().decoder), text(head="pool_scales=(1, 2, 3, 6),"), 32, None),
    "swin": (tiny_swin(), text("strides=(4, 2, 2, 2), dilations=(1, 1, 1, 1),", "", "SwinTransformer"), None, None),
    "segformer": (tiny_segformer("mmseg"), text("strides=[4, 2, 2, 2],", "", "MixVisionTransformer"), None, None),
    "hrnet": (tiny_hrnet(), text(kind="HRNet"), None, None),
    "no Python": (of_resnet(8), "configs/a b.py\n" + text(D16, ASPP_D16), 8, (12, 24, 36)),
    "another text": (of_resnet(8), "model = 3", 8, (12, 24, 36)),
    "other values": (of_resnet(8), text("strides=dict(), dilations=None, multi_grid=4,", "dilations='x',"), 32, None),
    "nested": (of_resnet(8), "model=" + "dict(backbone=" * 5000, 8, (12, 24, 36)),
    "too long": (of_resnet(8), text(D16, ASPP_D16) + "#" * stored_config.LONGEST, 8, (12, 24, 36)),
}
"""A network, a config, and the output stride and the dilations that are read."""
UNTOLD = ("no Python", "another text", "nested", "too long")


@pytest.mark.parametrize(("name", "place"), [*((name, "config") for name in ALIKE), ("deeplabv3_r101-d16", "cfg")])
def test_a_network_is_read_with_what_its_config_says(name, place, tmp_path, capsys):
    model, config, output_stride, dilations = ALIKE[name]
    path = file_of(model, config, tmp_path, place)
    read, assumed = sizes.read(checkpoint_file.read(path))
    assert read.encoder.get("output_stride") == output_stride
    assert dilations is None or read.decoder.dilations == dilations
    assert any("output stride" in text for text in assumed) == (name in UNTOLD)
    convert.load_torch(drawn(read, seed=1), path)
    assert ("with corners aligned, by its own config" in capsys.readouterr().out) == (name == "fcn_r101-d8")


UNLIKE = {
    "mg124": (of_resnet(16), text(D16 + "multi_grid=(1, 2, 4),", ASPP_D16), r"config says multi_grid=\(1, 2, 4\)\. No"),
    "fcn-d6": (tiny_fcn("mmseg"), text(D16, "dilation=6, align_corners=False,"), "config says dilation=6 in the head"),
    "caffe": (of_resnet(8), text("style='caffe',"), "config says style='caffe'"),
    "not contracted": (of_resnet(8), text(D8.replace("True", "False"), ASPP), "config says contract_dilation=False"),
    "strides of others": (
        of_resnet(8),
        text("strides=(1, 1, 1, 1),"),
        r"config says strides=\(1, 1, 1, 1\), dilations=",
    ),
    "aligned": (tiny_swin(), text("", "align_corners=True,", "SwinTransformer"), "config says align_corners=True"),
    "aligned, joined": (tiny_hrnet(), text("", "align_corners=True,", "HRNet"), "config says align_corners=True"),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_a_network_that_none_here_is_is_refused(name, tmp_path):
    model, config, message = UNLIKE[name]
    with pytest.raises(UserError, match=message):
        convert.model_from_torch(file_of(model, config, tmp_path))


def test_a_recipe_with_another_dilation_is_told_the_flags(tmp_path):
    path = file_of(of_resnet(8), text(D16, ASPP_D16), tmp_path)
    with pytest.raises(UserError) as error:
        convert.load_torch(drawn(of_resnet(8), seed=1), path)
    flags = "--config.model.encoder.output_stride=16 --config.model.decoder.dilations='(6, 12, 18)'"
    assert f"has encoder.output_stride=8, decoder.dilations=(12, 24, 36). Set {flags}." in str(error.value)
