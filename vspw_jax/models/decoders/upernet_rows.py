"""Names of UperNet's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: open-mmlab/mmsegmentation mmseg/models/decode_heads/{uper_head,fcn_head}.py; huggingface/transformers
models/beit/modeling_beit.py (BeitForSemanticSegmentation) and models/upernet/modeling_upernet.py.
"""

import dataclasses
from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from vspw_jax.models.decoders.fcn_rows import AUXILIARY, auxiliary_sizes, classifier
from vspw_jax.models.torch_names import DecoderNames, DecoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import CONV, CONV_1X1, Layout, Row, conv_norm


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a code calls the parts of UperNet; {} is the number of the pooling scale."""

    pooled: str = "psp_modules.{}.1"
    bottleneck: str = "bottleneck"
    conv: str = "conv"
    norm: str = "bn"
    classifier: str = "conv_seg"


MMSEG = Parts()
HUGGING_FACE_4 = Parts(classifier="classifier")
HUGGING_FACE_OVER_BACKBONE = Parts(norm="batch_norm", classifier="classifier")
"""In files of UperNetForSemanticSegmentation."""
HUGGING_FACE_5 = Parts("psp_modules.blocks.{}.conv", "psp_bottleneck", "convolution", "normalization", "classifier")
"""In memory of version 5 of transformers; files have the names of version 4."""


def upernet(ours: str, theirs: str, config: ConfigDict, parts: Parts) -> Iterator[Row]:
    """Rows of both heads."""

    def module(here: str, there: str, layout: Layout) -> Iterator[Row]:
        return conv_norm(f"{ours}/{here}", f"{there}.{parts.conv}", f"{there}.{parts.norm}", layout)

    for number in range(len(config.pool_scales)):
        yield from module(f"pooled_convs/{number}", theirs + parts.pooled.format(number), CONV_1X1)
    yield from module("bottleneck", theirs + parts.bottleneck, CONV)
    for number in range(3):
        yield from module(f"lateral_convs/{number}", f"{theirs}lateral_convs.{number}", CONV_1X1)
        yield from module(f"fpn_convs/{number}", f"{theirs}fpn_convs.{number}", CONV)
    yield from module("fpn_bottleneck", f"{theirs}fpn_bottleneck", CONV)
    yield from classifier(f"{ours}/classifier", theirs + parts.classifier)
    if config.auxiliary_dim:
        yield from module("auxiliary_conv", f"{AUXILIARY}convs.0", CONV)
        yield from classifier(f"{ours}/auxiliary_classifier", AUXILIARY + parts.classifier)


def mmseg(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in mmsegmentation's checkpoints."""
    return upernet(ours, theirs, config, MMSEG)


def hugging_face(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in Hugging Face's BeitForSemanticSegmentation."""
    is_5 = any(name.startswith(theirs + HUGGING_FACE_5.bottleneck) for name in names)
    return upernet(ours, theirs, config, HUGGING_FACE_5 if is_5 else HUGGING_FACE_4)


def hugging_face_over_backbone(
    ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()
) -> Iterator[Row]:
    """Rows in Hugging Face's UperNetForSemanticSegmentation."""
    return upernet(ours, theirs, config, HUGGING_FACE_OVER_BACKBONE)


def _sizes(shapes: Shapes, theirs: str, parts: Parts) -> DecoderSizes:
    scales, weight = (1, 2, 3, 6), f"{parts.classifier}.weight"
    auxiliary, assumed = auxiliary_sizes(shapes, AUXILIARY + weight)
    fields = dict(dim=shapes.size(theirs + weight, 1), pool_scales=scales, dropout=0.1, **auxiliary)
    assumed = [f"pooling to {', '.join(map(str, scales))} bins a side", *assumed, "drop-out 0.1 in training"]
    return DecoderSizes(fields, shapes.size(theirs + weight, 0), assumed)


def mmseg_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In mmsegmentation's checkpoints."""
    return _sizes(shapes, theirs, MMSEG)


def hugging_face_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In Hugging Face's BeitForSemanticSegmentation, of either version."""
    return _sizes(shapes, theirs, HUGGING_FACE_4)


TOLD = ("dim", "auxiliary_dim")
MARKS = ("fpn_bottleneck.",)
NAMES: DecoderNames = {
    "mmseg": Names(MARKS, mmseg, mmseg_sizes, TOLD),
    "mmseg_1": Names(MARKS, mmseg, mmseg_sizes, TOLD),
    "hugging_face_backbone_upernet": Names(MARKS, hugging_face_over_backbone, hugging_face_sizes, TOLD),
    "hugging_face_upernet": Names(MARKS, hugging_face, hugging_face_sizes, TOLD),
}
