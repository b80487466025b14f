"""Names of Mask2Former's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: czczup/ViT-Adapter segmentation/mmseg_custom/models/decode_heads/mask2former_head.py (the names of mmdet 2);
open-mmlab/mmdetection mmdet/models/layers/{msdeformattn_pixel_decoder,transformer/mask2former_layers}.py (mmdet 3);
facebookresearch/Mask2Former mask2former/modeling/{pixel_decoder/msdeformattn,meta_arch/mask_former_head}.py and
transformer_decoder/mask2former_transformer_decoder.py; huggingface/transformers
models/mask2former/modeling_mask2former.py.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Mapping

from ml_collections import ConfigDict

from vspw_jax.models.torch_names import DecoderNames, DecoderSizes, Names, Rows, Shapes
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

LEVELS = 3
TOLD = ("dim", "heads", "encoder_ffn_dim", "ffn_dim", "encoder_layers", "decoder_layers", "num_queries")


def separate_attention(ours: str, theirs: str) -> Iterator[Row]:
    """Rows of an attention whose projections are tensors of their own."""
    for here, there in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
        yield from linear(f"{ours}/{here}", f"{theirs}.{there}")


@dataclasses.dataclass(frozen=True)
class PixelForm:
    """What a code calls the parts of the pixel decoder; {} is the number of the level or the layer.

    Attributes:
      input, lateral, output: convolution and norm.
      attn, fc, norms: in a layer.
    """

    input: tuple[str, str] = ("input_convs.{}.conv", "input_convs.{}.gn")
    layer: str = "encoder.layers.{}"
    attn: str = "attentions.0"
    fc: tuple[str, str] = ("ffns.0.layers.0.0", "ffns.0.layers.1")
    norms: tuple[str, str] = ("norms.0", "norms.1")
    level_encoding: str = "level_encoding.weight"
    lateral: tuple[str, str] = ("lateral_convs.0.conv", "lateral_convs.0.gn")
    output: tuple[str, str] = ("output_convs.0.conv", "output_convs.0.gn")
    mask_feature: str = "mask_feature"


@dataclasses.dataclass(frozen=True)
class Form:
    """What a code calls the parts of Mask2Former; {} is the number of the layer.

    Attributes:
      pixels: how names of the pixel decoder start.
      layers: how names of the transformer decoder's layers start; the next four stand behind that.
      norms: of cross-attention, of self-attention and of the feed-forward layers.
      attention: makes the rows of self-attention.
      head: how the names of all that is left start, but for the class layer.
      embeddings: of query_embed, query_feat and level_embed.
      mask_embed: the three layers behind a query's mask.
    """

    pixels: str = "pixel_decoder."
    pixel: PixelForm = PixelForm()
    layers: str = "transformer_decoder.layers."
    cross_attn: str = "{}.attentions.0.attn"
    self_attn: str = "{}.attentions.1.attn"
    fc: tuple[str, str] = ("{}.ffns.0.layers.0.0", "{}.ffns.0.layers.1")
    norms: tuple[str, str, str] = ("{}.norms.0", "{}.norms.1", "{}.norms.2")
    attention: Callable[[str, str], Iterator[Row]] = attention
    head: str = ""
    post_norm: str = "transformer_decoder.post_norm"
    embeddings: tuple[str, str, str] = ("query_embed.weight", "query_feat.weight", "level_embed.weight")
    mask_embed: tuple[str, str, str] = ("mask_embed.0", "mask_embed.2", "mask_embed.4")
    cls_embed: str = "cls_embed"


MMDET_2 = Form()
MMDET_3 = Form(
    pixel=PixelForm(attn="self_attn", fc=("ffn.layers.0.0", "ffn.layers.1")),
    cross_attn="{}.cross_attn.attn",
    self_attn="{}.self_attn.attn",
    fc=("{}.ffn.layers.0.0", "{}.ffn.layers.1"),
)
HUGGING_FACE = Form(
    pixels="model.pixel_level_module.decoder.",
    pixel=PixelForm(
        input=("input_projections.{}.0", "input_projections.{}.1"),
        attn="self_attn",
        fc=("fc1", "fc2"),
        norms=("self_attn_layer_norm", "final_layer_norm"),
        level_encoding="level_embed",
        lateral=("adapter_1.0", "adapter_1.1"),
        output=("layer_1.0", "layer_1.1"),
        mask_feature="mask_projection",
    ),
    layers="model.transformer_module.decoder.layers.",
    cross_attn="{}.cross_attn",
    self_attn="{}.self_attn",
    fc=("{}.fc1", "{}.fc2"),
    norms=("{}.cross_attn_layer_norm", "{}.self_attn_layer_norm", "{}.final_layer_norm"),
    attention=separate_attention,
    head="model.transformer_module.",
    post_norm="decoder.layernorm",
    embeddings=("queries_embedder.weight", "queries_features.weight", "level_embed.weight"),
    mask_embed=(
        "decoder.mask_predictor.mask_embedder.0.0",
        "decoder.mask_predictor.mask_embedder.1.0",
        "decoder.mask_predictor.mask_embedder.2.0",
    ),
    cls_embed="class_predictor",
)
DETECTRON_2 = Form(
    pixels="pixel_decoder.",
    pixel=PixelForm(
        input=("input_proj.{}.0", "input_proj.{}.1"),
        layer="transformer.encoder.layers.{}",
        attn="self_attn",
        fc=("linear1", "linear2"),
        norms=("norm1", "norm2"),
        level_encoding="transformer.level_embed",
        lateral=("adapter_1", "adapter_1.norm"),
        output=("layer_1", "layer_1.norm"),
        mask_feature="mask_features",
    ),
    layers="predictor.transformer_",
    cross_attn="cross_attention_layers.{}.multihead_attn",
    self_attn="self_attention_layers.{}.self_attn",
    fc=("ffn_layers.{}.linear1", "ffn_layers.{}.linear2"),
    norms=("cross_attention_layers.{}.norm", "self_attention_layers.{}.norm", "ffn_layers.{}.norm"),
    head="predictor.",
    post_norm="decoder_norm",
    mask_embed=("mask_embed.layers.0", "mask_embed.layers.1", "mask_embed.layers.2"),
    cls_embed="predictor.class_embed",
)


def pixel_decoder(ours: str, theirs: str, config: ConfigDict, form: PixelForm) -> Iterator[Row]:
    """Rows of the deformable pixel decoder; `config` is `model.decoder`."""
    for level in range(LEVELS):
        yield from conv_1x1(f"{ours}/input_convs/{level}", theirs + form.input[0].format(level))
        yield from norm(f"{ours}/input_norms/{level}", theirs + form.input[1].format(level))
    for layer in range(config.encoder_layers):
        here, there, index = f"{ours}/encoder", theirs + form.layer.format(layer), (layer,)
        yield from deformable_attention(f"{here}/attn", f"{there}.{form.attn}", index)
        for number in range(2):
            yield from linear(f"{here}/fc{number + 1}", f"{there}.{form.fc[number]}", index)
            yield from norm(f"{here}/norm{number + 1}", f"{there}.{form.norms[number]}", index)
    yield Row(f"{ours}/level_encoding", theirs + form.level_encoding)
    yield from conv_1x1(f"{ours}/lateral_conv", theirs + form.lateral[0], bias=False)
    yield from norm(f"{ours}/lateral_norm", theirs + form.lateral[1])
    yield from conv(f"{ours}/output_conv", theirs + form.output[0], bias=False)
    yield from norm(f"{ours}/output_norm", theirs + form.output[1])
    yield from conv_1x1(f"{ours}/mask_feature", theirs + form.mask_feature)


def transformer(ours: str, theirs: str, config: ConfigDict, form: Form) -> Iterator[Row]:
    """Rows of the transformer decoder and of what makes masks of its queries."""
    for layer in range(config.decoder_layers):
        here = f"{ours}/layers/{layer}"
        there = lambda name, layer=layer: theirs + form.layers + name.format(layer)
        yield from attention(f"{here}/cross_attn", there(form.cross_attn))
        yield from form.attention(f"{here}/self_attn", there(form.self_attn))
        for number, name in enumerate(form.fc, start=1):
            yield from linear(f"{here}/fc{number}", there(name))
        for number, name in enumerate(form.norms, start=1):
            yield from norm(f"{here}/norm{number}", there(name))
    head = theirs + form.head
    yield from norm(f"{ours}/post_norm", head + form.post_norm)
    for name, their_name in zip(("query_embed", "query_feat", "level_embed"), form.embeddings, strict=True):
        yield Row(f"{ours}/{name}", head + their_name)
    for number, name in enumerate(form.mask_embed):
        yield from linear(f"{ours}/mask_embed/{number}", head + name)


def mask2former(ours: str, theirs: str, config: ConfigDict, form: Form) -> Iterator[Row]:
    """Rows of a Mask2Former in a form."""
    yield from pixel_decoder(f"{ours}/pixel_decoder", theirs + form.pixels, config, form.pixel)
    yield from transformer(ours, theirs, config, form)
    yield from class_head(linear(f"{ours}/cls_embed", theirs + form.cls_embed), CLASSES_AND_NONE)


def form_of(names: Collection[str], theirs: str, default: Form) -> Form:
    """The form in a file. Of detectron2's there are two; without names it is the one that its code loads.

    Its head gives names that are in a file without versions of modules, as its model zoo's, the prefix of the pixel
    decoder, whether they have it or not. So files that have it hold the versions, which ours do not.
    """
    if default is not DETECTRON_2:
        return default
    embed, feat, level = default.embeddings
    feat = "static_query.weight" if f"{theirs}{default.head}static_query.weight" in names else feat
    pixels = default.pixels if f"{theirs}{default.pixels}mask_features.weight" in names else ""
    return dataclasses.replace(default, pixels=pixels, embeddings=(embed, feat, level))


def rows(form: Form) -> Rows:
    """The rows in files of a form; see `torch_names.Rows`."""

    def of_file(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
        return mask2former(ours, theirs, config, form_of(names, theirs, form))

    return of_file


def sizes(shapes: Shapes, theirs: str, form: Form) -> DecoderSizes:
    """In files of a form."""
    form, points = form_of(shapes.tensors, theirs, form), 4
    pixels = theirs + form.pixels + form.pixel.layer
    first, layers, head = pixels.format(0), theirs + form.layers, theirs + form.head
    fields = dict(
        dim=shapes.size(head + form.embeddings[1], 1),
        heads=shapes.size(f"{first}.{form.pixel.attn}.attention_weights.weight", 0) // (LEVELS * points),
        points=points,
        encoder_ffn_dim=shapes.size(f"{first}.{form.pixel.fc[0]}.weight", 0),
        ffn_dim=shapes.size(f"{layers}{form.fc[0].format(0)}.weight", 0),
        encoder_layers=shapes.count(f"{pixels}.{form.pixel.norms[0]}.weight"),
        decoder_layers=shapes.count(f"{layers}{form.norms[0]}.weight"),
        num_queries=shapes.size(head + form.embeddings[1], 0),
        query_std=1.0,  # Of untrained queries.
        norm_groups=32,
    )
    assumed = [
        f"{points} sampling points a head in the pixel decoder",
        f"{fields['heads']} heads in the transformer decoder, as in the pixel decoder",
        f"{fields['norm_groups']} groups in its group norms",
    ]
    num_classes = shapes.size(f"{theirs}{form.cls_embed}.weight", 0) - 1
    return DecoderSizes(fields, num_classes, assumed)


def _names(marks: tuple[str, ...], form: Form, left_out: Mapping[str, str] | None = None) -> Names[DecoderSizes]:
    return Names(marks, rows(form), functools.partial(sizes, form=form), TOLD, left_out=left_out or {})


NAMES: DecoderNames = {
    "mmseg": _names(("pixel_decoder.",), MMDET_2, {r"^conv_seg\.": "a layer that older releases held and never used"}),
    "mmseg_1": _names(("pixel_decoder.",), MMDET_3),
    "hugging_face_mask2former": _names((HUGGING_FACE.pixels,), HUGGING_FACE),
    "detectron2": _names(("predictor.",), DETECTRON_2),
}
