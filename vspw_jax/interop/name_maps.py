"""Which parameter here is which tensor of a PyTorch checkpoint: one invertible table.

A row says where a tensor stands here (slash-joined path, index into stacked axes, slice of a joined tensor) and there
(key), and how its axes lie there. Rows are made by walking the network, so that both directions use the same table.
Layouts are those of `reference/checkpoint_keys` (czczup/ViT-Adapter's mmseg checkpoints).
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a tensor's axes lie in PyTorch: `to_torch` transposes ours, `pad` appends axes of length 1."""

    to_torch: tuple | None = None
    pad: int = 0

    def export(self, array):
        """Our array as PyTorch holds it."""
        array = array if self.to_torch is None else array.transpose(self.to_torch)
        return array.reshape(*array.shape, *(1,) * self.pad)

    def load(self, tensor):
        """A PyTorch tensor as we hold it."""
        array = tensor.reshape(tensor.shape[: tensor.ndim - self.pad])
        return array if self.to_torch is None else array.transpose(np.argsort(self.to_torch))


SAME = Layout()
LINEAR = Layout((1, 0))
CONV_1X1 = Layout((1, 0), pad=2)
CONV = Layout((3, 2, 0, 1))
UPSAMPLE = Layout((0, 3, 1, 2))
"""ConvTranspose2d: (in, out, ky, kx) there, (in, ky, kx, out) here."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor. `index` picks from stacked axes here; `part` (number, count) is a slice of the first axis there."""

    ours: str
    theirs: str
    layout: Layout = SAME
    index: tuple = ()
    part: tuple | None = None


def _named(ours, theirs, index, kernel_layout, bias=True, kernel="kernel"):
    yield Row(f"{ours}/{kernel}", f"{theirs}.weight", kernel_layout, index)
    if bias:
        yield Row(f"{ours}/bias", f"{theirs}.bias", SAME, index)


def linear(ours, theirs, index=(), bias=True):
    return _named(ours, theirs, index, LINEAR, bias)


def norm(ours, theirs, index=()):
    return _named(ours, theirs, index, SAME, kernel="scale")


def batch_norm(ours, theirs, index=()):
    yield from norm(ours, theirs, index)
    yield Row(f"{ours}/mean", f"{theirs}.running_mean", SAME, index)
    yield Row(f"{ours}/var", f"{theirs}.running_var", SAME, index)


def deformable_attention(ours, theirs, index=()):
    for name in ("sampling_offsets", "attention_weights", "value_proj", "output_proj"):
        yield from linear(f"{ours}/{name}", f"{theirs}.{name}", index)


def beit_block(ours, theirs, index):
    yield from norm(f"{ours}/norm1", f"{theirs}.norm1", index)
    yield from linear(f"{ours}/attn/qkv", f"{theirs}.attn.qkv", index, bias=False)
    for name in ("q_bias", "v_bias", "relative_position_bias_table"):
        yield Row(f"{ours}/attn/{name}", f"{theirs}.attn.{name}", SAME, index)
    yield from linear(f"{ours}/attn/proj", f"{theirs}.attn.proj", index)
    yield from norm(f"{ours}/norm2", f"{theirs}.norm2", index)
    yield from linear(f"{ours}/mlp/fc1", f"{theirs}.mlp.fc1", index)
    yield from linear(f"{ours}/mlp/fc2", f"{theirs}.mlp.fc2", index)
    for name in ("gamma_1", "gamma_2"):
        yield Row(f"{ours}/{name}", f"{theirs}.{name}", SAME, index)


def adapter_extractor(ours, theirs, index=()):
    yield from norm(f"{ours}/query_norm", f"{theirs}.query_norm", index)
    yield from norm(f"{ours}/feature_norm", f"{theirs}.feat_norm", index)
    yield from deformable_attention(f"{ours}/attn", f"{theirs}.attn", index)
    yield from norm(f"{ours}/ffn_norm", f"{theirs}.ffn_norm", index)
    yield from linear(f"{ours}/ffn/fc1", f"{theirs}.ffn.fc1", index)
    yield from _named(f"{ours}/ffn/depthwise", f"{theirs}.ffn.dwconv.dwconv", index, CONV)
    yield from linear(f"{ours}/ffn/fc2", f"{theirs}.ffn.fc2", index)


def adapter_prior(ours, theirs):
    for number in range(3):
        yield from _named(f"{ours}/stem/{number}/conv", f"{theirs}.stem.{3 * number}", (), CONV, bias=False)
        yield from batch_norm(f"{ours}/stem/{number}/norm", f"{theirs}.stem.{3 * number + 1}")
        yield from _named(f"{ours}/convs/{number}/conv", f"{theirs}.conv{number + 2}.0", (), CONV, bias=False)
        yield from batch_norm(f"{ours}/convs/{number}/norm", f"{theirs}.conv{number + 2}.1")
    for number in range(4):
        yield from _named(f"{ours}/projections/{number}", f"{theirs}.fc{number + 1}", (), CONV_1X1)


def vit_adapter(ours, theirs, config):
    """Rows of `encoders/vit_adapter.py`; `theirs` is "backbone" in mmseg checkpoints."""
    yield Row(f"{ours}/cls_token", f"{theirs}.cls_token")
    yield Row(f"{ours}/level_embed", f"{theirs}.level_embed")
    yield from _named(f"{ours}/patch_embed/proj", f"{theirs}.patch_embed.proj", (), CONV)
    yield from adapter_prior(f"{ours}/prior", f"{theirs}.spm")
    depth = config.depth // 4
    for number in range(4):
        here, there, index = f"{ours}/interactions", f"{theirs}.interactions.{number}", (number,)
        yield from norm(f"{here}/injector/query_norm", f"{there}.injector.query_norm", index)
        yield from norm(f"{here}/injector/feature_norm", f"{there}.injector.feat_norm", index)
        yield from deformable_attention(f"{here}/injector/attn", f"{there}.injector.attn", index)
        yield Row(f"{here}/injector/gamma", f"{there}.injector.gamma", SAME, index)
        yield from adapter_extractor(f"{here}/extractor", f"{there}.extractor", index)
        for block in range(depth):
            yield from beit_block(f"{here}/blocks", f"{theirs}.blocks.{number * depth + block}", (number, block))
    for number in range(config.extra_extractors):
        there = f"{theirs}.interactions.3.extra_extractors.{number}"
        yield from adapter_extractor(f"{ours}/extra_extractors/{number}", there)
    yield from _named(f"{ours}/up", f"{theirs}.up", (), UPSAMPLE)
    for number in range(4):
        yield from batch_norm(f"{ours}/norms/{number}", f"{theirs}.norm{number + 1}")


def attention(ours, theirs):
    """torch.nn.MultiheadAttention, whose projections of query, key and value are one tensor."""
    for number, name in enumerate(("query", "key", "value")):
        yield Row(f"{ours}/{name}/kernel", f"{theirs}.in_proj_weight", LINEAR, part=(number, 3))
        yield Row(f"{ours}/{name}/bias", f"{theirs}.in_proj_bias", SAME, part=(number, 3))
    yield from linear(f"{ours}/out", f"{theirs}.out_proj")


def pixel_decoder(ours, theirs, config):
    for level in range(3):
        yield from _named(f"{ours}/input_convs/{level}", f"{theirs}.input_convs.{level}.conv", (), CONV_1X1)
        yield from norm(f"{ours}/input_norms/{level}", f"{theirs}.input_convs.{level}.gn")
    for layer in range(config.encoder_layers):
        here, there, index = f"{ours}/encoder", f"{theirs}.encoder.layers.{layer}", (layer,)
        yield from deformable_attention(f"{here}/attn", f"{there}.attentions.0", index)
        yield from linear(f"{here}/fc1", f"{there}.ffns.0.layers.0.0", index)
        yield from linear(f"{here}/fc2", f"{there}.ffns.0.layers.1", index)
        yield from norm(f"{here}/norm1", f"{there}.norms.0", index)
        yield from norm(f"{here}/norm2", f"{there}.norms.1", index)
    yield Row(f"{ours}/level_encoding", f"{theirs}.level_encoding.weight")
    yield from _named(f"{ours}/lateral_conv", f"{theirs}.lateral_convs.0.conv", (), CONV_1X1, bias=False)
    yield from norm(f"{ours}/lateral_norm", f"{theirs}.lateral_convs.0.gn")
    yield from _named(f"{ours}/output_conv", f"{theirs}.output_convs.0.conv", (), CONV, bias=False)
    yield from norm(f"{ours}/output_norm", f"{theirs}.output_convs.0.gn")
    yield from _named(f"{ours}/mask_feature", f"{theirs}.mask_feature", (), CONV_1X1)


def mask2former(ours, theirs, config):
    """Rows of `decoders/mask2former.py`; `theirs` is "decode_head" in mmseg checkpoints."""
    yield from pixel_decoder(f"{ours}/pixel_decoder", f"{theirs}.pixel_decoder", config)
    for layer in range(config.decoder_layers):
        here, there = f"{ours}/layers/{layer}", f"{theirs}.transformer_decoder.layers.{layer}"
        yield from attention(f"{here}/cross_attn", f"{there}.attentions.0.attn")
        yield from attention(f"{here}/self_attn", f"{there}.attentions.1.attn")
        yield from linear(f"{here}/fc1", f"{there}.ffns.0.layers.0.0")
        yield from linear(f"{here}/fc2", f"{there}.ffns.0.layers.1")
        for number in range(3):
            yield from norm(f"{here}/norm{number + 1}", f"{there}.norms.{number}")
    yield from norm(f"{ours}/post_norm", f"{theirs}.transformer_decoder.post_norm")
    for name in ("query_embed", "query_feat", "level_embed"):
        yield Row(f"{ours}/{name}", f"{theirs}.{name}.weight")
    yield from linear(f"{ours}/cls_embed", f"{theirs}.cls_embed")
    for number in range(3):
        yield from linear(f"{ours}/mask_embed/{number}", f"{theirs}.mask_embed.{2 * number}")


def hugging_face_pixel_decoder(ours, theirs, config):
    """transformers' Mask2FormerPixelDecoder."""
    for level in range(3):
        yield from _named(f"{ours}/input_convs/{level}", f"{theirs}.input_projections.{level}.0", (), CONV_1X1)
        yield from norm(f"{ours}/input_norms/{level}", f"{theirs}.input_projections.{level}.1")
    for layer in range(config.encoder_layers):
        here, there, index = f"{ours}/encoder", f"{theirs}.encoder.layers.{layer}", (layer,)
        yield from deformable_attention(f"{here}/attn", f"{there}.self_attn", index)
        yield from linear(f"{here}/fc1", f"{there}.fc1", index)
        yield from linear(f"{here}/fc2", f"{there}.fc2", index)
        yield from norm(f"{here}/norm1", f"{there}.self_attn_layer_norm", index)
        yield from norm(f"{here}/norm2", f"{there}.final_layer_norm", index)
    yield Row(f"{ours}/level_encoding", f"{theirs}.level_embed")
    yield from _named(f"{ours}/lateral_conv", f"{theirs}.adapter_1.0", (), CONV_1X1, bias=False)
    yield from norm(f"{ours}/lateral_norm", f"{theirs}.adapter_1.1")
    yield from _named(f"{ours}/output_conv", f"{theirs}.layer_1.0", (), CONV, bias=False)
    yield from norm(f"{ours}/output_norm", f"{theirs}.layer_1.1")
    yield from _named(f"{ours}/mask_feature", f"{theirs}.mask_projection", (), CONV_1X1)


def hugging_face_transformer(ours, theirs, config):
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
