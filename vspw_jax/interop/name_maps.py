"""Which parameter here is which tensor of a PyTorch checkpoint: one invertible table.

"Here" is this codebase, "there" is the file. A row says where a tensor stands here (slash-joined path, index into
stacked axes, slice of a joined tensor) and there (key, slice of a joined tensor), and how its axes lie there. Rows are
made by walking the network; both directions use the same table. A new encoder or decoder is one function of rows and
one line in `ENCODERS` or `DECODERS`; `namings.py` says which files there are. Key layouts: czczup/ViT-Adapter's mmseg
checkpoints.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a tensor's axes lie in PyTorch: `to_torch` transposes ours, `pad` appends axes of length 1."""

    to_torch: tuple[int, ...] | None = None
    pad: int = 0

    def export(self, array: np.ndarray) -> np.ndarray:
        """A view of our array as PyTorch holds it."""
        array = array if self.to_torch is None else array.transpose(self.to_torch)
        return array[(..., *(None,) * self.pad)]

    def export_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that our array of `shape` has in PyTorch."""
        return (*(shape if self.to_torch is None else (shape[axis] for axis in self.to_torch)), *(1,) * self.pad)


SAME = Layout()
LINEAR = Layout((1, 0))
CONV_1X1 = Layout((1, 0), pad=2)
CONV = Layout((3, 2, 0, 1))
UPSAMPLE = Layout((0, 3, 1, 2))
"""ConvTranspose2d: (in, out, ky, kx) there, (in, ky, kx, out) here."""

POSITIONS = "positions"
CLASSES = "classes"
CLASSES_AND_NONE = "classes and no-object"
"""What the first axis there counts, where a file's axis may have another length; `misfits.py` has the rules."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor. A part (number, count) is one of `count` equal slices of the first axis in PyTorch.

    Attributes:
      ours, theirs: path here, key there.
      layout: how its axes lie there.
      index: picks from our stacked axes.
      part: the slice of their tensor that this is.
      our_part: the slice of ours that it fills.
      counts: what the first axis there counts, if a file's axis may have another length.
    """

    ours: str
    theirs: str
    layout: Layout = SAME
    index: tuple[int, ...] = ()
    part: tuple[int, int] | None = None
    our_part: tuple[int, int] | None = None
    counts: str | None = None

    def their_shape(self, our_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the whole tensor there, given our shape."""
        shape = self.layout.export_shape(our_shape[len(self.index) :])
        times, among = (part[1] if part else 1 for part in (self.part, self.our_part))
        return (shape[0] * times // among, *shape[1:]) if shape else shape

    def cut(self, tensor: np.ndarray) -> np.ndarray:
        """This part of their tensor."""
        return slice_of(tensor, self.part)

    def view(self, array: np.ndarray) -> np.ndarray:
        """The place of this part in our array, as a view in PyTorch's axes: read it to export, write it to import."""
        place: tuple[Any, ...] = (*self.index, ...)
        return slice_of(self.layout.export(array[place]), self.our_part)


def slice_of(tensor: np.ndarray, part: tuple[int, int] | None) -> np.ndarray:
    """The slice of a part (number, count), see `Row`; for None the whole tensor."""
    if part is None:
        return tensor
    number, count = part
    size = tensor.shape[0] // count
    return tensor[number * size : (number + 1) * size]


def _named(
    ours: str, theirs: str, index: tuple[int, ...], kernel_layout: Layout, bias: bool = True, kernel: str = "kernel"
) -> Iterator[Row]:
    yield Row(f"{ours}/{kernel}", f"{theirs}.weight", kernel_layout, index)
    if bias:
        yield Row(f"{ours}/bias", f"{theirs}.bias", SAME, index)


def linear(ours: str, theirs: str, index: tuple[int, ...] = (), bias: bool = True) -> Iterator[Row]:
    """Rows of a linear layer."""
    return _named(ours, theirs, index, LINEAR, bias)


def norm(ours: str, theirs: str, index: tuple[int, ...] = ()) -> Iterator[Row]:
    """Rows of a layer norm or a group norm."""
    return _named(ours, theirs, index, SAME, kernel="scale")


def conv(ours: str, theirs: str, index: tuple[int, ...] = (), bias: bool = True) -> Iterator[Row]:
    """Rows of a convolution."""
    return _named(ours, theirs, index, CONV, bias)


def conv_1x1(ours: str, theirs: str, bias: bool = True) -> Iterator[Row]:
    """Rows of a 1x1 convolution that is a linear layer here."""
    return _named(ours, theirs, (), CONV_1X1, bias)


def batch_norm(ours: str, theirs: str, index: tuple[int, ...] = ()) -> Iterator[Row]:
    """Rows of a batch norm, with its running statistics."""
    yield from norm(ours, theirs, index)
    yield Row(f"{ours}/mean", f"{theirs}.running_mean", SAME, index)
    yield Row(f"{ours}/var", f"{theirs}.running_var", SAME, index)
    yield Row(f"{ours}/count", f"{theirs}.num_batches_tracked", SAME, index)


def class_head(rows: Iterable[Row], counts: str) -> Iterator[Row]:
    """The rows of a layer whose outputs are classes: a file may have other classes."""
    return (dataclasses.replace(row, counts=counts) for row in rows)


def deformable_attention(ours: str, theirs: str, index: tuple[int, ...] = ()) -> Iterator[Row]:
    """Rows of a `DeformableAttention`."""
    for name in ("sampling_offsets", "attention_weights", "value_proj", "output_proj"):
        yield from linear(f"{ours}/{name}", f"{theirs}.{name}", index)


def beit_block(ours: str, theirs: str, index: tuple[int, ...]) -> Iterator[Row]:
    """Rows of a BEiT block, as its own code and mmsegmentation name them."""
    yield from norm(f"{ours}/norm1", f"{theirs}.norm1", index)
    yield from linear(f"{ours}/attn/qkv", f"{theirs}.attn.qkv", index, bias=False)
    for name in ("q_bias", "v_bias"):
        yield Row(f"{ours}/attn/{name}", f"{theirs}.attn.{name}", SAME, index)
    table = "relative_position_bias_table"
    yield Row(f"{ours}/attn/{table}", f"{theirs}.attn.{table}", SAME, index, counts=POSITIONS)
    yield from linear(f"{ours}/attn/proj", f"{theirs}.attn.proj", index)
    yield from norm(f"{ours}/norm2", f"{theirs}.norm2", index)
    yield from linear(f"{ours}/mlp/fc1", f"{theirs}.mlp.fc1", index)
    yield from linear(f"{ours}/mlp/fc2", f"{theirs}.mlp.fc2", index)
    for name in ("gamma_1", "gamma_2"):
        yield Row(f"{ours}/{name}", f"{theirs}.{name}", SAME, index)


def adapter_extractor(ours: str, theirs: str, index: tuple[int, ...] = ()) -> Iterator[Row]:
    """Rows of the adapter's extractor."""
    yield from norm(f"{ours}/query_norm", f"{theirs}.query_norm", index)
    yield from norm(f"{ours}/feature_norm", f"{theirs}.feat_norm", index)
    yield from deformable_attention(f"{ours}/attn", f"{theirs}.attn", index)
    yield from norm(f"{ours}/ffn_norm", f"{theirs}.ffn_norm", index)
    yield from linear(f"{ours}/ffn/fc1", f"{theirs}.ffn.fc1", index)
    yield from conv(f"{ours}/ffn/depthwise", f"{theirs}.ffn.dwconv.dwconv", index)
    yield from linear(f"{ours}/ffn/fc2", f"{theirs}.ffn.fc2", index)


def adapter_prior(ours: str, theirs: str) -> Iterator[Row]:
    """Rows of the adapter's spatial prior module."""
    for number in range(3):
        yield from conv(f"{ours}/stem/{number}/conv", f"{theirs}.stem.{3 * number}", bias=False)
        yield from batch_norm(f"{ours}/stem/{number}/norm", f"{theirs}.stem.{3 * number + 1}")
        yield from conv(f"{ours}/convs/{number}/conv", f"{theirs}.conv{number + 2}.0", bias=False)
        yield from batch_norm(f"{ours}/convs/{number}/norm", f"{theirs}.conv{number + 2}.1")
    for number in range(4):
        yield from conv_1x1(f"{ours}/projections/{number}", f"{theirs}.fc{number + 1}")


def vit_adapter_blocks(ours: str, config: ConfigDict) -> list[tuple[str, tuple[int, ...]]]:
    """(path, index) of the transformer's blocks, in order."""
    depth = config.depth // 4
    return [(f"{ours}/interactions/blocks", divmod(block, depth)) for block in range(config.depth)]


def vit_adapter(ours: str, theirs: str, config: ConfigDict) -> Iterator[Row]:
    """Rows of `encoders/vit_adapter.py`; `theirs` is "backbone" in mmseg checkpoints."""
    yield Row(f"{ours}/cls_token", f"{theirs}.cls_token")
    yield Row(f"{ours}/level_embed", f"{theirs}.level_embed")
    yield from conv(f"{ours}/patch_embed/proj", f"{theirs}.patch_embed.proj")
    yield from adapter_prior(f"{ours}/prior", f"{theirs}.spm")
    for number, (here, index) in enumerate(vit_adapter_blocks(ours, config)):
        yield from beit_block(here, f"{theirs}.blocks.{number}", index)
    for number in range(4):
        here, there, index = f"{ours}/interactions", f"{theirs}.interactions.{number}", (number,)
        yield from norm(f"{here}/injector/query_norm", f"{there}.injector.query_norm", index)
        yield from norm(f"{here}/injector/feature_norm", f"{there}.injector.feat_norm", index)
        yield from deformable_attention(f"{here}/injector/attn", f"{there}.injector.attn", index)
        yield Row(f"{here}/injector/gamma", f"{there}.injector.gamma", SAME, index)
        yield from adapter_extractor(f"{here}/extractor", f"{there}.extractor", index)
    for number in range(config.extra_extractors):
        there = f"{theirs}.interactions.3.extra_extractors.{number}"
        yield from adapter_extractor(f"{ours}/extra_extractors/{number}", there)
    yield from _named(f"{ours}/up", f"{theirs}.up", (), UPSAMPLE)
    for number in range(4):
        yield from batch_norm(f"{ours}/norms/{number}", f"{theirs}.norm{number + 1}")


def beit_pyramid_blocks(ours: str, config: ConfigDict) -> list[tuple[str, tuple[int, ...]]]:
    """(path, index) of the transformer's blocks, in order."""
    run = math.gcd(*config.out_blocks)
    return [(f"{ours}/blocks", divmod(block, run)) for block in range(config.depth)]


def upsampling(ours: str, first: str, norm: str, second: str, third: str) -> Iterator[Row]:
    """The deconvolutions of `encoders/beit_pyramid.py`, given the names of the tensors of "fpn1" and "fpn2"."""
    yield from _named(f"{ours}/fpn1/first", first, (), UPSAMPLE)
    yield from batch_norm(f"{ours}/fpn1/norm", norm)
    yield from _named(f"{ours}/fpn1/second", second, (), UPSAMPLE)
    yield from _named(f"{ours}/fpn2", third, (), UPSAMPLE)


def beit_pyramid(ours: str, theirs: str, config: ConfigDict) -> Iterator[Row]:
    """Rows of `encoders/beit_pyramid.py`; `theirs` is "backbone" in microsoft/unilm's mmseg checkpoints."""
    yield Row(f"{ours}/cls_token", f"{theirs}.cls_token")
    yield from conv(f"{ours}/patch_embed/proj", f"{theirs}.patch_embed.proj")
    for number, (here, index) in enumerate(beit_pyramid_blocks(ours, config)):
        yield from beit_block(here, f"{theirs}.blocks.{number}", index)
    yield from upsampling(ours, f"{theirs}.fpn1.0", f"{theirs}.fpn1.1", f"{theirs}.fpn1.3", f"{theirs}.fpn2.0")


UPERNET_NAMES = {
    "pooled": "psp_modules.{}.1",
    "bottleneck": "bottleneck",
    "conv": "conv",
    "norm": "bn",
    "classifier": "conv_seg",
}
"""mmseg's names of the parts of UperNet; {} is the number of the pooling scale."""


def upernet(
    ours: str,
    theirs: str,
    config: ConfigDict,
    auxiliary: str = "auxiliary_head",
    names: Mapping[str, str] = UPERNET_NAMES,
) -> Iterator[Row]:
    """Rows of `decoders/upernet.py`; `theirs` is "decode_head" in mmseg checkpoints."""

    def module(here: str, there: str, layout: Layout) -> Iterator[Row]:
        yield from _named(f"{ours}/{here}/conv", f"{there}.{names['conv']}", (), layout, bias=False)
        yield from batch_norm(f"{ours}/{here}/norm", f"{there}.{names['norm']}")

    for number in range(len(config.pool_scales)):
        yield from module(f"pooled_convs/{number}", f"{theirs}.{names['pooled'].format(number)}", CONV_1X1)
    yield from module("bottleneck", f"{theirs}.{names['bottleneck']}", CONV)
    for number in range(3):
        yield from module(f"lateral_convs/{number}", f"{theirs}.lateral_convs.{number}", CONV_1X1)
        yield from module(f"fpn_convs/{number}", f"{theirs}.fpn_convs.{number}", CONV)
    yield from module("fpn_bottleneck", f"{theirs}.fpn_bottleneck", CONV)
    yield from module("auxiliary_conv", f"{auxiliary}.convs.0", CONV)
    for here, there in (("classifier", theirs), ("auxiliary_classifier", auxiliary)):
        yield from class_head(conv_1x1(f"{ours}/{here}/conv", f"{there}.{names['classifier']}"), CLASSES)


def attention(ours: str, theirs: str) -> Iterator[Row]:
    """Rows of torch.nn.MultiheadAttention. Its projections of query, key and value are one tensor."""
    for number, name in enumerate(("query", "key", "value")):
        yield Row(f"{ours}/{name}/kernel", f"{theirs}.in_proj_weight", LINEAR, part=(number, 3))
        yield Row(f"{ours}/{name}/bias", f"{theirs}.in_proj_bias", SAME, part=(number, 3))
    yield from linear(f"{ours}/out", f"{theirs}.out_proj")


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


def mask2former(ours: str, theirs: str, config: ConfigDict) -> Iterator[Row]:
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
    yield from class_head(linear(f"{ours}/cls_embed", f"{theirs}.cls_embed"), CLASSES_AND_NONE)
    for number in range(3):
        yield from linear(f"{ours}/mask_embed/{number}", f"{theirs}.mask_embed.{2 * number}")


ENCODERS = {"beit": beit_pyramid, "vit_adapter": vit_adapter}
"""Rows of every encoder, by `config.encoder.name`."""

BLOCKS = {"beit": beit_pyramid_blocks, "vit_adapter": vit_adapter_blocks}
"""(path, index) of every encoder's BEiT blocks, for files that hold a BEiT alone."""

DECODERS = {"mask2former": mask2former, "upernet": upernet}
"""Rows of every decoder, by `config.decoder.name`."""


def mmseg(config: ConfigDict) -> Iterator[Row]:
    """All rows of the network of `config.model`, named as in mmseg checkpoints."""
    yield from ENCODERS[config.encoder.name]("encoder", "backbone", config.encoder)
    yield from DECODERS[config.decoder.name]("decoder", "decode_head", config.decoder)


def unilm(config: ConfigDict) -> Iterator[Row]:
    """Rows of a BEiT alone, named as in unilm's checkpoints; the rest of the network is not in such files."""
    yield Row("encoder/cls_token", "cls_token")
    yield from conv("encoder/patch_embed/proj", "patch_embed.proj")
    for number, (ours, index) in enumerate(BLOCKS[config.encoder.name]("encoder", config.encoder)):
        yield from beit_block(ours, f"blocks.{number}", index)


def share_positions(rows: Iterable[Row], key: str) -> Iterator[Row]:
    """The same rows for a file in which all blocks share one relative position table, called `key`."""
    return (dataclasses.replace(row, theirs=key) if row.counts == POSITIONS else row for row in rows)
