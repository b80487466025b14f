"""Rows of the names that Hugging Face's transformers gives to BEiT and Mask2Former; see `name_maps.py`.

Files on the hub have the names of version 4. Version 5 still writes these, but has other names in memory.
Source: huggingface/transformers models/beit/modeling_beit.py, models/mask2former/modeling_mask2former.py.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ml_collections import ConfigDict

from vspw_jax.interop.name_maps import (
    BLOCKS,
    CLASSES_AND_NONE,
    LINEAR,
    POSITIONS,
    SAME,
    UPERNET_NAMES,
    Row,
    attention,
    class_head,
    conv,
    conv_1x1,
    deformable_attention,
    linear,
    norm,
    upernet,
    upsampling,
)

BEIT_4: dict[str, Any] = {
    "block": "encoder.layer.{}",
    "qkv": ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "table": "attention.attention.relative_position_bias.relative_position_bias_table",
    "proj": "attention.output.dense",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "shared table": "encoder.relative_position_bias.relative_position_bias_table",
    "upsampling": ("fpn1.0", "fpn1.1", "fpn1.3", "fpn2.0"),
    "upernet": {**UPERNET_NAMES, "classifier": "classifier"},
}
BEIT_5: dict[str, Any] = {
    "block": "layers.{}",
    "qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "table": "relative_position_bias.relative_position_bias_table",
    "proj": "attention.o_proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
    "shared table": "shared_position_bias.relative_position_bias_table",
    "upsampling": ("fpn.fpn1.conv_transpose1", "fpn.fpn1.normalization", "fpn.fpn1.conv_transpose2", "fpn.fpn2"),
    "upernet": {
        "pooled": "psp_modules.blocks.{}.conv",
        "bottleneck": "psp_bottleneck",
        "conv": "convolution",
        "norm": "normalization",
        "classifier": "classifier",
    },
}


def version(names: Iterable[str]) -> dict[str, Any]:
    """`BEIT_4` or `BEIT_5`, by the names in a file; without names `BEIT_4`, as in files."""
    return BEIT_5 if any(re.search(r"layers\.\d+\.attention\.q_proj\.", name) for name in names) else BEIT_4


def beit_block(ours: str, theirs: str, index: tuple[int, ...], names: dict[str, Any]) -> Iterator[Row]:
    """Rows of a BEiT block; `names` is BEIT_4 or BEIT_5."""
    for number, part in enumerate(names["qkv"]):
        yield Row(f"{ours}/attn/qkv/kernel", f"{theirs}.{part}.weight", LINEAR, index, our_part=(number, 3))
    query, _, value = names["qkv"]
    yield Row(f"{ours}/attn/q_bias", f"{theirs}.{query}.bias", SAME, index)
    yield Row(f"{ours}/attn/v_bias", f"{theirs}.{value}.bias", SAME, index)
    table = f"{theirs}.{names['table']}"
    yield Row(f"{ours}/attn/relative_position_bias_table", table, SAME, index, counts=POSITIONS)
    yield from linear(f"{ours}/attn/proj", f"{theirs}.{names['proj']}", index)
    yield from linear(f"{ours}/mlp/fc1", f"{theirs}.{names['fc1']}", index)
    yield from linear(f"{ours}/mlp/fc2", f"{theirs}.{names['fc2']}", index)
    for number, name in enumerate(("before", "after"), start=1):
        yield from norm(f"{ours}/norm{number}", f"{theirs}.layernorm_{name}", index)
        yield Row(f"{ours}/gamma_{number}", f"{theirs}.lambda_{number}", SAME, index)


def beit(theirs: str, names: dict[str, Any], config: ConfigDict) -> Iterator[Row]:
    """Rows of a BEiT alone; `theirs` is "beit." or nothing, `names` is `BEIT_4` or `BEIT_5`."""
    yield Row("encoder/cls_token", f"{theirs}embeddings.cls_token")
    yield from conv("encoder/patch_embed/proj", f"{theirs}embeddings.patch_embeddings.projection")
    for number, (ours, index) in enumerate(BLOCKS[config.encoder.name]("encoder", config.encoder)):
        yield from beit_block(ours, theirs + names["block"].format(number), index, names)


def beit_upernet(names: dict[str, Any], config: ConfigDict) -> Iterator[Row]:
    """Rows of BeitForSemanticSegmentation beside its BEiT: necks and both heads."""
    yield from upsampling("encoder", *names["upsampling"])
    yield from upernet("decoder", "decode_head", config.decoder, names=names["upernet"])


def pixel_decoder(ours: str, theirs: str, config: ConfigDict) -> Iterator[Row]:
    """transformers' Mask2FormerPixelDecoder."""
    for level in range(3):
        yield from conv_1x1(f"{ours}/input_convs/{level}", f"{theirs}.input_projections.{level}.0")
        yield from norm(f"{ours}/input_norms/{level}", f"{theirs}.input_projections.{level}.1")
    for layer in range(config.encoder_layers):
        here, there, index = f"{ours}/encoder", f"{theirs}.encoder.layers.{layer}", (layer,)
        yield from deformable_attention(f"{here}/attn", f"{there}.self_attn", index)
        yield from linear(f"{here}/fc1", f"{there}.fc1", index)
        yield from linear(f"{here}/fc2", f"{there}.fc2", index)
        yield from norm(f"{here}/norm1", f"{there}.self_attn_layer_norm", index)
        yield from norm(f"{here}/norm2", f"{there}.final_layer_norm", index)
    yield Row(f"{ours}/level_encoding", f"{theirs}.level_embed")
    yield from conv_1x1(f"{ours}/lateral_conv", f"{theirs}.adapter_1.0", bias=False)
    yield from norm(f"{ours}/lateral_norm", f"{theirs}.adapter_1.1")
    yield from conv(f"{ours}/output_conv", f"{theirs}.layer_1.0", bias=False)
    yield from norm(f"{ours}/output_norm", f"{theirs}.layer_1.1")
    yield from conv_1x1(f"{ours}/mask_feature", f"{theirs}.mask_projection")


def transformer(ours: str, theirs: str, config: ConfigDict) -> Iterator[Row]:
    """transformers' Mask2FormerTransformerModule."""
    for layer in range(config.decoder_layers):
        here, there = f"{ours}/layers/{layer}", f"{theirs}.decoder.layers.{layer}"
        yield from attention(f"{here}/cross_attn", f"{there}.cross_attn")
        for name, key in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
            yield from linear(f"{here}/self_attn/{name}", f"{there}.self_attn.{key}")
        yield from linear(f"{here}/fc1", f"{there}.fc1")
        yield from linear(f"{here}/fc2", f"{there}.fc2")
        yield from norm(f"{here}/norm1", f"{there}.cross_attn_layer_norm")
        yield from norm(f"{here}/norm2", f"{there}.self_attn_layer_norm")
        yield from norm(f"{here}/norm3", f"{there}.final_layer_norm")
    yield from norm(f"{ours}/post_norm", f"{theirs}.decoder.layernorm")
    yield Row(f"{ours}/query_embed", f"{theirs}.queries_embedder.weight")
    yield Row(f"{ours}/query_feat", f"{theirs}.queries_features.weight")
    yield Row(f"{ours}/level_embed", f"{theirs}.level_embed.weight")
    for number in range(3):
        yield from linear(f"{ours}/mask_embed/{number}", f"{theirs}.decoder.mask_predictor.mask_embedder.{number}.0")


def mask2former(theirs: str, config: ConfigDict) -> Iterator[Row]:
    """Rows of Mask2FormerForUniversalSegmentation's decoder; names of its model start with `theirs`, "model."."""
    yield from pixel_decoder("decoder/pixel_decoder", f"{theirs}pixel_level_module.decoder", config.decoder)
    yield from transformer("decoder", f"{theirs}transformer_module", config.decoder)
    yield from class_head(linear("decoder/cls_embed", "class_predictor"), CLASSES_AND_NONE)
