"""Files of mmsegmentation 1 that it names otherwise than version 0: BEiT with UperNet, and mmdet 3's Mask2Former."""

import re

import numpy as np
import pytest

from tests.interop.conftest import (
    assert_reads,
    drawn,
    tiny_mask2former,
    tiny_resnet,
    tiny_swin,
    tiny_upernet,
    variables,
)
from vspw_jax.interop import checkpoint_file, convert
from vspw_jax.interop.stored_tensors import NewTensor

NETWORKS = {
    "beit, upernet": tiny_upernet(),
    "swin, mask2former": tiny_mask2former(tiny_swin()),
    "resnet, mask2former": tiny_mask2former(tiny_resnet("torchvision")),
}

LAYER = r"ffn\.layers\.(0\.0|1)\.(weight|bias)|norms\.\d\.(weight|bias)"
ATTENTION = r"(cross|self)_attn\.attn\.(in_proj_weight|in_proj_bias|out_proj\.(weight|bias))"
DEFORMABLE = r"self_attn\.(sampling_offsets|attention_weights|value_proj|output_proj)\.(weight|bias)"
MASK2FORMER = (
    rf"pixel_decoder\.(encoder\.layers\.\d\.({DEFORMABLE}|{LAYER})|input_convs\.\d\.(conv|gn)\.(weight|bias)"
    r"|level_encoding\.weight|(lateral|output)_convs\.0\.(conv\.weight|gn\.(weight|bias))|mask_feature\.(weight|bias))"
    rf"|transformer_decoder\.(layers\.\d\.({ATTENTION}|{LAYER})|post_norm\.(weight|bias))"
    r"|(query_embed|query_feat|level_embed)\.weight|cls_embed\.(weight|bias)|mask_embed\.[024]\.(weight|bias)"
)
"""By mmdet's mask2former_head.py, msdeformattn_pixel_decoder.py and mask2former_layers.py."""


def test_a_resnet_under_upernet_has_the_names_of_version_0(tmp_path):
    config = tiny_resnet("mmseg")
    config.encoder.output_stride, config.decoder = 32, tiny_upernet().decoder
    convert.save_torch(drawn(config), tmp_path / "A.pth")
    assert assert_reads(tmp_path / "A.pth", config) == "mmseg"


@pytest.mark.parametrize("network", NETWORKS)
def test_a_file_says_its_sizes(network, tmp_path):
    config = NETWORKS[network]
    convert.save_torch(drawn(config), tmp_path / "A.pth", "mmseg_1")
    assert assert_reads(tmp_path / "A.pth", config) == "mmseg_1"
    heads = [name for name in checkpoint_file.read(tmp_path / "A.pth").tensors if name.startswith("decode_head.")]
    if network.endswith("mask2former"):
        assert all(re.fullmatch(rf"decode_head\.({MASK2FORMER})", name) for name in heads)


def test_a_beit_of_its_zoo_and_one_that_its_converter_made(tmp_path):
    """The whole network comes back; of the BEiT alone the encoder starts but for its upsampling."""
    model = drawn(NETWORKS["beit, upernet"])
    convert.save_torch(model, tmp_path / "A.pth", "mmseg_1")
    arrays = {name: tensor.read() for name, tensor in checkpoint_file.read(tmp_path / "A.pth").tensors.items()}
    assert {"backbone.layers.0.ln1.weight", "neck.upsample_4x.1.running_var"} <= arrays.keys()
    loaded, fresh = variables(convert.load_torch(drawn(model.config, 1), tmp_path / "A.pth")), drawn(model.config, 2)
    for name, array in variables(model).items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)
    alone = {name: NewTensor(x.shape, x.dtype, lambda x=x: x) for name, x in arrays.items() if "backbone." in name}
    checkpoint_file.write(tmp_path / "B.pth", alone, None)
    initial = variables(fresh)
    started = variables(convert.load_torch(fresh, tmp_path / "B.pth"))
    for name, array in variables(model).items():
        is_read = name.startswith("encoder/") and "/fpn" not in name
        np.testing.assert_array_equal(started[name], array if is_read else initial[name], err_msg=name)
