"""Names of ResNet's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: pytorch/vision torchvision/models/resnet.py; open-mmlab/mmsegmentation mmseg/models/backbones/resnet.py and
huggingface/pytorch-image-models timm/models/resnet.py (resnet50c), whose deep stems have names of their own;
facebookresearch/detectron2 detectron2/modeling/backbone/resnet.py and tools/convert-torchvision-to-d2.py;
huggingface/transformers models/resnet/modeling_resnet.py.
SegmentationBLWX/sssegmentation ssseg/modules/backbones/resnet.py has mmsegmentation's names.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.models.torch_names import EncoderNames, EncoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import CONV, CONV_1X1, Row, conv_norm

MARKS, DETECTRON_2_MARKS = ("layer2.",), ("res2.0.conv1.",)
HUGGING_FACE_MARKS = ("encoder.stages.0.layers.0.layer.0.convolution.",)
TOLD = ("stem", "width", "depths")
LEFT_OUT = {r"^(stem\.)?fc\.": "the classifier of whole images, which a segmentation network does not have"}


@dataclasses.dataclass(frozen=True)
class Form:
    """How a code names the parts of a ResNet.

    Attributes:
      stem: convolution and norm of the plain stem.
      deep_stem: three of each.
      stage: {} is the stage's number, the first one's `first_stage`.
      convs, norms: of a block.
      shortcut: convolution and norm.
      counts: whether its norms count batches.
    """

    stem: tuple[str, str] = ("conv1", "bn1")
    deep_stem: tuple[tuple[str, str], ...] = (("stem.0", "stem.1"), ("stem.3", "stem.4"), ("stem.6", "stem.7"))
    stage: str = "layer{}"
    first_stage: int = 1
    convs: tuple[str, str, str] = ("conv1", "conv2", "conv3")
    norms: tuple[str, str, str] = ("bn1", "bn2", "bn3")
    shortcut: tuple[str, str] = ("downsample.0", "downsample.1")
    counts: bool = True


TORCHVISION = Form()
TIMM = Form(deep_stem=(("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")))
DETECTRON_2 = Form(
    stem=("stem.conv1", "stem.conv1.norm"),
    stage="res{}",
    first_stage=2,
    norms=("conv1.norm", "conv2.norm", "conv3.norm"),
    shortcut=("shortcut", "shortcut.norm"),
    counts=False,
)
HUGGING_FACE = Form(
    stem=("embedder.embedder.convolution", "embedder.embedder.normalization"),
    stage="encoder.stages.{}.layers",
    first_stage=0,
    convs=("layer.0.convolution", "layer.1.convolution", "layer.2.convolution"),
    norms=("layer.0.normalization", "layer.1.normalization", "layer.2.normalization"),
    shortcut=("shortcut.convolution", "shortcut.normalization"),
)


def stem(ours: str, theirs: str, config: ConfigDict, form: Form) -> Iterator[Row]:
    """Rows of the stem."""
    for number, (conv, norm) in enumerate([form.stem] if config.stem == "plain" else form.deep_stem):
        yield from conv_norm(f"{ours}/stem/{number}", theirs + conv, theirs + norm, counts=form.counts)


def block(
    ours: str, theirs: str, index: tuple[int, ...], has_shortcut: bool, form: Form = TORCHVISION
) -> Iterator[Row]:
    """Rows of a block."""
    names = zip(form.convs, form.norms, (CONV_1X1, CONV, CONV_1X1), strict=True)
    for number, (conv, norm, layout) in enumerate(names, start=1):
        yield from conv_norm(f"{ours}/conv{number}", f"{theirs}.{conv}", f"{theirs}.{norm}", layout, index, form.counts)
    if has_shortcut:
        conv, norm = (f"{theirs}.{name}" for name in form.shortcut)
        yield from conv_norm(f"{ours}/shortcut", conv, norm, CONV_1X1, index, form.counts)


def resnet(
    ours: str, theirs: str, config: ConfigDict, names: Collection[str] = (), form: Form = TORCHVISION
) -> Iterator[Row]:
    """Rows of a ResNet, whatever network it stands in; a file may have timm's deep stem."""
    if form is TORCHVISION and f"{theirs}conv1.0.weight" in names:
        form = TIMM
    yield from stem(ours, theirs, config, form)
    for stage, depth in enumerate(config.depths):
        there = theirs + form.stage.format(stage + form.first_stage)
        yield from block(f"{ours}/stages/{stage}/first", f"{there}.0", (), True, form)
        for number in range(1, depth):
            yield from block(f"{ours}/stages/{stage}/rest", f"{there}.{number}", (number - 1,), False, form)


def _check_plain(config: ConfigDict, naming: str) -> None:
    """Raises UserError for a deep stem, where a code has none of these layers."""
    if config.stem != "plain":
        raise UserError(
            f"A ResNet with model.encoder.stem={config.stem!r} has no names in files of the kind {naming}: set "
            "--config.model.encoder.stem=plain to read such a file, or choose another naming, such as mmseg."
        )


def hugging_face(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in Hugging Face's files; UserError for a deep stem."""
    _check_plain(config, "hugging_face_resnet")
    return resnet(ours, theirs, config, names, HUGGING_FACE)


def detectron_2(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in detectron2's files; UserError for a deep stem.

    Its norms are frozen and count no batches, but those of a ResNet that was trained with SyncBN do.
    """
    _check_plain(config, "detectron2")
    counts = any(name.startswith(theirs) and name.endswith(".num_batches_tracked") for name in names)
    return resnet(ours, theirs, config, names, dataclasses.replace(DETECTRON_2, counts=counts))


def form_of(names: Collection[str], theirs: str) -> Form:
    """The form by the names in a file of a ResNet alone; without names torchvision's."""
    is_detectron_2 = any(name.startswith(theirs + DETECTRON_2_MARKS[0]) for name in names)
    return DETECTRON_2 if is_detectron_2 else TORCHVISION


def alone(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in files of a ResNet alone."""
    is_detectron_2 = form_of(names, theirs) is DETECTRON_2
    return (detectron_2 if is_detectron_2 else resnet)(ours, theirs, config, names)


def sizes(shapes: Shapes, theirs: str, form: Form = TORCHVISION) -> EncoderSizes:
    """In files of whole networks. A decoder that fuses maps of four strides reads a ResNet without dilation."""
    fuses = form is DETECTRON_2 or any(".lateral_convs." in name for name in shapes.tensors)
    stages = [theirs + form.stage.format(stage + form.first_stage) for stage in range(4)]
    fields = dict(
        stem="plain" if f"{theirs}{form.stem[0]}.weight" in shapes.tensors else "deep",
        width=shapes.size(f"{stages[0]}.0.{form.convs[0]}.weight", 0),
        depths=tuple(shapes.count(f"{stage}.{{}}.{form.convs[0]}.weight") for stage in stages),
        output_stride=shapes.stated.get("output_stride", 32 if fuses else 8),
    )
    of_stride = [] if "output_stride" in shapes.stated else [f"output stride {fields['output_stride']}"]
    assumed = [*of_stride, "a crop of 512x512"]
    return EncoderSizes(fields, (512, 512), assumed)


def alone_sizes(shapes: Shapes, theirs: str) -> EncoderSizes:
    """In files of a ResNet alone."""
    return sizes(shapes, theirs, form_of(shapes.tensors, theirs))


NAMES: EncoderNames = {
    "mmseg": Names(MARKS, resnet, sizes, TOLD),
    "mmseg_1": Names(MARKS, resnet, sizes, TOLD),
    "ssseg": Names(MARKS, resnet, sizes, TOLD),
    "torchvision": Names(MARKS, resnet, sizes, TOLD),
    "detectron2": Names(DETECTRON_2_MARKS, detectron_2, functools.partial(sizes, form=DETECTRON_2), TOLD),
    "hugging_face_resnet": Names(
        HUGGING_FACE_MARKS, hugging_face, functools.partial(sizes, form=HUGGING_FACE), TOLD, whole=False
    ),
    # timm's plain stem has torchvision's names, and such files are known as those.
    "timm": Names(("conv1.0.",), functools.partial(resnet, form=TIMM), sizes, TOLD, whole=False, left_out=LEFT_OUT),
    "torchvision_resnet": Names((*MARKS, *DETECTRON_2_MARKS), alone, alone_sizes, TOLD, whole=False, left_out=LEFT_OUT),
}
