"""Names of FocalNet's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: microsoft/FocalNet classification/focalnet.py and segmentation/mmseg/models/backbones/focalnet.py;
huggingface/pytorch-image-models timm/models/focalnet.py; huggingface/transformers
models/focalnet/modeling_focalnet.py, in the names of files.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from vspw_jax.models.encoders.focal_kernels import FocalKernels
from vspw_jax.models.torch_names import EncoderNames, EncoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import CONV, CONV_1X1, LINEAR, SAME, Layout, Row, conv, layer, norm

CLASSIFIER = {
    r"^(norm|head|layernorm|classifier)\.": (
        "of an image classification head, which a segmentation network does not have"
    )
}


@dataclasses.dataclass(frozen=True)
class Form:
    """How a code names a FocalNet; {} is the number of the stage, then that of the block.

    Attributes:
      post_norms: names of a block's norms where they stand behind what they norm.
      linear: the layout of linear layers.
      halving_of: 0 where a halving is named after the stage before it, 1 after the one behind it.
    """

    patch: str = "patch_embed"
    patch_proj: str = "patch_embed.proj"
    block: str = "layers.{}.blocks.{}"
    halving: str = "layers.{}.downsample"
    halving_of: int = 0
    halving_proj: str = "proj"
    norms: tuple[str, str] = ("norm1", "norm2")
    post_norms: tuple[str, str] = ("norm1", "norm2")
    gammas: tuple[str, str] = ("gamma_1", "gamma_2")
    first: str = "f"
    modulator: str = "h"
    proj: str = "proj"
    modulation_norm: str = "ln"
    linear: Layout = LINEAR


MICROSOFT = Form()
TIMM = Form(
    patch="stem",
    patch_proj="stem.proj",
    halving_of=1,
    post_norms=("norm1_post", "norm2_post"),
    gammas=("ls1.gamma", "ls2.gamma"),
    modulation_norm="norm",
    linear=CONV_1X1,
)
HUGGING_FACE = Form(
    patch="embeddings",
    patch_proj="embeddings.patch_embeddings.projection",
    block="encoder.stages.{}.layers.{}",
    halving="encoder.stages.{}.downsample",
    halving_proj="projection",
    first="projection_in",
    modulator="projection_context",
    proj="projection_out",
    modulation_norm="layernorm",
)


def modulation(ours: str, theirs: str, index: tuple[int, ...], config: ConfigDict, form: Form) -> Iterator[Row]:
    """Rows of a modulation."""
    yield from layer(f"{ours}/query_context_gates", f"{theirs}.{form.first}", index, form.linear)
    for level in range(config.levels):
        here, there = f"{ours}/context_convs/{level}/kernel", f"{theirs}.focal_layers.{level}.0.weight"
        yield Row(here, there, CONV, index, fit=FocalKernels())
    yield from layer(f"{ours}/modulator", f"{theirs}.{form.modulator}", index, CONV_1X1)
    if config.modulation_norm:
        yield from norm(f"{ours}/norm", f"{theirs}.{form.modulation_norm}", index)
    yield from layer(f"{ours}/proj", f"{theirs}.{form.proj}", index, form.linear)


def block(ours: str, theirs: str, index: tuple[int, ...], config: ConfigDict, form: Form) -> Iterator[Row]:
    """Rows of a block."""
    norms = form.post_norms if config.post_norm else form.norms
    for number, (of_norm, gamma) in enumerate(zip(norms, form.gammas, strict=True), start=1):
        yield from norm(f"{ours}/norm{number}", f"{theirs}.{of_norm}", index)
        if config.layer_scale:
            yield Row(f"{ours}/gamma_{number}", f"{theirs}.{gamma}", SAME, index)
    yield from modulation(f"{ours}/modulation", f"{theirs}.modulation", index, config, form)
    for name in ("fc1", "fc2"):
        yield from layer(f"{ours}/mlp/{name}", f"{theirs}.mlp.{name}", index, form.linear)


def focalnet(ours: str, theirs: str, config: ConfigDict, form: Form, has_norms: bool = True) -> Iterator[Row]:
    """Rows of a FocalNet in a form; files of classification networks have no norms of the maps."""
    yield from conv(f"{ours}/patch_embed/proj", theirs + form.patch_proj)
    yield from norm(f"{ours}/patch_embed/norm", f"{theirs}{form.patch}.norm")
    for stage, depth in enumerate(config.depths):
        for number in range(depth):
            there = theirs + form.block.format(stage, number)
            yield from block(f"{ours}/stages/{stage}", there, (number,), config, form)
        if stage:
            there = theirs + form.halving.format(stage - 1 + form.halving_of)
            yield from conv(f"{ours}/halvings/{stage - 1}/proj", f"{there}.{form.halving_proj}")
            yield from norm(f"{ours}/halvings/{stage - 1}/norm", f"{there}.norm")
        if has_norms:
            yield from norm(f"{ours}/norms/{stage}", f"{theirs}norm{stage}")


def segmentation(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in mmsegmentation's checkpoints, as Microsoft's code writes them."""
    return focalnet(ours, theirs, config, MICROSOFT)


def alone(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in Microsoft's files of a FocalNet alone."""
    has_norms = not names or f"{theirs}norm0.weight" in names
    return focalnet(ours, theirs, config, MICROSOFT, has_norms)


def timm(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in timm's files, which have no norms of the maps."""
    return focalnet(ours, theirs, config, TIMM, has_norms=False)


def hugging_face(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in Hugging Face's files, which have no norms of the maps."""
    return focalnet(ours, theirs, config, HUGGING_FACE, has_norms=False)


def sizes(shapes: Shapes, theirs: str, form: Form = MICROSOFT) -> EncoderSizes:
    """In files of a form."""
    first, patch = theirs + form.block.format(0, 0), f"{theirs}{form.patch_proj}.weight"
    kernel, dim = first + ".modulation.focal_layers.{}.0.weight", shapes.size(patch, 0)
    large, levels = shapes.size(patch, 2) == 7, shapes.count(kernel)
    has_norm = f"{first}.modulation.{form.modulation_norm}.weight" in shapes.tensors
    count = lambda stage: shapes.count(theirs + form.block.format(stage, "{}") + ".mlp.fc1.weight")
    fields = dict(
        dim=dim,
        depths=tuple(count(stage) for stage in range(4)),
        levels=levels,
        window=shapes.size(kernel.format(0), 2),
        overlaps=large,
        post_norm=large,
        layer_scale=1e-4 if f"{first}.{form.gammas[0]}" in shapes.tensors else 0.0,
        modulation_norm=has_norm,
        normalize_modulator=large and levels == 4 and not has_norm,
        mlp_ratio=shapes.size(f"{first}.mlp.fc1.weight", 0) / dim,
        drop_path=0.3,
    )
    assumed = [
        "norms behind what they norm where patches overlap, and before it where not",
        f"what is seen is {'' if fields['normalize_modulator'] else 'not '}divided by levels + 1, as in released ones",
        "stochastic depth 0.3 in training",
        "a crop of 512x512",
    ]
    return EncoderSizes(fields, (512, 512), assumed)


TOLD = ("dim", "depths", "levels", "overlaps", "modulation_norm", "mlp_ratio")
"""Not the window: kernels of another size are padded or cut."""
MARKS = ("layers.0.blocks.0.modulation.",)
NAMES: EncoderNames = {
    "mmseg": Names(MARKS, segmentation, sizes, TOLD, left_out=CLASSIFIER),
    "microsoft_focalnet": Names(MARKS, alone, sizes, TOLD, whole=False, left_out=CLASSIFIER),
    "timm": Names(("stem.proj.",), timm, functools.partial(sizes, form=TIMM), TOLD, whole=False, left_out=CLASSIFIER),
    "hugging_face_focalnet": Names(
        ("encoder.stages.0.layers.0.modulation.",),
        hugging_face,
        functools.partial(sizes, form=HUGGING_FACE),
        TOLD,
        whole=False,
        left_out=CLASSIFIER,
    ),
}
