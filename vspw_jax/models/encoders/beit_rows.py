"""A BEiT's names in PyTorch files, whatever encoder it stands in, and its sizes off their shapes.

An encoder tells the `Places` of its blocks. Hugging Face's files have the names of version 4 of transformers; version 5
still writes these, but has other names in memory.
Sources: microsoft/unilm beit/semantic_segmentation/backbone/beit.py, whose names czczup/ViT-Adapter has too;
open-mmlab/mmsegmentation mmseg/models/backbones/beit.py and tools/model_converters/beit2mmseg.py;
huggingface/transformers models/beit/modeling_beit.py.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.models.encoders import beit
from vspw_jax.models.encoders.relative_position import RelativeTables, index_name, source_window
from vspw_jax.models.torch_names import EncoderSizes, Names, Rows, Shapes
from vspw_jax.models.torch_rows import LINEAR, SAME, Row, conv, linear, norm

Places = Callable[[str, ConfigDict], list[tuple[str, tuple[int, ...]]]]
"""Function of (ours, config) that gives the path and the index of every block, in order."""

TOLD = ("dim", "depth", "heads", "mlp_ratio")
TABLE = "relative_position_bias_table"
CLASS_TOKEN = "embeddings.cls_token"
"""Hugging Face's name; in files of larger models more stands before it."""

WITH_INDEX = RelativeTables(beit.PATCH, keeps_index=True)
WITHOUT_INDEX = RelativeTables(beit.PATCH, keeps_index=False)

INDEX_LEFT_OUT = {r"relative_position_index$": "position indices follow from the crop; export makes them anew"}
_PRETRAINING = "of a pretraining or image classification head, which a segmentation network does not have"
PRETRAINING_LEFT_OUT = {r"^(fc_norm|norm|head|lm_head)\.|^mask_token$": _PRETRAINING}


@dataclasses.dataclass(frozen=True)
class Unilm:
    """The names of unilm's code, or of mmsegmentation's, after the BEiT's or the block's; {} is the block's number."""

    patch: str = "patch_embed.proj"
    block: str = "blocks.{}"
    norms: tuple[str, str] = ("norm1", "norm2")
    fc1: str = "mlp.fc1"
    fc2: str = "mlp.fc2"


UNILM = Unilm()
MMSEG_1 = Unilm("patch_embed.projection", "layers.{}", ("ln1", "ln2"), "ffn.layers.0.0", "ffn.layers.1")
MMSEG_1_MARK = "layers.0.ln1."


@dataclasses.dataclass(frozen=True)
class HuggingFace:
    """The names of a version of transformers, after the BEiT's or the block's; {} is the block's number."""

    block: str
    qkv: tuple[str, str, str]
    table: str
    proj: str
    fc1: str
    fc2: str
    shared_table: str


VERSION_4 = HuggingFace(
    block="encoder.layer.{}",
    qkv=("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    table=f"attention.attention.relative_position_bias.{TABLE}",
    proj="attention.output.dense",
    fc1="intermediate.dense",
    fc2="output.dense",
    shared_table=f"encoder.relative_position_bias.{TABLE}",
)
VERSION_5 = HuggingFace(
    block="layers.{}",
    qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    table=f"relative_position_bias.{TABLE}",
    proj="attention.o_proj",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    shared_table=f"shared_position_bias.{TABLE}",
)


def version(names: Collection[str]) -> HuggingFace:
    """The version by the names in a file; without names 4, as in files."""
    return VERSION_5 if any(re.search(r"layers\.\d+\.attention\.q_proj\.", name) for name in names) else VERSION_4


def start(theirs: str, names: Collection[str]) -> str:
    """How the names of a BEiT start in a file of Hugging Face's: with `theirs`, and in some models with more."""
    tokens = (name for name in names if name.startswith(theirs) and name.endswith(CLASS_TOKEN))
    return next(tokens, theirs + CLASS_TOKEN).removesuffix(CLASS_TOKEN)


def unilm_block(ours: str, theirs: str, index: tuple[int, ...], table: str, form: Unilm) -> Iterator[Row]:
    """Rows of a block; `table` is the whole name of its relative position table."""
    yield from linear(f"{ours}/attn/qkv", f"{theirs}.attn.qkv", index, bias=False)
    for name in ("q_bias", "v_bias"):
        yield Row(f"{ours}/attn/{name}", f"{theirs}.attn.{name}", SAME, index)
    yield Row(f"{ours}/attn/{TABLE}", table, SAME, index, fit=WITH_INDEX)
    yield from linear(f"{ours}/attn/proj", f"{theirs}.attn.proj", index)
    yield from linear(f"{ours}/mlp/fc1", f"{theirs}.{form.fc1}", index)
    yield from linear(f"{ours}/mlp/fc2", f"{theirs}.{form.fc2}", index)
    for number, name in enumerate(form.norms, start=1):
        yield from norm(f"{ours}/norm{number}", f"{theirs}.{name}", index)
        yield Row(f"{ours}/gamma_{number}", f"{theirs}.gamma_{number}", SAME, index)


def hugging_face_block(ours: str, theirs: str, index: tuple[int, ...], table: str, names: HuggingFace) -> Iterator[Row]:
    """Rows of a block; `table` is the whole name of its relative position table."""
    for number, part in enumerate(names.qkv):
        yield Row(f"{ours}/attn/qkv/kernel", f"{theirs}.{part}.weight", LINEAR, index, our_part=(number, 3))
    query, _, value = names.qkv
    yield Row(f"{ours}/attn/q_bias", f"{theirs}.{query}.bias", SAME, index)
    yield Row(f"{ours}/attn/v_bias", f"{theirs}.{value}.bias", SAME, index)
    yield Row(f"{ours}/attn/{TABLE}", table, SAME, index, fit=WITHOUT_INDEX)
    yield from linear(f"{ours}/attn/proj", f"{theirs}.{names.proj}", index)
    yield from linear(f"{ours}/mlp/fc1", f"{theirs}.{names.fc1}", index)
    yield from linear(f"{ours}/mlp/fc2", f"{theirs}.{names.fc2}", index)
    for number, name in enumerate(("before", "after"), start=1):
        yield from norm(f"{ours}/norm{number}", f"{theirs}.layernorm_{name}", index)
        yield Row(f"{ours}/gamma_{number}", f"{theirs}.lambda_{number}", SAME, index)


def unilm_form(names: Collection[str], theirs: str, default: Unilm = UNILM) -> Unilm:
    """The form in a file that is not Hugging Face's; without names `default`."""
    if not names:
        return default
    return MMSEG_1 if any(name.startswith(theirs + MMSEG_1_MARK) for name in names) else UNILM


def unilm(places: Places, default: Unilm = UNILM) -> Rows:
    """Rows of a BEiT as its own code or mmsegmentation names it. The blocks may share one table."""

    def rows(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
        form, shared = unilm_form(names, theirs, default), f"{theirs}rel_pos_bias.{TABLE}"
        yield Row(f"{ours}/cls_token", f"{theirs}cls_token")
        yield from conv(f"{ours}/patch_embed/proj", theirs + form.patch)
        for number, (here, index) in enumerate(places(ours, config)):
            there = theirs + form.block.format(number)
            yield from unilm_block(here, there, index, shared if shared in names else f"{there}.attn.{TABLE}", form)

    return rows


def hugging_face(places: Places) -> Rows:
    """Rows of a BEiT as Hugging Face names it. The blocks may share one table."""

    def rows(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
        inner, own = start(theirs, names), version(names)
        shared = inner + own.shared_table
        yield Row(f"{ours}/cls_token", inner + CLASS_TOKEN)
        yield from conv(f"{ours}/patch_embed/proj", f"{inner}embeddings.patch_embeddings.projection")
        for number, (here, index) in enumerate(places(ours, config)):
            there = inner + own.block.format(number)
            yield from hugging_face_block(
                here, there, index, shared if shared in names else f"{there}.{own.table}", own
            )

    return rows


def alone(places: Places) -> dict[str, Names[EncoderSizes]]:
    """Names in files that hold a BEiT and nothing else of a segmentation network."""
    return {
        "unilm": Names(
            marks=("blocks.", MMSEG_1_MARK),
            rows=unilm(places),
            sizes=lambda shapes, theirs: EncoderSizes(*unilm_sizes(shapes, theirs), []),
            told=TOLD,
            whole=False,
            left_out=INDEX_LEFT_OUT | PRETRAINING_LEFT_OUT,
        ),
        "hugging_face_beit": Names(
            marks=(CLASS_TOKEN, f"beit.{CLASS_TOKEN}"),
            rows=hugging_face(places),
            sizes=lambda shapes, theirs: EncoderSizes(*hugging_face_sizes(shapes, theirs), []),
            told=TOLD,
            whole=False,
            left_out=INDEX_LEFT_OUT
            | {r"^(beit\.)?(pooler\.layernorm|layernorm|classifier|lm_head)\.|embeddings\.mask_token$": _PRETRAINING},
        ),
    }


def sizes(shapes: Shapes, token: str, table: str, fc1: str, block: str) -> tuple[dict[str, Any], tuple[int, int]]:
    """(fields of an encoder's config that its BEiT fixes, image size).

    Args:
      token, table, fc1: names of the class token and, in the first block, of the relative position table and the first
        linear layer's weight.
      block: name of a tensor that every block has, {} in the place of the block's number.
    """
    dim, rows = shapes.size(token, 2), shapes.size(table, 0)
    window = source_window(rows, shapes.tensors.get(index_name(table)))
    if window is None:
        raise UserError(
            f"{shapes.path}: {table} has {rows} rows, which no square window has, and there is no "
            "relative_position_index that tells the window."
        )
    fields = dict(dim=dim, depth=shapes.count(block), heads=shapes.size(table, 1), mlp_ratio=shapes.size(fc1, 0) / dim)
    return fields, (beit.PATCH * window[0], beit.PATCH * window[1])


def unilm_sizes(shapes: Shapes, theirs: str) -> tuple[dict[str, Any], tuple[int, int]]:
    """`sizes` of a BEiT as its own code or mmsegmentation names it."""
    form = unilm_form(shapes.tensors, theirs)
    first, shared = theirs + form.block.format(0), f"{theirs}rel_pos_bias.{TABLE}"
    table = shared if shared in shapes.tensors else f"{first}.attn.{TABLE}"
    names = (f"{theirs}cls_token", table, f"{first}.{form.fc1}.weight")
    return sizes(shapes, *names, f"{theirs}{form.block}.{form.norms[0]}.weight")


def hugging_face_sizes(shapes: Shapes, theirs: str) -> tuple[dict[str, Any], tuple[int, int]]:
    """`sizes` of a BEiT as Hugging Face names it."""
    inner, own = start(theirs, shapes.tensors), version(shapes.tensors)
    first, shared = inner + own.block.format(0), inner + own.shared_table
    table = shared if shared in shapes.tensors else f"{first}.{own.table}"
    names = (inner + CLASS_TOKEN, table, f"{first}.{own.fc1}.weight")
    return sizes(shapes, *names, f"{inner}{own.block}.layernorm_before.weight")
