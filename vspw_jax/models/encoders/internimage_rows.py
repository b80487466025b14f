"""Names of InternImage's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Source: OpenGVLab/InternImage segmentation/mmseg_custom/models/backbones/intern_image.py and
classification/huggingface/internimage_xl_22k_384/modeling_internimage.py, which puts "model." before the same names.
"""

from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from vspw_jax.models.torch_names import EncoderNames, EncoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import SAME, Row, conv, linear, norm

LEFT_OUT = {
    r"^(conv_head|head|avgpool)\.": "of an image classification head, which a segmentation network does not have"
}
POINTS = 9


def convolution(ours: str, theirs: str, index: tuple[int, ...]) -> Iterator[Row]:
    """Rows of a deformable convolution."""
    yield from conv(f"{ours}/dw_conv", f"{theirs}.dw_conv.0", index)
    yield from norm(f"{ours}/norm", f"{theirs}.dw_conv.1.1", index)
    for name in ("offset", "mask", "input_proj", "output_proj"):
        yield from linear(f"{ours}/{name}", f"{theirs}.{name}", index)


def block(ours: str, theirs: str, index: tuple[int, ...]) -> Iterator[Row]:
    """Rows of a block."""
    for number in (1, 2):
        yield from norm(f"{ours}/norm{number}", f"{theirs}.norm{number}.0", index)
        yield Row(f"{ours}/gamma_{number}", f"{theirs}.gamma{number}", SAME, index)
    yield from convolution(f"{ours}/dcn", f"{theirs}.dcn", index)
    for name in ("fc1", "fc2"):
        yield from linear(f"{ours}/mlp/{name}", f"{theirs}.mlp.{name}", index)


def rows(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows of an InternImage."""
    for number, part in enumerate(("stem", "patch_embed"), start=1):
        yield from conv(f"{ours}/{part}/conv", f"{theirs}patch_embed.conv{number}")
        yield from norm(f"{ours}/{part}/norm", f"{theirs}patch_embed.norm{number}.1")
    for stage, depth in enumerate(config.depths):
        level = f"{theirs}levels.{stage}"
        for number in range(depth):
            yield from block(f"{ours}/stages/{stage}", f"{level}.blocks.{number}", (number,))
        if not config.post_norm:
            yield from norm(f"{ours}/norms/{stage}", f"{level}.norm.0")
        if stage < len(config.depths) - 1:
            yield from conv(f"{ours}/halvings/{stage}/conv", f"{level}.downsample.conv", bias=False)
            yield from norm(f"{ours}/halvings/{stage}/norm", f"{level}.downsample.norm.1")


def sizes(shapes: Shapes, theirs: str) -> EncoderSizes:
    """Sizes T to XL; those of H and G, whose blocks differ, are not built here."""
    first = f"{theirs}levels.0.blocks.0"
    dim = shapes.size(f"{first}.gamma1", 0)
    large = dim >= 160
    fields = dict(
        dim=dim,
        depths=tuple(shapes.count(f"{theirs}levels.{stage}.blocks.{{}}.gamma1") for stage in range(4)),
        group_width=dim * POINTS // shapes.size(f"{first}.dcn.mask.bias", 0),
        post_norm=f"{theirs}levels.0.norm.0.weight" not in shapes.tensors,
        layer_scale=1.0,
        reach=2.0 if large else 1.0,
        mlp_ratio=shapes.size(f"{first}.mlp.fc1.weight", 0) / dim,
        drop_path=0.4,
    )
    crop = (640, 640) if large else (512, 512)
    assumed = [
        f"a reach of {fields['reach']} (offset_scale), as released ones of this width have",
        "stochastic depth 0.4 in training",
        f"a crop of {crop[0]}x{crop[1]}",
    ]
    return EncoderSizes(fields, crop, assumed)


TOLD = ("dim", "depths", "group_width", "post_norm", "mlp_ratio")
MARKS = ("levels.0.blocks.0.dcn.",)
NAMES: EncoderNames = {
    "mmseg": Names(MARKS, rows, sizes, TOLD, left_out=LEFT_OUT),
    "opengvlab_internimage": Names(MARKS, rows, sizes, TOLD, left_out=LEFT_OUT),
    "hugging_face_internimage": Names((), rows, left_out=LEFT_OUT),
}
