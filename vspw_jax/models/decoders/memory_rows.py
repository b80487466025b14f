"""Names of the memory decoders' tensors in PyTorch files, and their sizes off their shapes; see `torch_rows.py`.

No public code has these decoders. In mmsegmentation's files UperNet's parts have UperNet's names, and the rest has the
names of its like in SegmentationBLWX/sssegmentation ssseg/modules/models/segmentors/mcibi/{mcibi,memory}.py, but the
layer of the representations, whose name there, bottleneck, is UperNet's here.
"""

from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from vspw_jax.models.decoders import tmanet_rows, upernet_rows
from vspw_jax.models.decoders.fcn_rows import AUXILIARY, auxiliary_sizes, classifier
from vspw_jax.models.torch_names import DecoderNames, DecoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import CONV, CONV_1X1, SLOTS, Layout, Row, conv_norm

MEMORY = "memory_module."
TEMPORAL_BOTTLENECK = "temporal_bottleneck"
PROJECTIONS = {
    **{f"{kind}/{number}": f"{kind}_project.{number}" for kind in ("query", "key") for number in range(2)},
    "value": "value_project",
    "out": "out_project",
}
"""Layers of a `MemoryAttention`, and of the SelfAttentionBlock of mmsegmentation and sssegmentation."""


def in_sequence(ours: str, theirs: str, layout: Layout) -> Iterator[Row]:
    """Rows of a `ConvNormRelu` that is a Sequential there."""
    return conv_norm(ours, f"{theirs}.0", f"{theirs}.1", layout)


def head(ours: str, theirs: str) -> Iterator[Row]:
    """Rows of a head: convolution 0, norm 1, ReLU and drop-out without tensors, classifier 4."""
    yield from in_sequence(f"{ours}/conv", theirs, CONV_1X1)
    yield from classifier(f"{ours}/classifier", f"{theirs}.4")


def attention(ours: str, theirs: str) -> Iterator[Row]:
    """Rows of a `MemoryAttention`."""
    for here, there in PROJECTIONS.items():
        yield from in_sequence(f"{ours}/{here}", f"{theirs}.{there}", CONV_1X1)


def memory(ours: str, theirs: str, config: ConfigDict) -> Iterator[Row]:
    """Rows of the memory and of what reads it."""
    inside = theirs + MEMORY
    yield Row(f"{ours}/feature_memory/rows_KC", f"{inside}memory", SLOTS)
    yield Row(f"{ours}/feature_memory/valid_K", f"{inside}valid")
    yield from attention(f"{ours}/attention", f"{inside}self_attention")
    if config.memory_space != "backbone":
        yield from in_sequence(f"{ours}/represent_conv", f"{inside}representations", CONV)
    yield from in_sequence(f"{ours}/join_conv", f"{inside}bottleneck", CONV)
    yield from head(f"{ours}/first_head", f"{theirs}decoder_stage1")
    yield from head(f"{ours}/head", f"{theirs}decoder_stage2")


def mmseg(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows of decoder A, beside those of UperNet but for its classifier."""
    of_upernet = f"{ours}/classifier/"
    for row in upernet_rows.mmseg(ours, theirs, config, names):
        if not row.ours.startswith(of_upernet):
            yield row
    yield from memory(ours, theirs, config)


def mmseg_b(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows of decoder B: those of decoder A, and TMANet's, but for its bottleneck, whose name is UperNet's here."""
    yield from mmseg(ours, theirs, config, names)
    yield from tmanet_rows.attention(f"{ours}/temporal", theirs, config.past, TEMPORAL_BOTTLENECK)


def _space(shapes: Shapes, theirs: str, dim: int, scales: tuple[int, ...]) -> str:
    """`memory_space`, off the width of what the convolution before the memory reads."""
    name = f"{theirs}{MEMORY}representations.0.weight"
    if name not in shapes.tensors:
        return "backbone"
    last = shapes.size(f"{theirs}bottleneck.conv.weight", 1) - len(scales) * dim
    return "bottleneck" if shapes.size(name, 1) == last else "pyramid"


def mmseg_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In files that we wrote. The masks, the momentum and the level are not in shapes."""
    scales, rows = (1, 2, 3, 6), f"{theirs}{MEMORY}memory"
    auxiliary, of_auxiliary = auxiliary_sizes(shapes, AUXILIARY + "conv_seg.weight")
    dim = shapes.size(f"{theirs}bottleneck.conv.weight", 0)
    fields = dict(
        dim=dim,
        pool_scales=scales,
        dropout=0.1,
        **auxiliary,
        level=1,
        memory_dim=shapes.size(rows, 2),
        memory_space=_space(shapes, theirs, dim, scales),
        mask="hard",
        first_sight="mean",
        momentum=0.9,
        momentum_follows_rate=True,
        truth_steps=0,
        truth_epochs=0,
    )
    assumed = [f"pooling to {', '.join(map(str, scales))} bins a side", *of_auxiliary]
    assumed += ["a memory read at 1/8 by hard masks", "its momentum 0.9, in step with the learning rate"]
    return DecoderSizes(fields, shapes.size(rows, 0), [*assumed, "drop-out 0.1 in training"])


def mmseg_b_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """As `mmseg_sizes`, with the sizes of the attention over time."""
    fields, num_classes, assumed = mmseg_sizes(shapes, theirs)
    return DecoderSizes(fields | tmanet_rows.attention_sizes(shapes, theirs), num_classes, assumed)


NAMES: DecoderNames = {"mmseg": Names((MEMORY,), mmseg, mmseg_sizes)}
"""Of decoder A."""
NAMES_B: DecoderNames = {"mmseg": Names((TEMPORAL_BOTTLENECK + ".",), mmseg_b, mmseg_b_sizes)}
"""Of decoder B; its files have all that decoder A's have, so it is listed before it."""
