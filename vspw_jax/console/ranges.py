"""What values every field of a recipe may have: its type and its bounds.

A field is looked up by its dotted name; `*` stands for the name of any member of the mixture. What only two fields
together make wrong, and which names there are to choose from, is checked where they are used; see `training/checks.py`.
"""

import argparse
import dataclasses
import math
import numbers
import re
from collections.abc import Mapping
from typing import Any

from vspw_jax.console.errors import UserError, nearest

LARGEST = 2**31 - 1
"""The largest whole number of a field that has no reason for a smaller one: devices count in 32 bits."""


@dataclasses.dataclass(frozen=True)
class Range:
    """What values a field may have.

    Attributes:
      kind: int, float (whole numbers too), bool or str.
      least, most: of a number, both included. Not-a-number and infinity are outside of every range.
      below: whether `most` is excluded.
      many: whether the field holds several such values, a tuple.
      count: how many there must be, if that is fixed.
      filled: whether there must be one at least.
      rising: whether none may be smaller than the one before it, as of the least and the most.
      is_path: whether it is the path of a file or folder. An empty one would mean the folder that one is in.
      otherwise: what one does who wants another kind of value, for the message.
    """

    kind: type
    least: float = -math.inf
    most: float = math.inf
    below: bool = False
    many: bool = False
    count: int | None = None
    filled: bool = False
    rising: bool = False
    is_path: bool = False
    otherwise: str = ""

    def holds(self, value: Any) -> bool:
        """Whether a field may have this value."""
        if self.many:
            one = dataclasses.replace(self, many=False)
            return (
                isinstance(value, tuple | list)
                and self.count in (None, len(value))
                and all(one.holds(part) for part in value)
                and (bool(value) or not self.filled)
                and (not self.rising or list(value) == sorted(value))
            )
        if self.kind in (bool, str):
            return isinstance(value, self.kind) and not (self.is_path and value == "")
        is_number = isinstance(value, numbers.Integral if self.kind is int else numbers.Real)
        if not is_number or isinstance(value, bool):
            return False
        return abs(value) < math.inf and self.least <= value <= self.most and not (self.below and value == self.most)

    def __str__(self) -> str:
        """In words, as "a whole number from 1 to 8"."""
        names = {int: "whole number", float: "number", bool: "True or False", str: "text"}
        name = "path" if self.is_path else names[self.kind]
        if self.many:
            example = "('a', 'b')" if self.kind is str else "(1, 2)"
            number = f"{self.count} " if self.count else "one or more " if self.filled else ""
            rising = " in rising order" if self.rising else ""
            name = f'a tuple of {number}{name}s{rising} such as "{example}"'
        elif self.kind is not bool:
            name = f"a {name}"
        if self.least == -math.inf:
            return name
        least, most = (f"{bound:g}" if self.kind is float else str(bound) for bound in (self.least, self.most))
        each = ", each" if self.many else ""
        if self.most == math.inf:
            return f"{name}{each} of at least {least}"
        return f"{name}{each} from {least} to {'below ' if self.below else ''}{most}"


def whole(least: int, most: int = LARGEST) -> Range:
    """One whole number."""
    return Range(int, least, most)


def number(least: float, most: float = math.inf) -> Range:
    """One number."""
    return Range(float, least, most)


def several(one: Range, count: int | None = None) -> Range:
    """A tuple of such values."""
    return dataclasses.replace(one, many=True, count=count)


def some(one: Range) -> Range:
    """A tuple of one such value or more."""
    return dataclasses.replace(several(one), filled=True)


def least_and_most(one: Range) -> Range:
    """A tuple of two such values, of which the first is not above the second."""
    return dataclasses.replace(several(one, 2), rising=True)


FLAG, TEXT, PATH = Range(bool), Range(str), Range(str, is_path=True)
SHARE = number(0, 1)
SHARE_BELOW_1 = Range(float, 0, 1, below=True)
WIDTH = whole(1, 2**16)
COUNT = whole(1, 2**10)
SIDE = whole(1, 2**14)
SEED = whole(0, 2**32 - 1)

DRAWING = {
    "layout": TEXT,
    "train": whole(0, 10**6),
    "val": whole(0, 10**6),
    "test": whole(0, 10**6),
    "frames": whole(1, 10**5),
    "train_frames": whole(0, 10**5),  # 0: as frames.
    "height": whole(8, 2**13),
    "width": whole(8, 2**13),
    "seed": SEED,
    "colours": TEXT,
    "disturbances": TEXT,
    "source": PATH,
    "records": PATH,
}
"""Fields of `generate`: of `data.generate`, of a member of the mixture, and options of data_prep.generate."""

RANGES: dict[str, Range] = {
    "seed": SEED,
    "init_from": TEXT,
    "init_from_key": TEXT,
    "task.name": TEXT,
    "task.weight": number(0),
    "task.start_step": whole(0),
    "task.start_epoch": whole(0, 10**6),  # 0: start_step tells.
    "task.warmup_steps": whole(0),
    "task.threshold": SHARE,
    "task.averaged_over": TEXT,
    "model.image_size": some(SIDE),
    "model.num_classes": whole(1, 2**15),
    "model.dtype": TEXT,
    "model.remat": TEXT,
    "model.encoder.name": TEXT,
    "model.encoder.dim": WIDTH,
    "model.encoder.depth": COUNT,
    "model.encoder.heads": WIDTH,
    "model.encoder.dims": some(WIDTH),
    "model.encoder.reductions": some(COUNT),
    "model.encoder.epsilons": TEXT,
    "model.encoder.mlp_ratio": number(0.01, 100),
    "model.encoder.layer_scale": number(0),
    "model.encoder.drop_path": SHARE_BELOW_1,
    "model.encoder.out_blocks": some(COUNT),
    "model.encoder.stem": TEXT,
    "model.encoder.width": WIDTH,
    "model.encoder.depths": some(COUNT),
    "model.encoder.output_stride": WIDTH,
    "model.encoder.stem_width": WIDTH,
    "model.encoder.bottleneck_width": WIDTH,
    "model.encoder.bottlenecks": COUNT,
    "model.encoder.modules": some(COUNT),
    "model.encoder.blocks": COUNT,
    "model.encoder.upsampling": TEXT,
    "model.encoder.head_dim": WIDTH,
    "model.encoder.window": COUNT,
    "model.encoder.hidden": WIDTH,
    "model.encoder.pretrained_side": COUNT,
    "model.encoder.levels": COUNT,
    "model.encoder.overlaps": FLAG,
    "model.encoder.relative_positions": FLAG,
    "model.encoder.group_width": WIDTH,
    "model.encoder.reach": number(0, 100),
    "model.encoder.post_norm": FLAG,
    "model.encoder.modulation_norm": FLAG,
    "model.encoder.normalize_modulator": FLAG,
    "model.encoder.adapter_channels": WIDTH,
    "model.encoder.adapter_heads": WIDTH,
    "model.encoder.adapter_points": COUNT,
    "model.encoder.adapter_value_ratio": number(0.01, 100),
    "model.encoder.adapter_ffn_ratio": number(0.01, 100),
    "model.encoder.extra_extractors": whole(0, 2**10),
    "model.decoder.name": TEXT,
    "model.decoder.dim": WIDTH,
    "model.decoder.heads": WIDTH,
    "model.decoder.points": COUNT,
    "model.decoder.encoder_ffn_dim": WIDTH,
    "model.decoder.ffn_dim": WIDTH,
    "model.decoder.encoder_layers": COUNT,
    "model.decoder.decoder_layers": COUNT,
    "model.decoder.num_queries": WIDTH,
    "model.decoder.query_std": number(1e-6, 100),
    "model.decoder.norm_groups": WIDTH,
    "model.decoder.pool_scales": some(COUNT),
    "model.decoder.dropout": SHARE_BELOW_1,
    "model.decoder.dropped": TEXT,
    "model.decoder.variant": TEXT,
    "model.decoder.dilations": some(COUNT),
    "model.decoder.num_convs": COUNT,
    "model.decoder.conv_size": COUNT,
    "model.decoder.concat_input": FLAG,
    "model.decoder.inputs": TEXT,
    "model.decoder.align_corners": FLAG,
    "model.decoder.auxiliary_dim": whole(0, 2**16),  # 0: no auxiliary head.
    "model.decoder.auxiliary_size": COUNT,
    "model.decoder.auxiliary_level": whole(0),
    "model.decoder.auxiliary_dropout": SHARE_BELOW_1,
    "model.decoder.level": whole(0),
    "model.decoder.memory_dim": WIDTH,
    "model.decoder.memory_space": TEXT,
    "model.decoder.mask": TEXT,
    "model.decoder.first_sight": TEXT,
    "model.decoder.momentum": SHARE,
    "model.decoder.momentum_follows_rate": FLAG,
    "model.decoder.truth_steps": whole(0),
    "model.decoder.truth_epochs": whole(0, 10**6),  # 0: truth_steps tells.
    "model.decoder.past": COUNT,
    "model.decoder.past_frames": TEXT,
    "model.decoder.key_dim": WIDTH,
    "model.decoder.value_dim": WIDTH,
    "model.decoder.short_term": COUNT,
    "model.decoder.blocks": whole(0, 2**10),  # 0: no transformer.
    "model.decoder.window": several(COUNT, 3),
    "model.decoder.shift": FLAG,
    "model.decoder.mlp_ratio": number(0.01, 100),
    "model.decoder.context": TEXT,
    "model.decoder.reference": TEXT,
    "model.decoder.distance": COUNT,
    "model.decoder.clusters": whole(0, 2**10),  # 0: none.
    "model.decoder.cluster_update": TEXT,
    "model.projection.dim": whole(0, 2**16),  # 0: no projection.
    "model.projection.hidden": whole(0, 2**16),  # 0: as wide as its input.
    "model.projection.layers": whole(2, 64),
    "model.projection.input": TEXT,
    "model.projection.level": whole(0),
    "model.bank.kind": TEXT,
    "model.bank.slots": whole(1, 10**5),
    "model.bank.images": whole(1, 10**6),
    "loss.weight": number(0),
    "loss.segmentation.weights.cls": number(0),
    "loss.segmentation.weights.mask": number(0),
    "loss.segmentation.weights.dice": number(0),
    "loss.segmentation.weights.pixel": number(0),
    "loss.segmentation.weights.auxiliary": number(0),
    "loss.segmentation.weights.first_pass": number(0),
    "loss.segmentation.weights.memory": number(0),
    "loss.segmentation.weights.clusters": number(0),
    "loss.segmentation.memory_start_step": whole(0),
    "loss.segmentation.memory_start_epoch": whole(0, 10**6),  # 0: memory_start_step tells.
    "loss.segmentation.matching.cls": number(0),
    "loss.segmentation.matching.mask": number(0),
    "loss.segmentation.matching.dice": number(0),
    "loss.segmentation.no_object_weight": number(0),
    "loss.segmentation.num_points": whole(1, 10**6),
    "loss.segmentation.oversample": number(1, 1000),
    "loss.segmentation.importance": SHARE,
    "loss.segmentation.void": TEXT,
    "loss.segmentation.capacity": whole(1, 255),
    "loss.segmentation.averaged_over": TEXT,
    "loss.segmentation.class_weight": dataclasses.replace(
        several(number(0)),
        otherwise="Weights from the training pixels have --config.loss.segmentation.class_weight_from=inverse_log, "
        "those of a file class_weight_from=FILE.",
    ),
    "loss.segmentation.class_weight_from": TEXT,
    "loss.nce.weight": number(0),
    "loss.nce.start_step": whole(0),
    "loss.nce.warmup_steps": whole(0),
    "loss.nce.normalise": FLAG,
    "loss.nce.temperature": number(1e-5),
    "loss.nce.level": whole(0),
    "loss.nce.scope": TEXT,
    "loss.nce.groups": WIDTH,
    "loss.nce.labels": TEXT,
    "loss.nce.min_share": SHARE,
    "loss.nce.negatives": whole(0),  # 0: all.
    "loss.nce.self_positive": FLAG,
    "loss.nce.block": TEXT,
    "loss.pne.weight": number(0),
    "loss.pne.start_step": whole(0),
    "loss.pne.warmup_steps": whole(0),
    "loss.pne.form": TEXT,
    "loss.pne.temperature": number(1e-5),
    "loss.pne.anchors": whole(1, 10**6),
    "loss.pne.samples": whole(1, 10**6),
    "loss.pne.capacity": whole(1, 10**6),
    "loss.pne.hard_share": number(1e-5, 1),
    "loss.pne.level": whole(0),
    "loss.prototypes.temperature": number(1e-5),
    "loss.prototypes.weights.first": number(0),
    "loss.prototypes.weights.second": number(0),
    "loss.prototypes.weights.mixed": number(0),
    "loss.prototypes.mixing": several(TEXT),
    "loss.prototypes.mixing_alpha": number(1e-3, 1e3),
    "loss.prototypes.sparse_views": several(TEXT),
    "loss.prototypes.alpha": SHARE,
    "loss.prototypes.top": whole(0, 255),
    "loss.prototypes.own_in_top": FLAG,
    "optimizer.name": TEXT,
    "optimizer.learning_rate": number(1e-12),  # 0 would train nothing.
    "optimizer.beta1": SHARE_BELOW_1,
    "optimizer.beta2": SHARE_BELOW_1,
    "optimizer.momentum": SHARE_BELOW_1,
    "optimizer.nesterov": FLAG,
    "optimizer.weight_decay": number(0),
    "optimizer.decayed": TEXT,
    "optimizer.layer_decay": number(0.01, 1),  # 0 would train the last layer alone.
    "optimizer.decoder_rate": number(0.001, 1000),  # 0 would not train the decoder.
    "optimizer.clip_norm": number(0),  # 0: no clipping.
    "optimizer.embeddings_at_layer_0": FLAG,
    "schedule.name": TEXT,
    "schedule.warmup_steps": whole(0),
    "schedule.warmup_ratio": SHARE,
    "schedule.minimum": number(0),
    "schedule.power": number(0),
    "train.steps": whole(1),
    "train.epochs": whole(0, 10**6),  # 0: train.steps tells.
    "train.batch": whole(1, 2**16),
    "train.accumulate": whole(1, 2**16),
    "sharding.fsdp": whole(0),  # 0: all devices.
    "sharding.whole_below": whole(0),
    "ema.decay": SHARE_BELOW_1,
    "ema.warmup": FLAG,
    "ema.statistics": TEXT,
    "data.records": PATH,
    "data.train_split": TEXT,
    "data.eval_split": TEXT,
    "data.frames": COUNT,
    "data.frame_gap": whole(1),
    "data.chosen": TEXT,
    "data.reference_distance": several(whole(1)),
    "data.views": TEXT,
    "data.labelled_frames": TEXT,
    "data.labels_seed": SEED,
    "data.unlabelled_share": SHARE_BELOW_1,
    "data.epoch": TEXT,
    "data.fits": several(TEXT),
    "data.min_mapped": SHARE,
    "data.denominator": TEXT,
    "data.classes": TEXT,
    "data.weight": number(0.001, 1000),
    "data.workers": whole(0, 1000),  # 0: threads of this process.
    "data.threads": COUNT,
    "data.prefetch": COUNT,
    "data.augment.base_size": several(SIDE, 2),
    "data.augment.resize_ratio": least_and_most(number(0.01, 100)),
    "data.augment.max_class_share": SHARE,
    "data.augment.shrink_in_decoding": FLAG,
    "data.augment.photometric": FLAG,
    "data.augment.strong.jitter": several(SHARE, 4),
    "data.augment.strong.jitter_chance": SHARE,
    "data.augment.strong.grey_chance": SHARE,
    "data.augment.strong.blur_chance": SHARE,
    "data.augment.strong.blur_sigma": least_and_most(number(0.01, 100)),
    **{f"data.generate.{name}": allowed for name, allowed in DRAWING.items()},
    "data.generate.train": whole(1, 10**6),
    "data.mixture.*.records": PATH,
    "data.mixture.*.split": TEXT,
    "data.mixture.*.weight": number(0.001, 1000),
    "data.mixture.*.epoch": TEXT,
    "data.mixture.*.frame_gap": whole(1),
    "data.mixture.*.fits": several(TEXT),
    "data.mixture.*.min_mapped": SHARE,
    "data.mixture.*.denominator": TEXT,
    **{f"data.mixture.*.generate.{name}": allowed for name, allowed in DRAWING.items()},
    "data.mixture.*.generate.train": whole(1, 10**6),
    "evaluate.weights": TEXT,
    "evaluate.stride": several(SIDE),
    "evaluate.batch": WIDTH,
    "evaluate.windows": WIDTH,
    "evaluate.flip": FLAG,
    "evaluate.flow_weight": number(0, 0.99),
    "evaluate.scales": several(number(0.01, 100)),
    "evaluate.double_softmax": FLAG,
    "evaluate.stages": whole(0, 100),
    "evaluate.save_scores": FLAG,
    "evaluate.top_classes": whole(0, 255),  # 0: all.
    "evaluate.opacity": SHARE,
    "run.log_every": whole(1),
    "run.save_every": whole(1),
    "run.save_in_background": FLAG,
    "run.keep": whole(1, 10**6),
    "run.picture_every": whole(1),
    "run.non_finite": TEXT,
    "run.most_skipped": whole(0),
    "run.profile_steps": several(whole(0)),
    "run.wandb": FLAG,
    "run.compile_to_inspect": FLAG,
    "run.afterwards": several(TEXT),
}
"""By the field's dotted name."""

OPTIONAL = {
    f"{part}.generate.{name}"
    for part in ("data", "data.mixture.*")
    for name in ("test", "frames", "train_frames", "disturbances")
}
"""Fields that their section may lack."""


def _pattern(name: str) -> str:
    return re.sub(r"^data\.mixture\.[^.]+", "data.mixture.*", name)


def range_of(name: str) -> Range | None:
    """The range of a field by its dotted name, None if there is no such field."""
    return RANGES.get(_pattern(name))


def section_fields(section: str) -> set[str]:
    """The fields that a section of this dotted name has in every recipe; where it has a name, that alone is sure."""
    found = {name.rpartition(".")[2] for name in RANGES if name.rpartition(".")[0] == _pattern(section)}
    optional = {name.rpartition(".")[2] for name in OPTIONAL if name.rpartition(".")[0] == _pattern(section)}
    return {"name"} if "name" in found else found - optional


def check(name: str, value: Any, allowed: Range) -> None:
    """Raises UserError where a value lies outside of a range; `name` is that of the field or option."""
    if not allowed.holds(value):
        found = "empty" if value == "" else repr(value)
        raise UserError(f"{name} is {found}: expected {allowed}. {allowed.otherwise}".rstrip())


def check_options(options: argparse.Namespace, allowed: Mapping[str, Range]) -> None:
    """Raises UserError where an option of a command lies outside of its range; those without a value may be left out.

    Args:
      allowed: range by the option's name in `options`; a command may lack some.
    """
    for name, one in allowed.items():
        if getattr(options, name, None) is not None:
            check(flag(name), getattr(options, name), one)


def flag(name: str) -> str:
    """The flag of an option: --short-side for short_side."""
    return f"--{name.replace('_', '-')}"


def check_values(fields: Mapping[str, Any]) -> None:
    """Raises UserError where a field is unknown or lies outside of its range.

    Args:
      fields: of a recipe, by dotted name.
    """
    for name, value in fields.items():
        allowed = range_of(name)
        if allowed is None:
            near = nearest(name, RANGES)
            hint = f" Did you mean {near}?" if near else ""
            raise UserError(f"The recipe has a field {name}, which nothing reads.{hint}")
        check(name, value, allowed)
