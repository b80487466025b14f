"""Names of MiT's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: NVlabs/SegFormer mmseg/models/backbones/mix_transformer.py; open-mmlab/mmsegmentation
mmseg/models/backbones/mit.py and tools/model_converters/mit2mmseg.py; huggingface/transformers
models/segformer/modeling_segformer.py, in the names of files.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from vspw_jax.models.torch_names import EncoderNames, EncoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import CONV_1X1, LINEAR, SAME, Layout, Row, conv, layer, norm

Part = tuple[int, int] | None
"""See `Row`."""

CLASSIFIER = {r"^(head|classifier)\.": "of an image classification head, which a segmentation network does not have"}


@dataclasses.dataclass(frozen=True)
class Form:
    """How a code names a MiT; {} is the number of the stage, then that of the block.

    Attributes:
      first: the number in the names of the first stage.
      query, key_value: where a name stands twice, one tensor has both, the first of them first.
      feed_forward: the layout of its linear layers.
      epsilons: a key of `mit.EPSILONS`.
    """

    epsilons: str
    first: int
    patch: str
    patch_norm: str
    block: str
    norms: tuple[str, str]
    query: str
    key_value: tuple[str, ...]
    proj: str
    joining: str
    joining_norm: str
    fc1: str
    depthwise: str
    fc2: str
    feed_forward: Layout
    last_norm: str


NVLABS = Form(
    epsilons="nvlabs",
    first=1,
    patch="patch_embed{}.proj",
    patch_norm="patch_embed{}.norm",
    block="block{}.{}",
    norms=("norm1", "norm2"),
    query="attn.q.",
    key_value=("attn.kv.",),
    proj="attn.proj",
    joining="attn.sr",
    joining_norm="attn.norm",
    fc1="mlp.fc1",
    depthwise="mlp.dwconv.dwconv",
    fc2="mlp.fc2",
    feed_forward=LINEAR,
    last_norm="norm{}",
)
MMSEG = dataclasses.replace(
    NVLABS,
    epsilons="mmseg",
    first=0,
    patch="layers.{}.0.projection",
    patch_norm="layers.{}.0.norm",
    block="layers.{}.1.{}",
    query="attn.attn.in_proj_",
    key_value=("attn.attn.in_proj_",) * 2,
    proj="attn.attn.out_proj",
    fc1="ffn.layers.0",
    depthwise="ffn.layers.1",
    fc2="ffn.layers.4",
    feed_forward=CONV_1X1,
    last_norm="layers.{}.2",
)
HUGGING_FACE = dataclasses.replace(
    NVLABS,
    epsilons="hugging_face",
    first=0,
    patch="encoder.patch_embeddings.{}.proj",
    patch_norm="encoder.patch_embeddings.{}.layer_norm",
    block="encoder.block.{}.{}",
    norms=("layer_norm_1", "layer_norm_2"),
    query="attention.self.query.",
    key_value=("attention.self.key.", "attention.self.value."),
    proj="attention.output.dense",
    joining="attention.self.sr",
    joining_norm="attention.self.layer_norm",
    fc1="mlp.dense1",
    fc2="mlp.dense2",
    last_norm="encoder.layer_norm.{}",
)


def attention(ours: str, theirs: str, index: tuple[int, ...], form: Form) -> Iterator[Row]:
    """Rows of query, key and value: each code keeps others of them in one tensor."""
    joined, count = form.query in form.key_value, len(form.key_value)
    parts: list[tuple[str, str, Part, Part]] = [("query", form.query, (0, 3) if joined else None, None)]
    for number, name in enumerate(form.key_value):
        part, our_part = (number + 1, 3) if joined else None, (number, count) if count > 1 else None
        parts.append(("key_value", name, part, our_part))
    for here, there, part, our_part in parts:
        yield Row(f"{ours}/{here}/kernel", f"{theirs}.{there}weight", LINEAR, index, part, our_part)
        yield Row(f"{ours}/{here}/bias", f"{theirs}.{there}bias", SAME, index, part, our_part)
    yield from layer(f"{ours}/proj", f"{theirs}.{form.proj}", index, LINEAR)


def block(ours: str, theirs: str, index: tuple[int, ...], form: Form, joins: bool) -> Iterator[Row]:
    """Rows of a block."""
    for number, name in enumerate(form.norms, start=1):
        yield from norm(f"{ours}/norm{number}", f"{theirs}.{name}", index)
    yield from attention(f"{ours}/attn", theirs, index, form)
    if joins:
        yield from conv(f"{ours}/attn/joining/conv", f"{theirs}.{form.joining}", index)
        yield from norm(f"{ours}/attn/joining/norm", f"{theirs}.{form.joining_norm}", index)
    yield from layer(f"{ours}/mlp/fc1", f"{theirs}.{form.fc1}", index, form.feed_forward)
    yield from conv(f"{ours}/mlp/depthwise", f"{theirs}.{form.depthwise}", index)
    yield from layer(f"{ours}/mlp/fc2", f"{theirs}.{form.fc2}", index, form.feed_forward)


def mit(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = (), *, form: Form) -> Iterator[Row]:
    """Rows of a MiT in a form."""
    for stage, depth in enumerate(config.depths):
        here, number = f"{ours}/stages/{stage}", stage + form.first
        yield from conv(f"{here}/patch_embed/proj", theirs + form.patch.format(number))
        yield from norm(f"{here}/patch_embed/norm", theirs + form.patch_norm.format(number))
        for place in range(depth):
            there = theirs + form.block.format(number, place)
            yield from block(f"{here}/blocks", there, (place,), form, config.reductions[stage] > 1)
        yield from norm(f"{here}/norm", theirs + form.last_norm.format(number))


def sizes(shapes: Shapes, theirs: str, *, form: Form) -> EncoderSizes:
    """In files of a form."""
    stages = range(form.first, form.first + 4)
    block = lambda stage, rest: f"{theirs}{form.block.format(stage, '{}')}.{rest}"
    joining = [block(stage, f"{form.joining}.weight").format(0) for stage in stages]
    dims = tuple(shapes.size(f"{theirs}{form.patch.format(stage)}.weight", 0) for stage in stages)
    fields = dict(
        dims=dims,
        depths=tuple(shapes.count(block(stage, f"{form.norms[0]}.weight")) for stage in stages),
        head_dim=dims[0],
        reductions=tuple(shapes.size(name, 2) if name in shapes.tensors else 1 for name in joining),
        mlp_ratio=shapes.size(block(form.first, f"{form.fc1}.weight").format(0), 0) / dims[0],
        epsilons=form.epsilons,
        drop_path=0.1,
    )
    assumed = [f"heads of {dims[0]} channels", "stochastic depth 0.1 in training", "a crop of 512x512"]
    return EncoderSizes(fields, (512, 512), assumed)


MARKS = {"mmseg": "layers.0.0.projection.", "nvlabs": "patch_embed1.", "hugging_face": "encoder.block.0."}
"""By `Form.epsilons`."""


def form_alone(names: Collection[str], theirs: str) -> Form:
    """The form in a file of a MiT alone that is not Hugging Face's."""
    return MMSEG if any(name.startswith(theirs + MARKS["mmseg"]) for name in names) else NVLABS


def alone(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in files of a MiT alone: NVIDIA's, or mmsegmentation's."""
    return mit(ours, theirs, config, form=form_alone(names, theirs))


def alone_sizes(shapes: Shapes, theirs: str) -> EncoderSizes:
    """In these files."""
    return sizes(shapes, theirs, form=form_alone(shapes.tensors, theirs))


TOLD = ("dims", "depths", "reductions", "mlp_ratio")


def _names(form: Form) -> Names[EncoderSizes]:
    rows, of_shapes = functools.partial(mit, form=form), functools.partial(sizes, form=form)
    return Names((MARKS[form.epsilons],), rows, of_shapes, TOLD)


NAMES: EncoderNames = {
    "mmseg": _names(MMSEG),
    "nvlabs_segformer": _names(NVLABS),
    "hugging_face_segformer": _names(HUGGING_FACE),
    "nvlabs_mit": Names((MARKS["nvlabs"], MARKS["mmseg"]), alone, alone_sizes, TOLD, left_out=CLASSIFIER),
    "hugging_face_mit": dataclasses.replace(_names(HUGGING_FACE), left_out=CLASSIFIER),
}
