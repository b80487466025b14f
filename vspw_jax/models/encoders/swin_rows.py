"""Names of Swin's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: SwinTransformer/Swin-Transformer-Semantic-Segmentation mmseg/models/backbones/swin_transformer.py;
open-mmlab/mmsegmentation mmseg/models/backbones/swin.py and tools/model_converters/swin2mmseg.py;
huggingface/pytorch-image-models timm/models/swin_transformer.py; huggingface/transformers
models/swin/modeling_swin.py, in the names of files; facebookresearch/Mask2Former
mask2former/modeling/backbone/swin.py, which has Microsoft's names.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.models.encoders.window_tables import WindowTables, window_of
from vspw_jax.models.torch_names import EncoderNames, EncoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import LINEAR, SAME, Layout, Row, conv, layer, linear, norm

TABLE = "relative_position_bias_table"

UNFOLDED_LINEAR = Layout((3, 2, 1, 0), splits=(2, 2), joins=3)
UNFOLDED_NORM = Layout((2, 1, 0), splits=(2, 2), joins=3)
"""mmsegmentation joins merged cells by torch's Unfold: channel first, then row and column. Here, and in all other
files, column comes first, then row and channel."""

LEFT_OUT = {
    r"relative_position_index$": "position indices follow from the window; export makes them anew",
    r"attn_mask$": "masks of shifted windows follow from the map's size",
}
CLASSIFIER = {
    r"^(swin\.)?(norm|layernorm|pooler|head|classifier)\.|^(embeddings\.)?mask_token$": (
        "of a pretraining or image classification head, which a segmentation network does not have"
    )
}


@dataclasses.dataclass(frozen=True)
class Form:
    """How a code names a Swin; {} is the number of the stage, then that of the block.

    Attributes:
      qkv: one name, or three where files keep query, key and value apart.
      first_norm: the number in the name of the first map's norm.
      merging_of: 0 where a merging is named after the stage before it, 1 after the one behind it.
      unfolds: whether the merged cells are in Unfold's order.
      keeps_index: whether files hold the tables' index buffers.
    """

    patch: str
    patch_norm: str
    block: str
    norms: tuple[str, str]
    table: str
    qkv: tuple[str, ...]
    proj: str
    fc1: str
    fc2: str
    merging: str
    last_norm: str
    first_norm: int = 0
    merging_of: int = 0
    unfolds: bool = False
    keeps_index: bool = True


MICROSOFT = Form(
    patch="patch_embed.proj",
    patch_norm="patch_embed.norm",
    block="layers.{}.blocks.{}",
    norms=("norm1", "norm2"),
    table=f"attn.{TABLE}",
    qkv=("attn.qkv",),
    proj="attn.proj",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    merging="layers.{}.downsample",
    last_norm="norm{}",
)
TIMM = dataclasses.replace(MICROSOFT, merging_of=1, keeps_index=False)
MMSEG = dataclasses.replace(
    MICROSOFT,
    patch="patch_embed.projection",
    block="stages.{}.blocks.{}",
    table=f"attn.w_msa.{TABLE}",
    qkv=("attn.w_msa.qkv",),
    proj="attn.w_msa.proj",
    fc1="ffn.layers.0.0",
    fc2="ffn.layers.1",
    merging="stages.{}.downsample",
    unfolds=True,
)
HUGGING_FACE = Form(
    patch="embeddings.patch_embeddings.projection",
    patch_norm="embeddings.norm",
    block="encoder.layers.{}.blocks.{}",
    norms=("layernorm_before", "layernorm_after"),
    table=f"attention.self.{TABLE}",
    qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
    proj="attention.output.dense",
    fc1="intermediate.dense",
    fc2="output.dense",
    merging="encoder.layers.{}.downsample",
    last_norm="hidden_states_norms.stage{}",
    first_norm=1,
    keeps_index=False,
)


def block(ours: str, theirs: str, index: tuple[int, ...], form: Form, window: int) -> Iterator[Row]:
    """Rows of a block."""
    for number, name in enumerate(form.norms, start=1):
        yield from norm(f"{ours}/norm{number}", f"{theirs}.{name}", index)
    for number, name in enumerate(form.qkv):
        part = (number, len(form.qkv)) if len(form.qkv) > 1 else None
        yield Row(f"{ours}/attn/qkv/kernel", f"{theirs}.{name}.weight", LINEAR, index, our_part=part)
        yield Row(f"{ours}/attn/qkv/bias", f"{theirs}.{name}.bias", SAME, index, our_part=part)
    yield Row(f"{ours}/attn/{TABLE}", f"{theirs}.{form.table}", SAME, index, fit=WindowTables(window, form.keeps_index))
    for here, there in (("attn/proj", form.proj), ("mlp/fc1", form.fc1), ("mlp/fc2", form.fc2)):
        yield from linear(f"{ours}/{here}", f"{theirs}.{there}", index)


def merging(ours: str, theirs: str, unfolds: bool) -> Iterator[Row]:
    """Rows of a merging of two by two cells."""
    of_norm, of_linear = (UNFOLDED_NORM, UNFOLDED_LINEAR) if unfolds else (SAME, LINEAR)
    yield from layer(f"{ours}/norm", f"{theirs}.norm", (), of_norm, kernel="scale", bias=False)
    yield Row(f"{ours}/norm/bias", f"{theirs}.norm.bias", of_norm)
    yield Row(f"{ours}/reduction/kernel", f"{theirs}.reduction.weight", of_linear)


def swin(ours: str, theirs: str, config: ConfigDict, form: Form, has_norms: bool = True) -> Iterator[Row]:
    """Rows of a Swin in a form; files of classification networks have no norms of the maps."""
    yield from conv(f"{ours}/patch_embed/proj", theirs + form.patch)
    yield from norm(f"{ours}/patch_embed/norm", theirs + form.patch_norm)
    for stage, depth in enumerate(config.depths):
        for number in range(depth):
            pair, place = divmod(number, 2)
            here = f"{ours}/stages/{stage}/{('plain', 'shifted')[place]}"
            yield from block(here, theirs + form.block.format(stage, number), (pair,), form, config.window)
        if stage:
            there = theirs + form.merging.format(stage - 1 + form.merging_of)
            yield from merging(f"{ours}/mergings/{stage - 1}", there, form.unfolds)
        if has_norms:
            yield from norm(f"{ours}/norms/{stage}", theirs + form.last_norm.format(stage + form.first_norm))


def form_of(names: Collection[str], theirs: str, default: Form) -> Form:
    """The form by the names in a file that is not Hugging Face's; without names `default`."""
    starts = lambda start: any(name.startswith(theirs + start) for name in names)
    if starts("stages."):
        return MMSEG
    if starts("layers."):
        return TIMM if starts("layers.3.downsample.") else MICROSOFT
    return default


def segmentation(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in checkpoints of mmsegmentation and, as Microsoft's code and old versions have it, under `layers`."""
    return swin(ours, theirs, config, form_of(names, theirs, MMSEG))


def alone(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in files of a Swin alone: Microsoft's, mmsegmentation's."""
    has_norms = not names or f"{theirs}norm0.weight" in names
    return swin(ours, theirs, config, form_of(names, theirs, MICROSOFT), has_norms)


def timm(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in timm's files, which have no norms of the maps."""
    return swin(ours, theirs, config, TIMM, has_norms=False)


def detectron_2(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in detectron2's checkpoints of Mask2Former."""
    return swin(ours, theirs, config, MICROSOFT)


def hugging_face(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in Hugging Face's files."""
    has_norms = not names or f"{theirs}hidden_states_norms.stage1.weight" in names
    return swin(ours, theirs, config, HUGGING_FACE, has_norms)


def sizes(shapes: Shapes, theirs: str, form: Form | None = None) -> EncoderSizes:
    """In files of whole networks; without a form, the names tell it."""
    form = form or form_of(shapes.tensors, theirs, MMSEG)
    first = theirs + form.block.format(0, 0)
    dim, table = shapes.size(f"{theirs}{form.patch}.weight", 0), f"{first}.{form.table}"
    window = window_of(shapes.size(table, 0))
    if window is None:
        raise UserError(f"{shapes.path}: {table} has {shapes.size(table, 0)} rows, which no square window has.")
    count = lambda stage: shapes.count(theirs + form.block.format(stage, "{}") + f".{form.norms[0]}.weight")
    fields = dict(
        dim=dim,
        depths=tuple(count(stage) for stage in range(4)),
        head_dim=dim // shapes.size(table, 1),
        window=window,
        mlp_ratio=shapes.size(f"{first}.{form.fc1}.weight", 0) / dim,
        drop_path=0.3,
    )
    assumed = ["stochastic depth 0.3 in training", "a crop of 512x512"]
    return EncoderSizes(fields, (512, 512), assumed)


hugging_face_sizes = functools.partial(sizes, form=HUGGING_FACE)
detectron_2_sizes = functools.partial(sizes, form=MICROSOFT)
TOLD = ("dim", "depths", "head_dim", "window", "mlp_ratio")
MARKS, HUGGING_FACE_MARKS = ("stages.0.blocks.", "layers.0.blocks."), ("encoder.layers.0.blocks.0.attention.",)
NAMES: EncoderNames = {
    "mmseg": Names(MARKS, segmentation, sizes, TOLD, left_out=LEFT_OUT),
    "mmseg_1": Names(MARKS, segmentation, sizes, TOLD, left_out=LEFT_OUT),
    "hugging_face_backbone_upernet": Names(
        HUGGING_FACE_MARKS, hugging_face, hugging_face_sizes, TOLD, left_out=LEFT_OUT | CLASSIFIER
    ),
    "hugging_face_mask2former": Names(
        HUGGING_FACE_MARKS, hugging_face, hugging_face_sizes, TOLD, left_out=LEFT_OUT | CLASSIFIER
    ),
    "detectron2": Names(MARKS[1:], detectron_2, detectron_2_sizes, TOLD, left_out=LEFT_OUT),
    "microsoft_swin": Names(MARKS, alone, sizes, TOLD, whole=False, left_out=LEFT_OUT | CLASSIFIER),
    "timm": Names(
        ("layers.3.downsample.",),
        timm,
        functools.partial(sizes, form=TIMM),
        TOLD,
        whole=False,
        left_out=LEFT_OUT | CLASSIFIER,
    ),
    "hugging_face_swin": Names(
        HUGGING_FACE_MARKS, hugging_face, hugging_face_sizes, TOLD, whole=False, left_out=LEFT_OUT | CLASSIFIER
    ),
}
