"""Names of ResNet's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: pytorch/vision torchvision/models/resnet.py; open-mmlab/mmsegmentation mmseg/models/backbones/resnet.py, whose
deep stem has names of its own; huggingface/pytorch-image-models timm/models/resnet.py (resnet50c) for a third form.
SegmentationBLWX/sssegmentation ssseg/modules/backbones/resnet.py has mmsegmentation's names.
"""

from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from vspw_jax.models.torch_names import EncoderNames, EncoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import CONV_1X1, Row, conv_norm

MARKS = ("layer2.",)
LEFT_OUT = {r"^fc\.": "the classifier of whole images, which a segmentation network does not have"}


def stem(ours: str, theirs: str, config: ConfigDict, names: Collection[str]) -> Iterator[Row]:
    """Rows of the stem: torchvision's, or the deep one in mmseg's names or, where a file has them, timm's."""
    if config.stem == "plain":
        yield from conv_norm(f"{ours}/stem/0", f"{theirs}conv1", f"{theirs}bn1")
    elif f"{theirs}conv1.0.weight" in names:
        for number, norm in enumerate(("conv1.1", "conv1.4", "bn1")):
            yield from conv_norm(f"{ours}/stem/{number}", f"{theirs}conv1.{3 * number}", theirs + norm)
    else:
        for number in range(3):
            there = f"{theirs}stem."
            yield from conv_norm(f"{ours}/stem/{number}", f"{there}{3 * number}", f"{there}{3 * number + 1}")


def block(ours: str, theirs: str, index: tuple[int, ...], has_shortcut: bool) -> Iterator[Row]:
    """Rows of a block."""
    yield from conv_norm(f"{ours}/conv1", f"{theirs}.conv1", f"{theirs}.bn1", CONV_1X1, index)
    yield from conv_norm(f"{ours}/conv2", f"{theirs}.conv2", f"{theirs}.bn2", index=index)
    yield from conv_norm(f"{ours}/conv3", f"{theirs}.conv3", f"{theirs}.bn3", CONV_1X1, index)
    if has_shortcut:
        yield from conv_norm(f"{ours}/shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1", CONV_1X1, index)


def resnet(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows of a ResNet, whatever network it stands in."""
    yield from stem(ours, theirs, config, names)
    for stage, depth in enumerate(config.depths):
        there = f"{theirs}layer{stage + 1}"
        yield from block(f"{ours}/stages/{stage}/first", f"{there}.0", (), has_shortcut=True)
        for number in range(1, depth):
            yield from block(f"{ours}/stages/{stage}/rest", f"{there}.{number}", (number - 1,), has_shortcut=False)


def sizes(shapes: Shapes, theirs: str) -> EncoderSizes:
    """In files of whole networks. A decoder that fuses maps of four strides reads a ResNet without dilation."""
    fuses = any(".lateral_convs." in name for name in shapes.tensors)
    fields = dict(
        stem="plain" if f"{theirs}bn1.weight" in shapes.tensors else "deep",
        width=shapes.size(f"{theirs}layer1.0.conv1.weight", 0),
        depths=tuple(shapes.count(f"{theirs}layer{stage}." + "{}.conv1.weight") for stage in (1, 2, 3, 4)),
        output_stride=32 if fuses else 8,
    )
    return EncoderSizes(fields, (512, 512), [f"output stride {fields['output_stride']}", "a crop of 512x512"])


NAMES: EncoderNames = {
    "mmseg": Names(MARKS, resnet, sizes),
    "ssseg": Names(MARKS, resnet, sizes),
    "torchvision": Names(MARKS, resnet, sizes),
    "torchvision_resnet": Names(MARKS, resnet, whole=False, left_out=LEFT_OUT),
}
