"""Names of FCN's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: open-mmlab/mmsegmentation mmseg/models/decode_heads/fcn_head.py; pytorch/vision
torchvision/models/segmentation/fcn.py.
"""

from collections.abc import Collection, Iterator
from typing import Any

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.models.torch_names import DecoderNames, DecoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import CLASSES, Row, class_head, conv_1x1, conv_norm

AUXILIARY = "auxiliary_head."
TORCHVISION_AUXILIARY = "aux_classifier."
"""Where the auxiliary head stands in these files: beside the other, not in it."""


def classifier(ours: str, theirs: str) -> Iterator[Row]:
    """Rows of a `Classifier`."""
    return class_head(conv_1x1(f"{ours}/conv", theirs), CLASSES)


def mmseg_head(ours: str, theirs: str, num_convs: int = 1, concat_input: bool = False) -> Iterator[Row]:
    """Rows of an `FcnHead` in mmsegmentation's checkpoints."""
    for number in range(num_convs):
        there = f"{theirs}convs.{number}"
        yield from conv_norm(f"{ours}/convs/{number}", f"{there}.conv", f"{there}.bn")
    if concat_input:
        yield from conv_norm(f"{ours}/conv_joined", f"{theirs}conv_cat.conv", f"{theirs}conv_cat.bn")
    yield from classifier(f"{ours}/classifier", f"{theirs}conv_seg")


def torchvision_head(ours: str, theirs: str) -> Iterator[Row]:
    """Rows of an `FcnHead` of one convolution in torchvision's."""
    yield from conv_norm(f"{ours}/convs/0", f"{theirs}0", f"{theirs}1")
    yield from classifier(f"{ours}/classifier", f"{theirs}4")


def mmseg(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in mmsegmentation's checkpoints."""
    yield from mmseg_head(f"{ours}/head", theirs, config.num_convs, config.concat_input)
    if config.auxiliary_dim:
        yield from mmseg_head(f"{ours}/auxiliary", AUXILIARY)


def torchvision(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in torchvision's checkpoints; UserError for a head that torchvision does not have."""
    if config.num_convs != 1 or config.concat_input:
        raise UserError(
            f"An FCN with model.decoder.num_convs={config.num_convs} and concat_input={config.concat_input} has no "
            "names in torchvision's files, where it has 1 and False. Choose another naming, such as mmseg."
        )
    yield from torchvision_head(f"{ours}/head", theirs)
    if config.auxiliary_dim:
        yield from torchvision_head(f"{ours}/auxiliary", TORCHVISION_AUXILIARY)


def auxiliary_sizes(shapes: Shapes, weight: str) -> tuple[dict[str, Any], list[str]]:
    """(fields of a decoder's auxiliary head, what had to be assumed), given the name of its classifier's weight.

    A file may have none; its width is 0 then.
    """
    found = weight in shapes.tensors
    fields = dict(auxiliary_dim=shapes.size(weight, 1) if found else 0, auxiliary_level=2)
    return fields, ["an auxiliary head on the third map"] if found else []


def mmseg_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In mmsegmentation's checkpoints."""
    auxiliary, assumed = auxiliary_sizes(shapes, f"{AUXILIARY}conv_seg.weight")
    fields = dict(
        dim=shapes.size(f"{theirs}conv_seg.weight", 1),
        num_convs=shapes.count(theirs + "convs.{}.conv.weight"),
        concat_input=f"{theirs}conv_cat.conv.weight" in shapes.tensors,
        dropout=0.1,
        dropped="channels",
        auxiliary_dropout=0.1,
    )
    num_classes = shapes.size(f"{theirs}conv_seg.weight", 0)
    return DecoderSizes(fields | auxiliary, num_classes, [*assumed, "drop-out 0.1 of channels in training"])


def torchvision_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In torchvision's checkpoints."""
    auxiliary, assumed = auxiliary_sizes(shapes, f"{TORCHVISION_AUXILIARY}4.weight")
    dim = shapes.size(f"{theirs}4.weight", 1)
    fields = dict(dim=dim, num_convs=1, concat_input=False, dropout=0.1, dropped="elements", auxiliary_dropout=0.1)
    num_classes = shapes.size(f"{theirs}4.weight", 0)
    return DecoderSizes(fields | auxiliary, num_classes, [*assumed, "drop-out 0.1 of elements in training"])


TOLD = ("dim", "num_convs", "concat_input", "auxiliary_dim")
NAMES: DecoderNames = {
    "mmseg": Names(("convs.",), mmseg, mmseg_sizes, TOLD),
    "torchvision": Names(("0.weight",), torchvision, torchvision_sizes, TOLD),
}
