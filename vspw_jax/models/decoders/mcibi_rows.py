"""Names of MCIBI's tensors in sssegmentation's files, and its sizes off their shapes; see `torch_rows.py`.

Source: SegmentationBLWX/sssegmentation ssseg/modules/models/segmentors/{mcibi/mcibi,mcibi/memory,deeplabv3/aspp}.py.
"""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from ml_collections import ConfigDict

from vspw_jax.models.decoders import fcn_rows
from vspw_jax.models.decoders.memory_rows import attention, head, in_sequence
from vspw_jax.models.torch_names import DecoderNames, DecoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import CONV, CONV_1X1, SLOTS, Fit, Row, Rule, Stored, conv_norm

AUXILIARY = "auxiliary_decoder."
CONTEXT = "context_within_image_module."


class SeenClasses(Fit):
    """Which classes a memory has seen, told from its rows: the files have no flags, and their code asks for zeros."""

    def rule(
        self, theirs: str, tensors: Mapping[str, Stored], our_shape: tuple[int, ...], image_size: tuple[int, int]
    ) -> Rule | None:
        """See `Fit.rule`."""
        if tensors[theirs].shape[:1] != our_shape[:1]:
            return None
        text = "flags of seen classes, told from the memory's rows: one of zeros was never seen"
        return Rule(text, lambda rows, _: np.any(rows != 0, axis=(1, 2), keepdims=True), derives=True)


def ssseg(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in sssegmentation's checkpoints, where one feature a class is remembered."""
    branches, pooled = f"{theirs}{CONTEXT}parallel_branches", f"{theirs}{CONTEXT}global_branch"
    for number in range(len(config.dilations) + 1):
        layout = CONV if number else CONV_1X1
        yield from in_sequence(f"{ours}/aspp/branches/{number}", f"{branches}.{number}", layout)
    yield from conv_norm(f"{ours}/aspp/mean", f"{pooled}.1", f"{pooled}.2", CONV_1X1)
    yield from in_sequence(f"{ours}/aspp/joining", f"{theirs}{CONTEXT}bottleneck", CONV)
    yield from in_sequence(f"{ours}/represent_conv", f"{theirs}bottleneck", CONV)
    memory = f"{theirs}memory_module."
    yield Row(f"{ours}/feature_memory/rows_KC", f"{memory}memory", SLOTS)
    yield Row(f"{ours}/feature_memory/valid_K", f"{memory}memory", fit=SeenClasses())
    for name, there in (("", ""), ("context_", "_ms")):
        yield from attention(f"{ours}/{name}attention", f"{memory}self_attention{there}")
    yield from in_sequence(f"{ours}/join_conv", f"{memory}bottleneck", CONV)
    yield from in_sequence(f"{ours}/context_conv", f"{memory}bottleneck_ms", CONV)
    yield from head(f"{ours}/first_head", f"{theirs}decoder_stage1")
    yield from head(f"{ours}/head", f"{theirs}decoder_stage2")
    if config.auxiliary_dim:
        yield from fcn_rows.torchvision_head(f"{ours}/auxiliary", theirs + AUXILIARY)


def ssseg_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In sssegmentation's checkpoints."""
    of_auxiliary, assumed = fcn_rows.auxiliary_sizes(shapes, f"{theirs}{AUXILIARY}4.weight")
    branches = shapes.count(f"{theirs}{CONTEXT}parallel_branches.{{}}.0.weight")
    dilations = tuple(12 * number for number in range(1, branches))
    fields = dict(
        dim=shapes.size(f"{theirs}bottleneck.0.weight", 0),
        dilations=dilations,
        mask="soft",
        first_sight="mean",
        momentum=0.9,
        momentum_follows_rate=True,
        dropout=0.1,
        dropped="channels",
        auxiliary_dropout=0.1,
        **of_auxiliary,
    )
    assumed = [
        *(f"dilations {', '.join(map(str, dilations))}", "a memory read by the classes' probabilities"),
        *("its momentum 0.9, in step with the learning rate", *assumed, "drop-out 0.1 in training"),
    ]
    return DecoderSizes(fields, shapes.size(f"{theirs}decoder_stage1.4.weight", 0), assumed)


NAMES: DecoderNames = {"ssseg": Names(("decoder_stage1.",), ssseg, ssseg_sizes)}
