"""Names of EVA-01's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: baaivision/EVA EVA-01/seg/mmseg_custom/models/backbones/{base/beit,beit_adapter}.py;
huggingface/pytorch-image-models timm/models/eva.py.
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.models.encoders import beit_rows, vit_adapter_rows
from vspw_jax.models.encoders.position_tables import PATCH, PatchKernel, Positions, side_of
from vspw_jax.models.torch_names import EncoderNames, EncoderSizes, Names, Rows, Shapes
from vspw_jax.models.torch_rows import Row

HEADS = 16
"""Of all released ones."""


def with_positions(rows: Rows) -> Rows:
    """The rows of a BEiT, less what its blocks lack, with the learned positions; patches may have another size."""

    def all_rows(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
        yield Row(f"{ours}/pos_embed", f"{theirs}pos_embed", fit=Positions())
        for row in rows(ours, theirs, config, names):
            part = row.ours.rpartition("/")[2]
            if part == beit_rows.TABLE and not config.relative_positions:
                continue
            if part in ("gamma_1", "gamma_2") and not config.layer_scale:
                continue
            is_kernel = row.ours == f"{ours}/patch_embed/proj/kernel"
            yield dataclasses.replace(row, fit=PatchKernel()) if is_kernel else row

    return all_rows


def alone_sizes(shapes: Shapes, theirs: str) -> EncoderSizes:
    """In BAAI's and timm's files of an EVA-01 without the adapter."""
    first, side = f"{theirs}blocks.0", side_of(shapes, theirs)
    table = f"{first}.attn.{beit_rows.TABLE}"
    dim, is_relative = shapes.size(f"{theirs}cls_token", 2), table in shapes.tensors
    heads = shapes.size(table, 1) if is_relative else HEADS
    fields = dict(
        dim=dim,
        depth=shapes.count(theirs + "blocks.{}.norm1.weight"),
        heads=heads,
        mlp_ratio=shapes.size(f"{first}.mlp.fc1.weight", 0) / dim,
        layer_scale=1.0 if f"{first}.gamma_1" in shapes.tensors else 0.0,
        drop_path=0.5,
        relative_positions=is_relative,
    )
    assumed = [*([] if is_relative else [f"{heads} heads"]), "stochastic depth 0.5 in training"]
    return EncoderSizes(fields, (PATCH * side, PATCH * side), assumed)


def sizes(shapes: Shapes, theirs: str) -> EncoderSizes:
    """In BAAI's files of segmentation networks."""
    fields, image_size, assumed = alone_sizes(shapes, theirs)
    adapter, more = vit_adapter_rows.adapter_sizes(shapes, theirs, fields["dim"])
    return EncoderSizes(fields | adapter, image_size, assumed + more)


TOLD = ("dim", "depth", "mlp_ratio", "relative_positions")
BAAI = Names(
    ("pos_embed",),
    with_positions(beit_rows.unilm(vit_adapter_rows.places)),
    alone_sizes,
    TOLD,
    whole=False,
    left_out=beit_rows.PRETRAINING_LEFT_OUT | beit_rows.INDEX_LEFT_OUT,
)
"""BAAI's files of an EVA-01 without the adapter."""


def timm(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterable[Row]:
    """Rows in timm's files, which have BAAI's names; UserError for relative positions, which timm's code lacks."""
    if config.relative_positions:
        raise UserError(
            "An EVA-01 with model.encoder.relative_positions=True has no names in files of the kind timm: choose "
            "another naming, such as baai_eva01."
        )
    return BAAI.rows(ours, theirs, config, names)


NAMES: EncoderNames = {
    "mmseg": Names(
        ("pos_embed",),
        with_positions(vit_adapter_rows.mmseg),
        sizes,
        (*TOLD, *vit_adapter_rows.ADAPTER_TOLD),
        left_out=beit_rows.INDEX_LEFT_OUT,
    ),
    "baai_eva01": BAAI,
    "timm": dataclasses.replace(BAAI, marks=(), rows=timm),
}
