"""The rows of `name_maps.py` for Hugging Face's BeitForSemanticSegmentation: BEiT with UperNet.

transformers 5 renamed its parameters; files published before, and those it saves itself, keep the names of version 4.
Source: huggingface/transformers models/beit/modeling_beit.py and conversion_mapping.py.
"""

from vspw_jax.interop import name_maps
from vspw_jax.interop.name_maps import Row

VERSION_4 = {
    "layers": "encoder.layer",
    "query": "attention.attention.query",
    "key": "attention.attention.key",
    "value": "attention.attention.value",
    "proj": "attention.output.dense",
    "table": "attention.attention.relative_position_bias.relative_position_bias_table",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "upsampling": ("fpn1.0", "fpn1.1", "fpn1.3", "fpn2.0"),
    "upernet": {**name_maps.UPERNET_NAMES, "classifier": "classifier"},
}
VERSION_5 = {
    "layers": "layers",
    "query": "attention.q_proj",
    "key": "attention.k_proj",
    "value": "attention.v_proj",
    "proj": "attention.o_proj",
    "table": "relative_position_bias.relative_position_bias_table",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
    "upsampling": ("fpn.fpn1.conv_transpose1", "fpn.fpn1.normalization", "fpn.fpn1.conv_transpose2", "fpn.fpn2"),
    "upernet": {
        "pooled": "psp_modules.blocks.{}.conv",
        "bottleneck": "psp_bottleneck",
        "conv": "convolution",
        "norm": "normalization",
        "classifier": "classifier",
    },
}


def block(ours, theirs, index, names):
    """One transformer block; queries, keys and values are three tensors there."""
    yield from name_maps.norm(f"{ours}/norm1", f"{theirs}.layernorm_before", index)
    for number, name in enumerate(("query", "key", "value")):
        key = f"{theirs}.{names[name]}.weight"
        yield Row(f"{ours}/attn/qkv/kernel", key, name_maps.LINEAR, index, our_part=(number, 3))
    yield Row(f"{ours}/attn/q_bias", f"{theirs}.{names['query']}.bias", name_maps.SAME, index)
    yield Row(f"{ours}/attn/v_bias", f"{theirs}.{names['value']}.bias", name_maps.SAME, index)
    yield Row(f"{ours}/attn/relative_position_bias_table", f"{theirs}.{names['table']}", name_maps.SAME, index)
    yield from name_maps.linear(f"{ours}/attn/proj", f"{theirs}.{names['proj']}", index)
    yield from name_maps.norm(f"{ours}/norm2", f"{theirs}.layernorm_after", index)
    for name in ("fc1", "fc2"):
        yield from name_maps.linear(f"{ours}/mlp/{name}", f"{theirs}.{names[name]}", index)
    for number in (1, 2):
        yield Row(f"{ours}/gamma_{number}", f"{theirs}.lambda_{number}", name_maps.SAME, index)


def encoder(ours, theirs, config, names):
    """Rows of `encoders/beit_pyramid.py`; `theirs` is "beit"."""
    yield Row(f"{ours}/cls_token", f"{theirs}.embeddings.cls_token")
    there = f"{theirs}.embeddings.patch_embeddings.projection"
    yield Row(f"{ours}/patch_embed/proj/kernel", f"{there}.weight", name_maps.CONV)
    yield Row(f"{ours}/patch_embed/proj/bias", f"{there}.bias")
    for number, (here, index) in enumerate(name_maps.beit_pyramid_blocks(ours, config)):
        yield from block(here, f"{theirs}.{names['layers']}.{number}", index, names)
    yield from name_maps.upsampling(ours, *names["upsampling"])


def segmenter(config, names):
    """All rows of a BEiT with UperNet (`config.model`), named as in `VERSION_4` or `VERSION_5`."""
    yield from encoder("encoder", "beit", config.encoder, names)
    yield from name_maps.upernet("decoder", "decode_head", config.decoder, names=names["upernet"])
