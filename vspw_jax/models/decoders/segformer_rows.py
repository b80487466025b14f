"""Names of SegFormer's decoder in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

Sources: NVlabs/SegFormer and open-mmlab/mmsegmentation mmseg/models/decode_heads/segformer_head.py;
huggingface/transformers models/segformer/modeling_segformer.py, in the names of files.
"""

from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.models.decoders.fcn_rows import classifier
from vspw_jax.models.torch_names import DecoderNames, DecoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import CONV_1X1, Row, batch_norm, conv_norm, layer, linear

LEVELS = 4
UNUSED = {r"^conv_seg\.": "a layer of the base class that this head does not run"}


def _check_variant(config: ConfigDict, variant: str, naming: str) -> None:
    if config.variant != variant:
        raise UserError(
            f"A SegFormer with model.decoder.variant={config.variant!r} has no names in files of the kind {naming}: "
            f"that code has another head. To read such a file set --config.model.decoder.variant={variant}; to write "
            f"one choose --naming={'mmseg' if config.variant == 'mmseg' else 'nvlabs_segformer'}."
        )


def mmseg(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in mmsegmentation's checkpoints; UserError for NVIDIA's head."""
    _check_variant(config, "mmseg", "mmseg")
    parts = {f"projections/{level}": f"convs.{level}" for level in range(LEVELS)} | {"fusion": "fusion_conv"}
    for here, there in parts.items():
        yield from conv_norm(f"{ours}/{here}", f"{theirs}{there}.conv", f"{theirs}{there}.bn", CONV_1X1)
    yield from classifier(f"{ours}/classifier", f"{theirs}conv_seg")


def nvlabs(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in NVIDIA's checkpoints; UserError for mmsegmentation's head."""
    _check_variant(config, "nvlabs", "nvlabs_segformer")
    for level in range(LEVELS):
        yield from linear(f"{ours}/projections/{level}", f"{theirs}linear_c{level + 1}.proj")
    yield from conv_norm(f"{ours}/fusion", f"{theirs}linear_fuse.conv", f"{theirs}linear_fuse.bn", CONV_1X1)
    yield from classifier(f"{ours}/classifier", f"{theirs}linear_pred")


def hugging_face(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in Hugging Face's files; UserError for mmsegmentation's head."""
    _check_variant(config, "nvlabs", "hugging_face_segformer")
    for level in range(LEVELS):
        yield from linear(f"{ours}/projections/{level}", f"{theirs}linear_c.{level}.proj")
    yield from layer(f"{ours}/fusion/conv", f"{theirs}linear_fuse", (), CONV_1X1, bias=False)
    yield from batch_norm(f"{ours}/fusion/norm", f"{theirs}batch_norm")
    yield from classifier(f"{ours}/classifier", f"{theirs}classifier")


def _sizes(shapes: Shapes, weight: str, variant: str, dropped: str) -> DecoderSizes:
    """Given the name of the classifier's weight."""
    num_classes, dim = (shapes.size(weight, axis) for axis in (0, 1))
    fields = dict(variant=variant, dim=dim, dropout=0.1, dropped=dropped)
    return DecoderSizes(fields, num_classes, [f"drop-out 0.1 of {dropped} in training"])


def mmseg_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In mmsegmentation's checkpoints."""
    return _sizes(shapes, f"{theirs}conv_seg.weight", "mmseg", "channels")


def nvlabs_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In NVIDIA's checkpoints."""
    return _sizes(shapes, f"{theirs}linear_pred.weight", "nvlabs", "channels")


def hugging_face_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In Hugging Face's files."""
    return _sizes(shapes, f"{theirs}classifier.weight", "nvlabs", "elements")


TOLD = ("variant", "dim")
NAMES: DecoderNames = {
    "mmseg": Names(("fusion_conv.",), mmseg, mmseg_sizes, TOLD),
    "nvlabs_segformer": Names(("linear_pred.",), nvlabs, nvlabs_sizes, TOLD, left_out=UNUSED),
    "hugging_face_segformer": Names(("linear_fuse.",), hugging_face, hugging_face_sizes, TOLD),
}
