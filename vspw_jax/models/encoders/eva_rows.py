"""Names of EVA-02's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: baaivision/EVA EVA-02/seg/backbone/eva2.py; huggingface/pytorch-image-models timm/models/eva.py.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from vspw_jax.models.encoders import beit_pyramid_rows, beit_rows
from vspw_jax.models.encoders.position_tables import (
    PATCH,
    PatchKernel,
    Positions,
    PositionsBesideRotary,
    Rotary,
    side_of,
)
from vspw_jax.models.torch_names import EncoderNames, EncoderSizes, Names, Rows, Shapes
from vspw_jax.models.torch_rows import LINEAR, SAME, Row, conv, linear, norm

PRETRAINED_SIDE = 16
"""Patches a side of all released ones in pre-training: 224 pixels by 14."""
HEAD_DIM = 64
"""Of all released ones."""
LEFT_OUT = {r"rope\.freqs_(cos|sin)$": "tables of rotary positions follow from the crop; export makes them anew"}


@dataclasses.dataclass(frozen=True)
class Form:
    """How a code names the parts of a block.

    Attributes:
      keeps_tables: whether files hold the tables of rotary positions.
    """

    q_bias: str = "attn.q_bias"
    v_bias: str = "attn.v_bias"
    gate: str = "mlp.w1"
    value: str = "mlp.w2"
    norm: str = "mlp.ffn_ln"
    proj: str = "mlp.w3"
    keeps_tables: bool = True


BAAI = Form()
TIMM = Form("attn.q_proj.bias", "attn.v_proj.bias", "mlp.fc1_g", "mlp.fc1_x", "mlp.norm", "mlp.fc2", keeps_tables=False)


def block(ours: str, theirs: str, index: tuple[int, ...], rotary: Rotary, form: Form) -> Iterator[Row]:
    """Rows of a block."""
    for number, name in enumerate(("q_proj", "k_proj", "v_proj")):
        yield Row(f"{ours}/attn/qkv/kernel", f"{theirs}.attn.{name}.weight", LINEAR, index, our_part=(number, 3))
    yield Row(f"{ours}/attn/q_bias", f"{theirs}.{form.q_bias}", SAME, index, fit=rotary if form.keeps_tables else None)
    yield Row(f"{ours}/attn/v_bias", f"{theirs}.{form.v_bias}", SAME, index)
    yield from linear(f"{ours}/attn/proj", f"{theirs}.attn.proj", index)
    for here, there in (("gate", form.gate), ("value", form.value), ("proj", form.proj)):
        yield from linear(f"{ours}/mlp/{here}", f"{theirs}.{there}", index)
    yield from norm(f"{ours}/mlp/norm", f"{theirs}.{form.norm}", index)
    for number in (1, 2):
        yield from norm(f"{ours}/norm{number}", f"{theirs}.norm{number}", index)


def body(ours: str, theirs: str, config: ConfigDict, form: Form = BAAI) -> Iterator[Row]:
    """Rows of all but the pyramid."""
    sizes = (config.dim // config.heads, config.pretrained_side)
    yield Row(f"{ours}/cls_token", f"{theirs}cls_token")
    positions = PositionsBesideRotary(*sizes) if form.keeps_tables else Positions()
    yield Row(f"{ours}/pos_embed", f"{theirs}pos_embed", fit=positions)
    kernel, bias = conv(f"{ours}/patch_embed/proj", f"{theirs}patch_embed.proj")
    yield from (dataclasses.replace(kernel, fit=PatchKernel()), bias)
    for number, (here, index) in enumerate(beit_pyramid_rows.places(ours, config)):
        yield from block(here, f"{theirs}blocks.{number}", index, Rotary(*sizes), form)


def segmentation(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in BAAI's checkpoints of segmentation networks."""
    yield from body(ours, theirs, config)
    yield from beit_pyramid_rows.upsampling(ours, *(theirs + name for name in beit_pyramid_rows.UPSAMPLING))


def alone(form: Form) -> Rows:
    """Rows in files of an EVA-02 alone, without the pyramid."""
    return lambda ours, theirs, config, names: body(ours, theirs, config, form)


def sizes(shapes: Shapes, theirs: str, form: Form = BAAI) -> EncoderSizes:
    """In files of a form."""
    side, table, dim = side_of(shapes, theirs), f"{theirs}rope.freqs_cos", shapes.size(f"{theirs}cls_token", 2)
    head_dim = shapes.size(table, 1) if table in shapes.tensors else HEAD_DIM
    depth = shapes.count(theirs + "blocks.{}.norm1.weight")
    out_blocks = beit_pyramid_rows.published_out_blocks(depth)
    fields = dict(
        dim=dim,
        depth=depth,
        heads=dim // head_dim,
        hidden=shapes.size(f"{theirs}blocks.0.{form.gate}.weight", 0),
        pretrained_side=PRETRAINED_SIDE,
        drop_path=0.2,
        out_blocks=out_blocks,
    )
    assumed = [
        f"heads of {head_dim} channels",
        f"positions of {PRETRAINED_SIDE}x{PRETRAINED_SIDE} patches in pre-training",
        f"maps after blocks {', '.join(map(str, out_blocks))}",
        "stochastic depth 0.2 in training",
    ]
    return EncoderSizes(fields, (PATCH * side, PATCH * side), assumed)


TOLD = ("dim", "depth", "hidden")
MARK = "blocks.0.mlp.w1."
NAMES: EncoderNames = {
    "mmseg": Names((MARK,), segmentation, sizes, TOLD, left_out=LEFT_OUT),
    "baai_eva02": Names(
        (MARK,), alone(BAAI), sizes, TOLD, whole=False, left_out=LEFT_OUT | beit_rows.PRETRAINING_LEFT_OUT
    ),
    "timm": Names(
        ("blocks.0.mlp.fc1_g.",),
        alone(TIMM),
        functools.partial(sizes, form=TIMM),
        TOLD,
        whole=False,
        left_out=beit_rows.PRETRAINING_LEFT_OUT,
    ),
}
