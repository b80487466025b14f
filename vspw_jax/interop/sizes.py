"""Reads a network's config off the shapes of a checkpoint that holds a whole network.

This file uses mmseg's names of tensors; `_names` gives Hugging Face's name of each.

A new encoder or decoder is one function and one line in `ENCODERS` or `DECODERS`.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.interop import hugging_face_names
from vspw_jax.interop.checkpoint_file import CheckpointFile
from vspw_jax.interop.misfits import source_window
from vspw_jax.models.encoders import beit

TABLE = "backbone.blocks.0.attn.relative_position_bias_table"
BLOCK = r"backbone\.blocks\.(\d+)\.norm1\.weight$"

EncoderSizes = tuple[dict[str, Any], tuple[int, int], list[str]]
"""config.encoder, image size, what was assumed."""
DecoderSizes = tuple[dict[str, Any], int, list[str]]
"""config.decoder, number of real classes, what was assumed."""


def _names(tensors: Collection[str]) -> dict[str, str]:
    """A file's own names by mmseg's, where they differ."""
    if "beit.embeddings.cls_token" not in tensors:
        return {}
    names = hugging_face_names.version(tensors)
    first = "beit." + names["block"].format(0)
    shared = "beit." + names["shared table"]
    return {
        "backbone.cls_token": "beit.embeddings.cls_token",
        TABLE: shared if shared in tensors else f"{first}.{names['table']}",
        BLOCK: re.escape(f"beit.{names['block']}.layernorm_before.weight").replace(r"\{\}", r"(\d+)") + "$",
        "backbone.blocks.0.mlp.fc1.weight": f"{first}.{names['fc1']}.weight",
        "decode_head.conv_seg.weight": "decode_head.classifier.weight",
        "auxiliary_head.conv_seg.weight": "auxiliary_head.classifier.weight",
    }


class _Shapes:
    """Shapes of a file's tensors by mmseg's names; a UserError for one that is not there or has no such axis."""

    def __init__(self, file: CheckpointFile, names: dict[str, str]) -> None:
        self.file, self._names = file, names

    def name(self, name: str) -> str:
        """The file's own name; for a pattern, the pattern of the file's own names."""
        return self._names.get(name, name)

    def size(self, name: str, axis: int) -> int:
        name = self.name(name)
        tensor = self.file.tensors.get(name)
        if tensor is None or len(tensor.shape) <= axis or not tensor.shape[axis]:
            found = "is missing" if tensor is None else f"has shape {tensor.shape}"
            raise UserError(f"{self.file.path}: {name} {found}, so the network's sizes cannot be read off the file.")
        return tensor.shape[axis]

    def count(self, pattern: str) -> int:
        """How many numbers, from 0 on without a gap, the pattern's group has in the file."""
        numbers = {int(match[1]) for match in map(re.compile(self.name(pattern)).match, self.file.tensors) if match}
        return next(number for number in range(len(numbers) + 1) if number not in numbers)


def beit_sizes(shapes: _Shapes) -> tuple[dict[str, Any], tuple[int, int]]:
    """(fields of config.encoder that a BEiT fixes, image size)."""
    dim = shapes.size("backbone.cls_token", 2)
    table, num_rows = shapes.name(TABLE), shapes.size(TABLE, 0)
    window = source_window(num_rows, shapes.file.tensors.get(table.replace("bias_table", "index")), None)
    if window is None:
        raise UserError(
            f"{shapes.file.path}: {table} has {num_rows} rows, which no square window has, and there is no "
            "relative_position_index that tells the window."
        )
    fields: dict[str, Any] = dict(
        dim=dim,
        depth=shapes.count(BLOCK),
        heads=shapes.size(TABLE, 1),
        mlp_ratio=shapes.size("backbone.blocks.0.mlp.fc1.weight", 0) / dim,
    )
    return fields, (beit.PATCH * window[0], beit.PATCH * window[1])


def beit_pyramid(shapes: _Shapes) -> EncoderSizes:
    """Of a plain BEiT."""
    fields, image_size = beit_sizes(shapes)
    depth = fields["depth"]
    # As published for 12 and 24 blocks, else after every quarter.
    sixths = (2, 3, 4, 6) if depth % 6 == 0 else (1.5, 3, 4.5, 6)
    out_blocks = tuple(int(depth * part / 6) for part in sixths)
    fields |= dict(name="beit", layer_scale=1e-6, drop_path=0.2, out_blocks=out_blocks)
    assumed = [f"maps after blocks {', '.join(map(str, out_blocks))}", "stochastic depth 0.2 in training"]
    return fields, image_size, assumed


def vit_adapter(shapes: _Shapes) -> EncoderSizes:
    """Of a ViT-Adapter."""
    fields, image_size = beit_sizes(shapes)
    points, extractor = 4, "backbone.interactions.0.extractor"
    fields |= dict(
        name="vit_adapter",
        layer_scale=1e-6,
        drop_path=0.3,
        adapter_channels=shapes.size("backbone.spm.stem.0.weight", 0),
        adapter_heads=shapes.size(f"{extractor}.attn.attention_weights.weight", 0) // points,
        adapter_points=points,
        adapter_value_ratio=shapes.size(f"{extractor}.attn.value_proj.weight", 0) / fields["dim"],
        adapter_ffn_ratio=shapes.size(f"{extractor}.ffn.fc1.weight", 0) / fields["dim"],
        extra_extractors=shapes.count(r"backbone\.interactions\.3\.extra_extractors\.(\d+)\.query_norm\.weight$"),
    )
    return fields, image_size, [f"{points} sampling points a head in the adapter", "stochastic depth 0.3 in training"]


def mask2former(shapes: _Shapes) -> DecoderSizes:
    """Of a Mask2Former."""
    points, levels = 4, 3
    head = "decode_head.pixel_decoder.encoder.layers.0"
    fields = dict(
        name="mask2former",
        dim=shapes.size("decode_head.query_feat.weight", 1),
        heads=shapes.size(f"{head}.attentions.0.attention_weights.weight", 0) // (levels * points),
        points=points,
        encoder_ffn_dim=shapes.size(f"{head}.ffns.0.layers.0.0.weight", 0),
        ffn_dim=shapes.size("decode_head.transformer_decoder.layers.0.ffns.0.layers.0.0.weight", 0),
        encoder_layers=shapes.count(r"decode_head\.pixel_decoder\.encoder\.layers\.(\d+)\.norms\.0\.weight$"),
        decoder_layers=shapes.count(r"decode_head\.transformer_decoder\.layers\.(\d+)\.norms\.0\.weight$"),
        num_queries=shapes.size("decode_head.query_feat.weight", 0),
        norm_groups=32,
    )
    assumed = [
        f"{points} sampling points a head in the pixel decoder",
        f"{fields['heads']} heads in the transformer decoder, as in the pixel decoder",
        f"{fields['norm_groups']} groups in its group norms",
    ]
    return fields, shapes.size("decode_head.cls_embed.weight", 0) - 1, assumed


def upernet(shapes: _Shapes) -> DecoderSizes:
    """Of a UperNet."""
    scales = (1, 2, 3, 6)
    fields = dict(
        name="upernet",
        dim=shapes.size("decode_head.conv_seg.weight", 1),
        pool_scales=scales,
        dropout=0.1,
        auxiliary_dim=shapes.size("auxiliary_head.conv_seg.weight", 1),
        auxiliary_level=2,
    )
    assumed = [f"pooling to {', '.join(map(str, scales))} bins a side", "an auxiliary head on the map at 1/16"]
    return fields, shapes.size("decode_head.conv_seg.weight", 0), assumed + ["drop-out 0.1 in training"]


ENCODERS = {"backbone.spm.": vit_adapter, "backbone.fpn1.": beit_pyramid, "beit.embeddings.": beit_pyramid}
DECODERS = {"decode_head.pixel_decoder.": mask2former, "decode_head.psp_modules.": upernet}
"""By a start of names that only this encoder or decoder has."""

Sizes = TypeVar("Sizes", EncoderSizes, DecoderSizes)


def _choose(table: Mapping[str, Callable[[_Shapes], Sizes]], file: CheckpointFile) -> Callable[[_Shapes], Sizes]:
    for start, function in table.items():
        if any(name.startswith(start) for name in file.tensors):
            return function
    raise UserError(f"{file.path}: none of its names starts with {' or '.join(table)}, so its network is not known.")


def read(file: CheckpointFile) -> tuple[ConfigDict, list[str]]:
    """(config.model, list of what was assumed) of a file with mmseg's or Hugging Face's names.

    Raises:
      UserError: a network that is not known, or sizes that cannot be told.
    """
    shapes = _Shapes(file, _names(file.tensors))
    encoder, image_size, assumed = _choose(ENCODERS, file)(shapes)
    decoder, num_classes, more = _choose(DECODERS, file)(shapes)
    config = ConfigDict(dict(image_size=image_size, num_classes=num_classes, dtype="float32", remat="none"))
    config.encoder, config.decoder = ConfigDict(encoder), ConfigDict(decoder)
    return config, assumed + more
