"""Names of ViT-Adapter's tensors in PyTorch files; see `beit_rows.py`.

Source: czczup/ViT-Adapter segmentation/mmseg_custom/models/backbones/{beit_adapter,adapter_modules}.py.
"""

from collections.abc import Collection, Iterator
from typing import Any

from ml_collections import ConfigDict

from vspw_jax.models.encoders import beit_rows
from vspw_jax.models.torch_names import EncoderNames, EncoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import (
    SAME,
    Row,
    batch_norm,
    conv,
    conv_1x1,
    deformable_attention,
    linear,
    norm,
    upsample,
)


def places(ours: str, config: ConfigDict) -> list[tuple[str, tuple[int, ...]]]:
    """See `beit_rows.Places`."""
    depth = config.depth // 4
    return [(f"{ours}/interactions/blocks", divmod(block, depth)) for block in range(config.depth)]


def extractor(ours: str, theirs: str, index: tuple[int, ...] = ()) -> Iterator[Row]:
    """Rows of an extractor."""
    yield from norm(f"{ours}/query_norm", f"{theirs}.query_norm", index)
    yield from norm(f"{ours}/feature_norm", f"{theirs}.feat_norm", index)
    yield from deformable_attention(f"{ours}/attn", f"{theirs}.attn", index)
    yield from norm(f"{ours}/ffn_norm", f"{theirs}.ffn_norm", index)
    yield from linear(f"{ours}/ffn/fc1", f"{theirs}.ffn.fc1", index)
    yield from conv(f"{ours}/ffn/depthwise", f"{theirs}.ffn.dwconv.dwconv", index)
    yield from linear(f"{ours}/ffn/fc2", f"{theirs}.ffn.fc2", index)


def injector(ours: str, theirs: str, index: tuple[int, ...]) -> Iterator[Row]:
    """Rows of an injector."""
    yield from norm(f"{ours}/query_norm", f"{theirs}.query_norm", index)
    yield from norm(f"{ours}/feature_norm", f"{theirs}.feat_norm", index)
    yield from deformable_attention(f"{ours}/attn", f"{theirs}.attn", index)
    yield Row(f"{ours}/gamma", f"{theirs}.gamma", SAME, index)


def prior(ours: str, theirs: str) -> Iterator[Row]:
    """Rows of the spatial prior module."""
    for number in range(3):
        yield from conv(f"{ours}/stem/{number}/conv", f"{theirs}.stem.{3 * number}", bias=False)
        yield from batch_norm(f"{ours}/stem/{number}/norm", f"{theirs}.stem.{3 * number + 1}")
        yield from conv(f"{ours}/convs/{number}/conv", f"{theirs}.conv{number + 2}.0", bias=False)
        yield from batch_norm(f"{ours}/convs/{number}/norm", f"{theirs}.conv{number + 2}.1")
    for number in range(4):
        yield from conv_1x1(f"{ours}/projections/{number}", f"{theirs}.fc{number + 1}")


def mmseg(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in the mmseg checkpoints of czczup/ViT-Adapter."""
    yield from beit_rows.unilm(places)(ours, theirs, config, names)
    yield Row(f"{ours}/level_embed", f"{theirs}level_embed")
    yield from prior(f"{ours}/prior", f"{theirs}spm")
    for number in range(4):
        here, there = f"{ours}/interactions", f"{theirs}interactions.{number}"
        yield from injector(f"{here}/injector", f"{there}.injector", (number,))
        yield from extractor(f"{here}/extractor", f"{there}.extractor", (number,))
    for number in range(config.extra_extractors):
        there = f"{theirs}interactions.3.extra_extractors.{number}"
        yield from extractor(f"{ours}/extra_extractors/{number}", there)
    yield from upsample(f"{ours}/up", f"{theirs}up")
    for number in range(4):
        yield from batch_norm(f"{ours}/norms/{number}", f"{theirs}norm{number + 1}")


def adapter_sizes(shapes: Shapes, theirs: str, dim: int) -> tuple[dict[str, Any], list[str]]:
    """(fields of an encoder's config that its adapter fixes, what had to be assumed)."""
    points, first = 4, f"{theirs}interactions.0.extractor"
    fields = dict(
        adapter_channels=shapes.size(f"{theirs}spm.stem.0.weight", 0),
        adapter_heads=shapes.size(f"{first}.attn.attention_weights.weight", 0) // points,
        adapter_points=points,
        adapter_value_ratio=shapes.size(f"{first}.attn.value_proj.weight", 0) / dim,
        adapter_ffn_ratio=shapes.size(f"{first}.ffn.fc1.weight", 0) / dim,
        extra_extractors=shapes.count(theirs + "interactions.3.extra_extractors.{}.query_norm.weight"),
    )
    return fields, [f"{points} sampling points a head in the adapter"]


def mmseg_sizes(shapes: Shapes, theirs: str) -> EncoderSizes:
    """In the mmseg checkpoints of czczup/ViT-Adapter."""
    fields, image_size = beit_rows.unilm_sizes(shapes, theirs)
    adapter, assumed = adapter_sizes(shapes, theirs, fields["dim"])
    fields |= dict(layer_scale=1e-6, drop_path=0.3) | adapter
    return EncoderSizes(fields, image_size, [*assumed, "stochastic depth 0.3 in training"])


ADAPTER_TOLD = ("adapter_channels", "adapter_heads", "adapter_value_ratio", "adapter_ffn_ratio", "extra_extractors")
TOLD = (*beit_rows.TOLD, *ADAPTER_TOLD)
_PYRAMID_LEFT_OUT = {r"^fpn": "the plain BEiT's pyramid; the adapter takes its place"}

NAMES: EncoderNames = {
    "mmseg": Names(("spm.",), mmseg, mmseg_sizes, TOLD, left_out=beit_rows.INDEX_LEFT_OUT),
    "hugging_face_mask2former": Names(
        (beit_rows.CLASS_TOKEN, f"beit.{beit_rows.CLASS_TOKEN}"),
        beit_rows.hugging_face(places),
        whole=False,
        left_out=beit_rows.INDEX_LEFT_OUT | _PYRAMID_LEFT_OUT,
    ),
    **beit_rows.alone(places),
}
