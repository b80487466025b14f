"""Names of DeepLabV3's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: open-mmlab/mmsegmentation mmseg/models/decode_heads/{aspp_head,fcn_head}.py; pytorch/vision
torchvision/models/segmentation/deeplabv3.py.
"""

from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.models.decoders import fcn_rows
from vspw_jax.models.torch_names import DecoderNames, DecoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import CONV, CONV_1X1, Layout, Row, conv_norm


def _check_variant(config: ConfigDict, naming: str) -> None:
    if config.variant != naming:
        raise UserError(
            f"A DeepLabV3 with model.decoder.variant={config.variant!r} has no names in files of the kind {naming}: "
            f"that code has another head. To read such a file set --config.model.decoder.variant={naming}; "
            f"docs/weights.md has the other flags. To write a file choose --naming={config.variant}."
        )


def mmseg(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in mmsegmentation's checkpoints; UserError for torchvision's head."""
    _check_variant(config, "mmseg")

    def module(here: str, there: str, layout: Layout) -> Iterator[Row]:
        return conv_norm(f"{ours}/aspp/{here}", f"{theirs}{there}.conv", f"{theirs}{there}.bn", layout)

    yield from module("mean", "image_pool.1", CONV_1X1)
    for number in range(len(config.dilations) + 1):
        yield from module(f"branches/{number}", f"aspp_modules.{number}", CONV if number else CONV_1X1)
    yield from module("joining", "bottleneck", CONV)
    yield from fcn_rows.classifier(f"{ours}/classifier", f"{theirs}conv_seg")
    if config.auxiliary_dim:
        yield from fcn_rows.mmseg_head(f"{ours}/auxiliary", fcn_rows.AUXILIARY)


def torchvision(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in torchvision's checkpoints; UserError for mmsegmentation's head."""
    _check_variant(config, "torchvision")
    aspp, last = f"{ours}/aspp", len(config.dilations) + 1
    for number in range(last):
        there, layout = f"{theirs}0.convs.{number}", CONV if number else CONV_1X1
        yield from conv_norm(f"{aspp}/branches/{number}", f"{there}.0", f"{there}.1", layout)
    yield from conv_norm(f"{aspp}/mean", f"{theirs}0.convs.{last}.1", f"{theirs}0.convs.{last}.2", CONV_1X1)
    yield from conv_norm(f"{aspp}/joining", f"{theirs}0.project.0", f"{theirs}0.project.1", CONV_1X1)
    yield from conv_norm(f"{ours}/refining", f"{theirs}1", f"{theirs}2")
    yield from fcn_rows.classifier(f"{ours}/classifier", f"{theirs}4")
    if config.auxiliary_dim:
        yield from fcn_rows.torchvision_head(f"{ours}/auxiliary", fcn_rows.TORCHVISION_AUXILIARY)


def _sizes(
    shapes: Shapes, weight: str, branch: str, auxiliary: str, variant: str, dropout: float, dropped: str
) -> DecoderSizes:
    """Given the names of the classifiers' weights, and of a branch's weight with {} for its number."""
    of_auxiliary, assumed = fcn_rows.auxiliary_sizes(shapes, auxiliary)
    dilations = shapes.stated.get("dilations")
    if dilations is None:
        dilations = tuple(12 * (number + 1) for number in range(shapes.count(branch) - 1))
        assumed.append(f"dilations {', '.join(map(str, dilations))}")
    dim, drops = shapes.size(weight, 1), dict(dropout=dropout, dropped=dropped, auxiliary_dropout=0.1)
    fields = dict(variant=variant, dim=dim, dilations=dilations, **drops, **of_auxiliary)
    assumed += [f"drop-out {dropout} of {dropped} in training"]
    return DecoderSizes(fields, shapes.size(weight, 0), assumed)


def mmseg_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In mmsegmentation's checkpoints."""
    names = (f"{theirs}conv_seg.weight", theirs + "aspp_modules.{}.conv.weight", f"{fcn_rows.AUXILIARY}conv_seg.weight")
    return _sizes(shapes, *names, "mmseg", 0.1, "channels")


def torchvision_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In torchvision's checkpoints."""
    auxiliary = f"{fcn_rows.TORCHVISION_AUXILIARY}4.weight"
    names = (f"{theirs}4.weight", theirs + "0.convs.{}.0.weight", auxiliary)
    return _sizes(shapes, *names, "torchvision", 0.5, "elements")


TOLD = ("dim", "auxiliary_dim")
NAMES: DecoderNames = {
    "mmseg": Names(("aspp_modules.",), mmseg, mmseg_sizes, TOLD),
    "torchvision": Names(("0.convs.",), torchvision, torchvision_sizes, TOLD),
}
