"""Names of OCRNet's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: open-mmlab/mmsegmentation mmseg/models/decode_heads/{ocr_head,cascade_decode_head}.py;
HRNet/HRNet-Semantic-Segmentation lib/models/seg_hrnet_ocr.py, branch HRNet-OCR.
"""

from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from vspw_jax.models import folded_bias
from vspw_jax.models.decoders import fcn_rows, memory_rows
from vspw_jax.models.torch_names import DecoderNames, DecoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import CONV_1X1, Row, conv_norm

MMSEG_PARTS = {**memory_rows.PROJECTIONS, "joining": "bottleneck"}
"""Parts of the attention here, and in `1.object_context_block` there."""

HRNET_PARTS = {
    "query/0": ("object_context_block.f_pixel.0", "object_context_block.f_pixel.1.0"),
    "query/1": ("object_context_block.f_pixel.2", "object_context_block.f_pixel.3.0"),
    "key/0": ("object_context_block.f_object.0", "object_context_block.f_object.1.0"),
    "key/1": ("object_context_block.f_object.2", "object_context_block.f_object.3.0"),
    "value": ("object_context_block.f_down.0", "object_context_block.f_down.1.0"),
    "out": ("object_context_block.f_up.0", "object_context_block.f_up.1.0"),
    "joining": ("conv_bn_dropout.0", "conv_bn_dropout.1.0"),
}
"""The same, and convolution and norm in `ocr_distri_head` there."""


def mmseg(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in mmsegmentation's checkpoints, where the auxiliary head is the first of a cascade."""
    fcn_rows.check_form(config, "mmseg", align_corners=False)
    yield from fcn_rows.mmseg_head(f"{ours}/auxiliary", f"{theirs}0.", conv_size=config.auxiliary_size)
    bottleneck = f"{theirs}1.bottleneck"
    yield from conv_norm(f"{ours}/bottleneck", f"{bottleneck}.conv", f"{bottleneck}.bn")
    for here, name in MMSEG_PARTS.items():
        there = f"{theirs}1.object_context_block.{name}"
        yield from conv_norm(f"{ours}/attention/{here}", f"{there}.conv", f"{there}.bn", CONV_1X1)
    yield from fcn_rows.classifier(f"{ours}/classifier", f"{theirs}1.conv_seg")


def hrnet(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in HRNet's own checkpoints; UserError for a head that HRNet does not have."""
    fcn_rows.check_form(config, "hrnet", inputs="all", align_corners=True, auxiliary_size=1)
    yield from fcn_rows.hrnet_head(
        f"{ours}/auxiliary", f"{theirs}aux_head", config.auxiliary_dim, config.auxiliary_size
    )
    bottleneck = f"{theirs}conv3x3_ocr"
    yield from folded_bias.conv_bias_norm(f"{ours}/bottleneck", f"{bottleneck}.0", f"{bottleneck}.1", config.dim)
    for here, pair in HRNET_PARTS.items():
        conv, norm = (f"{theirs}ocr_distri_head.{name}" for name in pair)
        yield from conv_norm(f"{ours}/attention/{here}", conv, norm, CONV_1X1)
    yield from fcn_rows.classifier(f"{ours}/classifier", f"{theirs}cls_head")


def mmseg_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In mmsegmentation's checkpoints. Over an HRNet, and wherever all maps are joined, both heads read the same."""
    first, second = f"{theirs}0.", f"{theirs}1."
    joins = shapes.size(f"{first}convs.0.conv.weight", 1) == shapes.size(f"{second}bottleneck.conv.weight", 1)
    dropout = 0.0 if joins else 0.1
    fields = dict(
        inputs="all" if joins else "coarsest",
        align_corners=False,
        dim=shapes.size(f"{second}conv_seg.weight", 1),
        key_dim=shapes.size(f"{second}object_context_block.value_project.conv.weight", 0),
        dropout=dropout,
        dropped="channels",
        auxiliary_dim=shapes.size(f"{first}conv_seg.weight", 1),
        auxiliary_size=shapes.size(f"{first}convs.0.conv.weight", 2),
        auxiliary_level=2,
        auxiliary_dropout=dropout,
    )
    num_classes = shapes.size(f"{second}conv_seg.weight", 0)
    return DecoderSizes(fields, num_classes, [f"drop-out {dropout} of channels in training"])


def hrnet_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In HRNet's own checkpoints."""
    fields = dict(
        inputs="all",
        align_corners=True,
        dim=shapes.size(f"{theirs}cls_head.weight", 1),
        key_dim=shapes.size(f"{theirs}ocr_distri_head.object_context_block.f_down.0.weight", 0),
        dropout=0.05,
        dropped="channels",
        auxiliary_dim=shapes.size(f"{theirs}aux_head.0.weight", 0),
        auxiliary_size=shapes.size(f"{theirs}aux_head.0.weight", 2),
        auxiliary_level=2,
        auxiliary_dropout=0.0,
    )
    num_classes = shapes.size(f"{theirs}cls_head.weight", 0)
    assumed = ["corners aligned where maps are resized", "drop-out 0.05 of channels in training"]
    return DecoderSizes(fields, num_classes, assumed)


TOLD = ("dim", "key_dim", "auxiliary_dim", "auxiliary_size")
NAMES: DecoderNames = {
    "hrnet": Names(
        ("ocr_distri_head.",), hrnet, hrnet_sizes, TOLD, left_out=folded_bias.left_out(r"aux_head\.0|conv3x3_ocr\.0")
    ),
    "mmseg": Names(("1.object_context_block.",), mmseg, mmseg_sizes, TOLD),
}
