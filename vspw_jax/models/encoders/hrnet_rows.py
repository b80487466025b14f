"""Names of HRNet's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

HRNet's own codes, mmsegmentation and timm have the same names.

Sources: HRNet/HRNet-Semantic-Segmentation lib/models/seg_hrnet_ocr.py; open-mmlab/mmsegmentation
mmseg/models/backbones/hrnet.py; huggingface/pytorch-image-models timm/models/hrnet.py.
"""

import functools
from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.models.encoders import resnet_rows
from vspw_jax.models.torch_names import EncoderNames, EncoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import CONV_1X1, Row, conv_norm

HEAD = "last_layer.3.weight"
"""The classifier of HRNet's own head, in its own files."""
UNALIGNED_CLASSES = (19, 20, 59, 60)
"""Of Cityscapes, LIP and PASCAL-Context: for its own head on these HRNet's code does not align corners (`ALIGN_CORNERS`
in its experiments/). On others, and with OCRNet's head, it does."""

MARKS = ("stage4.0.branches.",)
TOLD = ("width", "stem_width", "bottleneck_width", "bottlenecks", "modules", "blocks")
LEFT_OUT = {
    r"^(incre_modules|downsamp_modules|final_layer|classifier)\.": (
        "of an image classification head, which a segmentation network does not have"
    )
}


def numbered(ours: str, theirs: str, index: tuple[int, ...] = ()) -> Iterator[Row]:
    """Rows of a 3x3 convolution and a norm that are numbers 0 and 1 of a sequence."""
    return conv_norm(ours, f"{theirs}.0", f"{theirs}.1", index=index)


def bottlenecks(ours: str, theirs: str, config: ConfigDict) -> Iterator[Row]:
    """Rows of the first stage, a ResNet's."""
    has_shortcut = config.stem_width != 4 * config.bottleneck_width
    yield from resnet_rows.block(f"{ours}/first", f"{theirs}.0", (), has_shortcut)
    for number in range(1, config.bottlenecks):
        yield from resnet_rows.block(f"{ours}/rest", f"{theirs}.{number}", (number - 1,), has_shortcut=False)


def fusion(ours: str, theirs: str, number: int, branches: int, index: tuple[int, ...]) -> Iterator[Row]:
    """Rows of what makes the branch of a number of all."""
    for other in range(number):
        here, last = f"{ours}/finer/{other}", number - other - 1
        for step in range(last):
            yield from numbered(f"{here}/convs/{step}", f"{theirs}.{other}.{step}", index)
        yield from numbered(f"{here}/last", f"{theirs}.{other}.{last}", index)
    for other in range(number + 1, branches):
        here, there = f"{ours}/coarser/{other - number - 1}", f"{theirs}.{other}"
        yield from conv_norm(f"{here}/conv", f"{there}.0", f"{there}.1", CONV_1X1, index)


def exchange(ours: str, theirs: str, branches: int, blocks: int, module: int) -> Iterator[Row]:
    """Rows of a module of a stage, which is one of several that are stacked."""
    for number in range(branches):
        for block in range(blocks):
            here, there = f"{ours}/branches/{number}", f"{theirs}.branches.{number}.{block}"
            for conv in (1, 2):
                names = (f"{there}.conv{conv}", f"{there}.bn{conv}")
                yield from conv_norm(f"{here}/conv{conv}", *names, index=(module, block))
        here, there = f"{ours}/fusions/{number}", f"{theirs}.fuse_layers.{number}"
        yield from fusion(here, there, number, branches, (module,))


def hrnet(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows of an HRNet, whatever network it stands in."""
    for number in (1, 2):
        yield from conv_norm(f"{ours}/stem/{number - 1}", f"{theirs}conv{number}", f"{theirs}bn{number}")
    yield from bottlenecks(f"{ours}/bottlenecks", f"{theirs}layer1", config)
    yield from numbered(f"{ours}/finest", f"{theirs}transition1.0")
    for stage, modules in enumerate(config.modules):
        yield from numbered(f"{ours}/halvings/{stage}", f"{theirs}transition{stage + 1}.{stage + 1}.0")
        for module in range(modules):
            there = f"{theirs}stage{stage + 2}.{module}"
            yield from exchange(f"{ours}/stages/{stage}", there, stage + 2, config.blocks, module)


def of_network(
    ours: str,
    theirs: str,
    config: ConfigDict,
    names: Collection[str] = (),
    *,
    naming: str,
    upsamplings: dict[str, bool],
) -> Iterator[Row]:
    """Rows of an HRNet in a network of a code that has some upsamplings, each with whether its head aligns corners;
    UserError for another: maps would differ."""
    if config.upsampling not in upsamplings:
        flags = (
            f"--config.model.encoder.upsampling={name} --config.model.decoder.align_corners={aligns}"
            for name, aligns in upsamplings.items()
        )
        raise UserError(
            f"An HRNet with model.encoder.upsampling={config.upsampling!r} has no names in files of the kind {naming}, "
            f"where it is {' or '.join(map(repr, upsamplings))}. To read such a file set {', or '.join(flags)}; to "
            "write one choose another --naming."
        )
    yield from hrnet(ours, theirs, config, names)


def check_corners(config: ConfigDict) -> None:
    """Raises UserError where encoder and head of `config.model` differ: HRNet's own code has one flag for both."""
    aligns = config.encoder.upsampling == "aligned"
    if config.decoder.align_corners != aligns:
        raise UserError(
            f"model.encoder.upsampling={config.encoder.upsampling!r} with model.decoder.align_corners="
            f"{config.decoder.align_corners}: HRNet's own code aligns corners in both or in neither. To read such a "
            f"file set --config.model.decoder.align_corners={aligns}."
        )


def aligns_corners(shapes: Shapes, theirs: str) -> bool:
    """Whether HRNet's own code does so for the network of a file, as far as its number of classes tells."""
    head = theirs + HEAD
    return head not in shapes.tensors or shapes.size(head, 0) not in UNALIGNED_CLASSES


def sizes(shapes: Shapes, theirs: str, naming: str) -> EncoderSizes:
    """In files of whole networks of a code."""
    upsampling = "bilinear" if naming == "mmseg" else "aligned" if aligns_corners(shapes, theirs) else "once"
    fields = dict(
        width=shapes.size(f"{theirs}stage4.0.branches.0.0.conv1.weight", 0),
        stem_width=shapes.size(f"{theirs}conv1.weight", 0),
        bottleneck_width=shapes.size(f"{theirs}layer1.0.conv1.weight", 0),
        bottlenecks=shapes.count(theirs + "layer1.{}.conv1.weight"),
        modules=tuple(shapes.count(f"{theirs}stage{stage}." + "{}.branches.0.0.conv1.weight") for stage in (2, 3, 4)),
        blocks=shapes.count(theirs + "stage2.0.branches.0.{}.conv1.weight"),
        upsampling=upsampling,
    )
    return EncoderSizes(fields, (512, 512), [f"upsampling {upsampling!r}", "a crop of 512x512"])


NAMES: EncoderNames = {
    naming: Names(
        MARKS,
        functools.partial(of_network, naming=naming, upsamplings=upsamplings),
        functools.partial(sizes, naming=naming),
        TOLD,
    )
    for naming, upsamplings in (("mmseg", {"bilinear": False}), ("hrnet", {"aligned": True, "once": False}))
} | {
    # The upsampling is not told by such a file, and any is trained from it.
    "hrnet_alone": Names(MARKS, hrnet, functools.partial(sizes, naming="mmseg"), TOLD, whole=False, left_out=LEFT_OUT),
    "timm": Names((), hrnet, whole=False, left_out=LEFT_OUT),
}
