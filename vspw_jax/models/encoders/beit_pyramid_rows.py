"""Names of the plain BEiT's tensors in PyTorch files; see `beit_rows.py`.

Sources: microsoft/unilm beit/semantic_segmentation/backbone/beit.py; open-mmlab/mmsegmentation
mmseg/models/necks/featurepyramid.py; huggingface/transformers models/beit/modeling_beit.py
(BeitForSemanticSegmentation).
"""

import math
from collections.abc import Collection, Iterator
from typing import Any

from ml_collections import ConfigDict

from vspw_jax.models.encoders import beit_rows
from vspw_jax.models.torch_names import EncoderNames, EncoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import Row, batch_norm, upsample

UPSAMPLING = ("fpn1.0", "fpn1.1", "fpn1.3", "fpn2.0")
UPSAMPLING_5 = ("fpn.fpn1.conv_transpose1", "fpn.fpn1.normalization", "fpn.fpn1.conv_transpose2", "fpn.fpn2")
"""The layers before the maps at 1/4 and 1/8; in memory of version 5 of transformers they have other names."""
NECK = ("neck.upsample_4x.0", "neck.upsample_4x.1", "neck.upsample_4x.3", "neck.upsample_2x.0")
"""In mmsegmentation 1.x they stand beside the BEiT."""


def places(ours: str, config: ConfigDict) -> list[tuple[str, tuple[int, ...]]]:
    """See `beit_rows.Places`."""
    run = math.gcd(*config.out_blocks)
    return [(f"{ours}/blocks", divmod(block, run)) for block in range(config.depth)]


def upsampling(ours: str, first: str, norm: str, second: str, third: str) -> Iterator[Row]:
    """Rows of the upsampling layers."""
    yield from upsample(f"{ours}/fpn1/first", first)
    yield from batch_norm(f"{ours}/fpn1/norm", norm)
    yield from upsample(f"{ours}/fpn1/second", second)
    yield from upsample(f"{ours}/fpn2", third)


def mmseg(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in microsoft/unilm's mmseg checkpoints."""
    yield from beit_rows.unilm(places)(ours, theirs, config, names)
    yield from upsampling(ours, *(theirs + name for name in UPSAMPLING))


def mmseg_1(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in the checkpoints of mmsegmentation's own model zoo."""
    yield from beit_rows.unilm(places, beit_rows.MMSEG_1)(ours, theirs, config, names)
    yield from upsampling(ours, *NECK)


def hugging_face(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in Hugging Face's BeitForSemanticSegmentation. The upsampling stands beside the BEiT, not in it."""
    yield from beit_rows.hugging_face(places)(ours, theirs, config, names)
    is_5 = beit_rows.version(names) is beit_rows.VERSION_5
    yield from upsampling(ours, *(UPSAMPLING_5 if is_5 else UPSAMPLING))


def published_out_blocks(depth: int) -> tuple[int, ...]:
    """After how many blocks the maps are taken: as published for 12 and 24 blocks, else after every quarter."""
    sixths = (2, 3, 4, 6) if depth % 6 == 0 else (1.5, 3, 4.5, 6)
    return tuple(int(depth * part / 6) for part in sixths)


def _sizes(fields: dict[str, Any], image_size: tuple[int, int]) -> EncoderSizes:
    """Given what the BEiT fixes."""
    out_blocks = published_out_blocks(fields["depth"])
    fields = fields | dict(layer_scale=1e-6, drop_path=0.2, out_blocks=out_blocks)
    assumed = [f"maps after blocks {', '.join(map(str, out_blocks))}", "stochastic depth 0.2 in training"]
    return EncoderSizes(fields, image_size, assumed)


def mmseg_sizes(shapes: Shapes, theirs: str) -> EncoderSizes:
    """In microsoft/unilm's mmseg checkpoints, and in mmsegmentation's."""
    return _sizes(*beit_rows.unilm_sizes(shapes, theirs))


def hugging_face_sizes(shapes: Shapes, theirs: str) -> EncoderSizes:
    """In Hugging Face's BeitForSemanticSegmentation."""
    return _sizes(*beit_rows.hugging_face_sizes(shapes, theirs))


TOLD = beit_rows.TOLD
NAMES: EncoderNames = {
    "mmseg": Names(("fpn1.",), mmseg, mmseg_sizes, TOLD, left_out=beit_rows.INDEX_LEFT_OUT),
    "mmseg_1": Names((beit_rows.MMSEG_1_MARK,), mmseg_1, mmseg_sizes, TOLD, left_out=beit_rows.INDEX_LEFT_OUT),
    "hugging_face_upernet": Names(
        (beit_rows.CLASS_TOKEN,), hugging_face, hugging_face_sizes, TOLD, left_out=beit_rows.INDEX_LEFT_OUT
    ),
    **beit_rows.alone(places),
}
