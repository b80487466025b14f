"""Names of FCN's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: open-mmlab/mmsegmentation mmseg/models/decode_heads/fcn_head.py; pytorch/vision
torchvision/models/segmentation/fcn.py; HRNet/HRNet-Semantic-Segmentation lib/models/seg_hrnet.py.
"""

from collections.abc import Collection, Iterator
from typing import Any

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.models import folded_bias
from vspw_jax.models.encoders import hrnet_rows
from vspw_jax.models.torch_names import DecoderNames, DecoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import CLASSES, CONV, CONV_1X1, Row, class_head, conv_1x1, conv_norm

AUXILIARY = "auxiliary_head."
TORCHVISION_AUXILIARY = "aux_classifier."
"""Where the auxiliary head stands in these files: beside the other, not in it."""


LAYOUTS = {1: CONV_1X1, 3: CONV}
"""By the size of convolutions."""


def classifier(ours: str, theirs: str) -> Iterator[Row]:
    """Rows of a `Classifier`."""
    return class_head(conv_1x1(f"{ours}/conv", theirs), CLASSES)


def mmseg_head(
    ours: str, theirs: str, num_convs: int = 1, conv_size: int = 3, concat_input: bool = False
) -> Iterator[Row]:
    """Rows of an `FcnHead` in mmsegmentation's checkpoints."""
    names = {f"convs/{number}": f"{theirs}convs.{number}" for number in range(num_convs)}
    names |= {"conv_joined": f"{theirs}conv_cat"} if concat_input else {}
    for here, there in names.items():
        yield from conv_norm(f"{ours}/{here}", f"{there}.conv", f"{there}.bn", LAYOUTS[conv_size])
    yield from classifier(f"{ours}/classifier", f"{theirs}conv_seg")


def torchvision_head(ours: str, theirs: str) -> Iterator[Row]:
    """Rows of an `FcnHead` of one convolution in torchvision's."""
    yield from conv_norm(f"{ours}/convs/0", f"{theirs}0", f"{theirs}1")
    yield from classifier(f"{ours}/classifier", f"{theirs}4")


def mmseg(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in mmsegmentation's checkpoints; UserError for a head that resizes otherwise."""
    check_form(config, "mmseg", align_corners=False)
    yield from mmseg_head(f"{ours}/head", theirs, config.num_convs, config.conv_size, config.concat_input)
    if config.auxiliary_dim:
        yield from mmseg_head(f"{ours}/auxiliary", AUXILIARY)


def torchvision(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in torchvision's checkpoints; UserError for a head that torchvision does not have."""
    check_form(config, "torchvision", inputs="coarsest", num_convs=1, conv_size=3, concat_input=False)
    yield from torchvision_head(f"{ours}/head", theirs)
    if config.auxiliary_dim:
        yield from torchvision_head(f"{ours}/auxiliary", TORCHVISION_AUXILIARY)


def hrnet_head(ours: str, theirs: str, dim: int, conv_size: int = 1) -> Iterator[Row]:
    """Rows of an `FcnHead` of one convolution in HRNet's own files."""
    names = (f"{ours}/convs/0", f"{theirs}.0", f"{theirs}.1")
    yield from folded_bias.conv_bias_norm(*names, dim, LAYOUTS[conv_size])
    yield from classifier(f"{ours}/classifier", f"{theirs}.3")


def hrnet(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in HRNet's own checkpoints; UserError for a head that HRNet does not have."""
    check_form(config, "hrnet", inputs="all", num_convs=1, conv_size=1, concat_input=False, auxiliary_dim=0)
    yield from hrnet_head(f"{ours}/head", f"{theirs}last_layer", config.dim)


def check_form(config: ConfigDict, naming: str, **form: Any) -> None:
    """Raises UserError where a head has not the one form that a code has."""
    ours = {name: config[name] for name in form}
    if ours != form:
        listed = lambda fields: ", ".join(f"{name}={value!r}" for name, value in fields.items())
        raise UserError(
            f"A decoder {config.name} with model.decoder.{listed(ours)} has no names in files of the kind {naming}, "
            f"where it has {listed(form)}. To read such a file set "
            f"{' '.join(f'--config.model.decoder.{name}={value}' for name, value in form.items())}; to write one "
            "choose another --naming."
        )


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
    joins = any(".fuse_layers." in name for name in shapes.tensors)  # Over an HRNet.
    dropout = 0.0 if joins else 0.1
    fields = dict(
        inputs="all" if joins else "coarsest",
        align_corners=False,
        dim=shapes.size(f"{theirs}conv_seg.weight", 1),
        num_convs=shapes.count(theirs + "convs.{}.conv.weight"),
        conv_size=shapes.size(f"{theirs}convs.0.conv.weight", 2),
        concat_input=f"{theirs}conv_cat.conv.weight" in shapes.tensors,
        dropout=dropout,
        dropped="channels",
        auxiliary_dropout=0.1,
    )
    num_classes = shapes.size(f"{theirs}conv_seg.weight", 0)
    return DecoderSizes(fields | auxiliary, num_classes, [*assumed, f"drop-out {dropout} of channels in training"])


def torchvision_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In torchvision's checkpoints."""
    auxiliary, assumed = auxiliary_sizes(shapes, f"{TORCHVISION_AUXILIARY}4.weight")
    dim = shapes.size(f"{theirs}4.weight", 1)
    fields = dict(inputs="coarsest", align_corners=False, dim=dim, num_convs=1, conv_size=3, concat_input=False)
    fields |= dict(dropout=0.1, dropped="elements", auxiliary_dropout=0.1)
    num_classes = shapes.size(f"{theirs}4.weight", 0)
    return DecoderSizes(fields | auxiliary, num_classes, [*assumed, "drop-out 0.1 of elements in training"])


def hrnet_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In HRNet's own checkpoints."""
    num_classes, dim = (shapes.size(theirs + hrnet_rows.HEAD, axis) for axis in (0, 1))
    aligns = hrnet_rows.aligns_corners(shapes, theirs)
    fields = dict(inputs="all", align_corners=aligns, dim=dim, num_convs=1, conv_size=1, concat_input=False)
    fields |= dict(dropout=0.0, dropped="channels", auxiliary_dim=0, auxiliary_level=2, auxiliary_dropout=0.1)
    corners = (
        f"corners {'aligned' if aligns else 'not aligned'} where maps are resized, as for {num_classes} classes there"
    )
    return DecoderSizes(fields, num_classes, [corners, "no drop-out in training"])


TOLD = ("dim", "num_convs", "concat_input", "auxiliary_dim")
NAMES: DecoderNames = {
    "hrnet": Names(("last_layer.",), hrnet, hrnet_sizes, TOLD, left_out=folded_bias.left_out(r"last_layer\.0")),
    "mmseg": Names(("convs.",), mmseg, mmseg_sizes, TOLD),
    "torchvision": Names(("0.weight",), torchvision, torchvision_sizes, TOLD),
}
