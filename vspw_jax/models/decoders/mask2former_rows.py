"""Names of Mask2Former's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: czczup/ViT-Adapter segmentation/mmseg_custom/models/decode_heads/mask2former_head.py; huggingface/transformers
models/mask2former/modeling_mask2former.py.
"""

from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from vspw_jax.models.torch_names import DecoderNames, DecoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import (
    CLASSES_AND_NONE,
    Row,
    attention,
    class_head,
    conv,
    conv_1x1,
    deformable_attention,
    linear,
    norm,
)


def pixel_decoder(ours: str, theirs: str, config: ConfigDict) -> Iterator[Row]:
    """Rows of the deformable pixel decoder; `config` is `model.decoder`."""
    for level in range(3):
        yield from conv_1x1(f"{ours}/input_convs/{level}", f"{theirs}.input_convs.{level}.conv")
        yield from norm(f"{ours}/input_norms/{level}", f"{theirs}.input_convs.{level}.gn")
    for layer in range(config.encoder_layers):
        here, there, index = f"{ours}/encoder", f"{theirs}.encoder.layers.{layer}", (layer,)
        yield from deformable_attention(f"{here}/attn", f"{there}.attentions.0", index)
        yield from linear(f"{here}/fc1", f"{there}.ffns.0.layers.0.0", index)
        yield from linear(f"{here}/fc2", f"{there}.ffns.0.layers.1", index)
        yield from norm(f"{here}/norm1", f"{there}.norms.0", index)
        yield from norm(f"{here}/norm2", f"{there}.norms.1", index)
    yield Row(f"{ours}/level_encoding", f"{theirs}.level_encoding.weight")
    yield from conv_1x1(f"{ours}/lateral_conv", f"{theirs}.lateral_convs.0.conv", bias=False)
    yield from norm(f"{ours}/lateral_norm", f"{theirs}.lateral_convs.0.gn")
    yield from conv(f"{ours}/output_conv", f"{theirs}.output_convs.0.conv", bias=False)
    yield from norm(f"{ours}/output_norm", f"{theirs}.output_convs.0.gn")
    yield from conv_1x1(f"{ours}/mask_feature", f"{theirs}.mask_feature")


def mmseg(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in the mmseg checkpoints of czczup/ViT-Adapter."""
    yield from pixel_decoder(f"{ours}/pixel_decoder", f"{theirs}pixel_decoder", config)
    for layer in range(config.decoder_layers):
        here, there = f"{ours}/layers/{layer}", f"{theirs}transformer_decoder.layers.{layer}"
        yield from attention(f"{here}/cross_attn", f"{there}.attentions.0.attn")
        yield from attention(f"{here}/self_attn", f"{there}.attentions.1.attn")
        yield from linear(f"{here}/fc1", f"{there}.ffns.0.layers.0.0")
        yield from linear(f"{here}/fc2", f"{there}.ffns.0.layers.1")
        for number in range(3):
            yield from norm(f"{here}/norm{number + 1}", f"{there}.norms.{number}")
    yield from norm(f"{ours}/post_norm", f"{theirs}transformer_decoder.post_norm")
    for name in ("query_embed", "query_feat", "level_embed"):
        yield Row(f"{ours}/{name}", f"{theirs}{name}.weight")
    yield from class_head(linear(f"{ours}/cls_embed", f"{theirs}cls_embed"), CLASSES_AND_NONE)
    for number in range(3):
        yield from linear(f"{ours}/mask_embed/{number}", f"{theirs}mask_embed.{2 * number}")


def hugging_face_pixel_decoder(ours: str, theirs: str, config: ConfigDict) -> Iterator[Row]:
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


def hugging_face_transformer(ours: str, theirs: str, config: ConfigDict) -> Iterator[Row]:
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


def hugging_face(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in Hugging Face's Mask2FormerForUniversalSegmentation. The class layer stands beside its model."""
    yield from hugging_face_pixel_decoder(f"{ours}/pixel_decoder", f"{theirs}pixel_level_module.decoder", config)
    yield from hugging_face_transformer(ours, f"{theirs}transformer_module", config)
    yield from class_head(linear(f"{ours}/cls_embed", "class_predictor"), CLASSES_AND_NONE)


def mmseg_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In the mmseg checkpoints of czczup/ViT-Adapter."""
    points, levels = 4, 3
    pixels, layers = f"{theirs}pixel_decoder.encoder.layers", f"{theirs}transformer_decoder.layers"
    fields = dict(
        dim=shapes.size(f"{theirs}query_feat.weight", 1),
        heads=shapes.size(f"{pixels}.0.attentions.0.attention_weights.weight", 0) // (levels * points),
        points=points,
        encoder_ffn_dim=shapes.size(f"{pixels}.0.ffns.0.layers.0.0.weight", 0),
        ffn_dim=shapes.size(f"{layers}.0.ffns.0.layers.0.0.weight", 0),
        encoder_layers=shapes.count(pixels + ".{}.norms.0.weight"),
        decoder_layers=shapes.count(layers + ".{}.norms.0.weight"),
        num_queries=shapes.size(f"{theirs}query_feat.weight", 0),
        norm_groups=32,
    )
    assumed = [
        f"{points} sampling points a head in the pixel decoder",
        f"{fields['heads']} heads in the transformer decoder, as in the pixel decoder",
        f"{fields['norm_groups']} groups in its group norms",
    ]
    return DecoderSizes(fields, shapes.size(f"{theirs}cls_embed.weight", 0) - 1, assumed)


NAMES: DecoderNames = {
    "mmseg": Names(
        ("pixel_decoder.",),
        mmseg,
        mmseg_sizes,
        left_out={r"^conv_seg\.": "a layer that older releases held and never used"},
    ),
    "hugging_face_mask2former": Names(("pixel_level_module.decoder.",), hugging_face),
}
