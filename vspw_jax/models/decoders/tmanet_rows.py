"""Names of TMANet's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Source: wanghao9610/TMANet mmseg/models/decode_heads/tma_head.py and mmseg/models/utils/custom.py, a fork of
mmsegmentation, whose names all else has.
"""

from collections.abc import Collection, Iterator
from typing import Any

from ml_collections import ConfigDict

from vspw_jax.models.decoders import fcn_rows
from vspw_jax.models.torch_names import DecoderNames, DecoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import CONV, CONV_1X1, Layout, Row, conv_norm

MARK = "memory_key_conv."


def in_module(ours: str, theirs: str, layout: Layout) -> Iterator[Row]:
    """Rows of a `ConvNormRelu` that is mmcv's ConvModule there."""
    return conv_norm(ours, f"{theirs}.conv", f"{theirs}.bn", layout)


def attention(ours: str, theirs: str, past: int, bottleneck: str) -> Iterator[Row]:
    """Rows of a `TemporalMemoryAttention`; `bottleneck` is what its last layer is called there.

    There the layer's number comes before the place in the past.
    """
    for number, layout in enumerate((CONV_1X1, CONV)):
        for kind in ("key", "value"):
            yield from in_module(f"{ours}/query_{kind}/{number}", f"{theirs}query_{kind}_conv.{number}", layout)
            for place in range(past):
                name = f"{theirs}memory_{kind}_conv.{number}.{place}"
                yield from in_module(f"{ours}/memory_{kind}/{place}/{number}", name, layout)
    yield from in_module(f"{ours}/bottleneck", theirs + bottleneck, CONV)


def attention_sizes(shapes: Shapes, theirs: str) -> dict[str, Any]:
    """Fields of the attention."""
    past = shapes.count(f"{theirs}memory_key_conv.0.{{}}.conv.weight")
    widths = {f"{kind}_dim": shapes.size(f"{theirs}memory_{kind}_conv.0.0.conv.weight", 0) for kind in ("key", "value")}
    return {"past": past, "past_frames": "last", **widths}


def mmseg(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in the authors' checkpoints."""
    yield from attention(f"{ours}/temporal", theirs, config.past, "bottleneck")
    yield from fcn_rows.classifier(f"{ours}/classifier", f"{theirs}conv_seg")
    if config.auxiliary_dim:
        yield from fcn_rows.mmseg_head(f"{ours}/auxiliary", fcn_rows.AUXILIARY)


def mmseg_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In the authors' checkpoints."""
    weight = f"{theirs}conv_seg.weight"
    of_auxiliary, assumed = fcn_rows.auxiliary_sizes(shapes, f"{fcn_rows.AUXILIARY}conv_seg.weight")
    drops = dict(dropout=0.1, dropped="channels", auxiliary_dropout=0.1)
    fields = dict(**attention_sizes(shapes, theirs), dim=shapes.size(weight, 1), **drops, **of_auxiliary)
    assumed = [
        "the first place in the past for the oldest frame, as with the authors' random_select",
        *assumed,
        "drop-out 0.1 of channels in training",
    ]
    return DecoderSizes(fields, shapes.size(weight, 0), assumed)


NAMES: DecoderNames = {"mmseg": Names((MARK,), mmseg, mmseg_sizes)}
