"""The data sets that a run trains on: `config.data` itself, and those of `config.data.mixture`.

Joint training regards its data sets as a whole (paper 000, section 2.2): if every weight is 1, each element (video,
frame or image) is drawn as often as any other, and an epoch of the whole is one epoch of each member. The elements of a
data set of weight 2 are drawn twice as often.

The labels are those of the main data set's classes, to which the others' are mapped, or those of the union of all data
sets' own classes (paper 003).

Clips are drawn around frames that have a mask, as around others there may be nothing to learn. Where labels are
withheld (see `labelled_frames.py`), the main data set's clips are drawn around its labelled frames. With
`data.unlabelled_share` so large a part of its clips is drawn around unlabelled ones, and has no label at all: to the
stream they are a member of their own, of the same records. The other members keep all their labels.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from ml_collections import ConfigDict

from vspw_jax.classes import class_union, label_maps
from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError, choose, listed
from vspw_jax.data import clips, labelled_frames, records

MAIN = "main"
"""The name of the data set of `config.data` itself among the members."""
OWN_CLASSES = {"main": False, "union": True}
"""Values of `config.data.classes`: whether each data set's own classes count, or those of the main one."""
MOSTLY = 0.5
"""Of a split's frames with masks, from which share on a clip with gaps mostly holds one."""
UNLABELLED = "unlabelled"
"""The name of its clips without labels."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A data set of the mixture.

    Attributes:
      name: the key in `config.data.mixture`, or MAIN.
      frames: its records.
      epoch: an epoch of its videos, counted as one of `clips.EPOCHS`; it chooses frames with a mask.
      frame_gap: records from one frame of a clip to the next.
      weight: how often an element is drawn, relative to the other members' elements.
      classes: of the mixture's labels.
      part: the data set's among these; None where its train ids are the labels.
    """

    name: str
    frames: records.Frames
    epoch: clips.VideoEpoch | clips.FrameEpoch
    frame_gap: int
    weight: float
    classes: ClassList
    part: class_union.Part | None = None

    @property
    def holds_images(self) -> bool:
        """Whether its frames are single images: none has a neighbour."""
        return all(video.count == 1 for video in self.frames.videos)

    def draws(self, num_frames: int) -> float:
        """How many clips of `num_frames` an epoch has, times the weight; a clip holds several single images."""
        return self.weight * len(self.epoch) / (num_frames if self.holds_images else 1)


def identity(members: Sequence[Member]) -> dict[str, str]:
    """What decides the training data besides the config: a line for each member. Other data or label maps change it."""
    return {member.name: _describe(member.frames) for member in members}


def clips_of_epoch(members: Sequence[Member], num_frames: int) -> float:
    """How many clips of `num_frames` an epoch of the whole has."""
    return sum(member.draws(num_frames) for member in members)


def report(members: Sequence[Member], num_frames: int) -> str:
    """What a run on clips of `num_frames` draws from, a line for each member."""
    total = clips_of_epoch(members, num_frames)
    return "\n".join(
        f"{member.name}: {member.frames.dataset} {member.frames.split}, "
        f"{100 * member.draws(num_frames) / total:.1f} % of the clips; {member.frames.note or member.frames.kept}"
        for member in members
    )


def _describe(frames: records.Frames) -> str:
    # Not the tables as a whole, but what they make of this data set's values: a renamed COCO class is no change.
    table = hashlib.sha256(frames.lookup.tobytes() + "\n".join(frames.classes.names).encode())
    has_mask = _has_mask(frames)
    labelled = "" if has_mask.all() else f", {has_mask.sum()} of them with a mask"  # Which decides the order.
    return (
        f"{frames.dataset} {frames.split}, {has_mask.size} frames{labelled}, "
        f"fingerprint {frames.fingerprint}, class table {table.hexdigest()[:16]}"
    )


def _has_mask(frames: records.Frames) -> Bool[np.ndarray, " F"]:
    """Whether each frame of the videos of a split has a mask."""
    has_mask_N = frames.has_mask_N()
    return np.concatenate([has_mask_N[video.start : video.start + video.count] for video in frames.videos])


def members(config: ConfigDict) -> list[Member]:
    """The members of a mixture, MAIN first.

    Args:
      config: `config.data`: records, train_split, epoch, frame_gap, weight, the options of `records.Frames`; mixture,
        which has the same fields for each further data set by its name (train_split is called split there); and for the
        main data set alone classes (a key of `OWN_CLASSES`), labelled_frames, labels_seed, unlabelled_share.

    Raises:
      UserError: data is missing or damaged, no frame of a member passes its filter, or a field has an unknown value.
    """
    for name in (MAIN, UNLABELLED):
        if name in config.mixture:
            raise UserError(f"data.mixture.{name}: the name {name!r} is the main data set's. Choose another.")
    own = has_own_classes(config)
    main, *unlabelled = _with_labels(_member(MAIN, "data", config, config.train_split, own), config)
    others = [
        _member(name, f"data.mixture.{name}", config.mixture[name], config.mixture[name].split, own)
        for name in sorted(config.mixture)
    ]
    found = [main, *others, *unlabelled]
    if not own:
        return found
    union = class_union.of((member.name, member.frames.dataset, member.classes) for member in (main, *others))
    return [
        dataclasses.replace(member, classes=union, part=class_union.part_for(union, member.classes, member.frames.path))
        for member in found
    ]


def _with_labels(main: Member, config: ConfigDict) -> list[Member]:
    """The main member with the labels that `config`, which is `config.data`, leaves it; and its unlabelled clips."""
    if not labelled_frames.is_sparse(config):
        return [main]
    frames, make_epoch = main.frames, clips.EPOCHS[config.epoch]
    index = [(video.name, video.count) for video in frames.videos]
    labelled_N = labelled_frames.labelled(config.labelled_frames, config.labels_seed, index, frames.has_mask_N())
    labelled = frames.with_labels_of(labelled_N)
    _check_teaches(labelled, "data", config)
    found = [dataclasses.replace(main, frames=labelled, epoch=make_epoch(frames.videos, labelled_N))]
    if config.unlabelled_share:
        epoch = make_epoch(frames.videos, ~labelled_N)
        if not len(epoch):
            advice = (
                "Of single images each label is kept. Train on videos, or set --config.data.unlabelled_share=0."
                if main.holds_images
                else "Set --config.data.labelled_frames=drawn, say, or --config.data.unlabelled_share=0."
            )
            raise UserError(
                f"data.unlabelled_share is {config.unlabelled_share:g}, but data.labelled_frames="
                f"{config.labelled_frames} leaves no frame of {frames.path} ({frames.split}) without a label. {advice}"
            )
        share = config.unlabelled_share / (1 - config.unlabelled_share)
        weight = main.weight * share * len(found[0].epoch) / len(epoch)
        without = frames.with_labels_of(np.zeros_like(labelled_N))
        found.append(dataclasses.replace(main, name=UNLABELLED, frames=without, epoch=epoch, weight=weight))
    return found


def has_own_classes(config: ConfigDict) -> bool:
    """Whether each data set's own classes count; `config` is `config.data`."""
    return choose(OWN_CLASSES, config.classes, "data.classes")


def classes_of(config: ConfigDict) -> ClassList | None:
    """The classes of a mixture's labels; None where records are missing that it needs and that no recipe draws.

    Raises:
      UserError: records of an older layout, or an unknown value of `config.classes` or of a drawing's layout.
    """
    own = has_own_classes(config)
    sets = {MAIN: config}
    if own:
        sets |= {name: config.mixture[name] for name in sorted(config.mixture)}
    metadata = {name: _metadata(data) for name, data in sets.items()}
    found = {name: records.labels_of(one, own) for name, one in metadata.items() if one}
    if len(found) < len(sets):
        return None
    return class_union.of((name, labels.dataset, labels.classes) for name, labels in found.items())


def is_drawn(data: ConfigDict) -> bool:
    """Whether the recipe draws a data set itself: `config.data` or a member, whose records are not replaced."""
    return "generate" in data and data.records == data.generate.records


def _metadata(data: ConfigDict) -> dict[str, Any] | None:
    """What the records of a data set say of its labels, or will say once they are drawn; None where there are none."""
    if records.exist(data.records):
        return records.read_metadata(data.records)
    if not is_drawn(data):
        return None
    dataset = data.generate.layout
    numbering, *_ = choose(label_maps.NUMBERINGS, dataset, "data.generate.layout")  # All have the same classes.
    return {"dataset": dataset, "numbering": numbering}


def _member(name: str, field: str, config: ConfigDict, split: str, own: bool) -> Member:
    frames = records.Frames(config.records, split, config.fits, config.min_mapped, config.denominator, own)
    if not frames.videos:
        raise UserError(f"Split {split!r} of {frames.path} has no frames to train on.")
    _check_teaches(frames, field, config)
    videos = clips.EPOCHS[config.epoch](frames.videos, frames.has_mask_N())
    return Member(name, frames, videos, config.frame_gap, config.weight, frames.classes)


def _check_teaches(frames: records.Frames, field: str, config: ConfigDict) -> None:
    """Raises UserError where no label that counts is left."""
    if frames.highest_class < 0:
        kept = len(frames) if frames.labelled_N is None else frames.labelled_N.sum()
        withheld = "" if frames.labelled_N is None else f" (data.labelled_frames={config.labelled_frames})"
        raise UserError(
            f"No pixel of split {frames.split!r} of {frames.path} has a class: its {kept} masks{withheld} are void or "
            f"missing, so there is nothing to learn. Name another split or other data in {field}, or let more classes "
            f"of it count: {field}.fits is {tuple(config.fits)}."
        )


def check_classes(members: Sequence[Member], num_classes: int) -> None:
    """Raises UserError where members have different classes, or labels of classes that the network lacks."""
    first, *others = members
    for member in others:
        if member.classes.names != first.classes.names:
            raise UserError(
                f"{first.frames.path} has {len(first.classes)} classes ({listed(first.classes.names, 3)}), "
                f"{member.frames.path} {len(member.classes)} others ({listed(member.classes.names, 3)}): expected data "
                "sets of the same classes in config.data and config.data.mixture. To learn the classes of all: "
                "--config.data.classes=union."
            )
    for member in members:
        highest = member.frames.highest_class
        highest = highest if member.part is None else int(member.part.numbers[highest])
        if highest >= num_classes:
            raise UserError(
                f"{member.frames.path} ({member.frames.split}) holds class {highest}, "
                f"{member.classes.name(highest)!r}, but the network has {num_classes} classes. "
                f"Set --config.model.num_classes={len(member.classes)}."
            )


def check_lengths(members: Sequence[Member], config: ConfigDict) -> None:
    """Raises UserError where no video of a member is long enough for a clip of `config`, which is `config.data`.

    Shorter videos beside longer ones repeat a frame. Single images have clips of their own. A reference frame is no
    neighbour, but some video must have one as far away as the least that is asked for.
    """
    num_frames = config.frames - bool(config.reference_distance)
    for member in members:
        if member.holds_images:
            continue
        longest = max(video.count for video in member.frames.videos)
        needed = (num_frames - 1) * member.frame_gap + 1
        place = f"{member.frames.path} ({member.frames.split}, {member.name!r})"
        if longest < needed:
            raise UserError(
                f"No video of {place} is long enough for a clip: the longest has {longest} frames, and {num_frames} "
                f"frames {member.frame_gap} apart need {needed}. Lower --config.data.frames or its frame_gap; where "
                "the decoder reads the frames before, its model.decoder.past or short_term too."
            )
        if config.reference_distance and longest <= config.reference_distance[0]:
            raise UserError(
                f"No video of {place} has a reference frame as far away as data.reference_distance "
                f"{tuple(config.reference_distance)} asks for: the longest has {longest} frames, expected more than "
                f"{config.reference_distance[0]}. Set --config.data.reference_distance='(1, {longest - 1})', say."
            )


def check_labels(members: Sequence[Member], config: ConfigDict, decoded: int) -> None:
    """Raises UserError where many clips of `config`, which is `config.data`, may hold no mask of a frame that teaches.

    A clip is drawn around a frame with a mask. It may miss that frame where it has gaps, or where its last ones alone
    teach.

    Args:
      decoded: how many frames of a clip teach, the last ones.
    """
    if config.chosen == "last" or config.frames == 1:
        return
    for member in members:
        share = _has_mask(member.frames).mean()
        may_miss = decoded < config.frames or (member.frame_gap > 1 and share < MOSTLY)
        if share < 1 and may_miss and not member.holds_images:
            raise UserError(
                f"{member.frames.path} ({member.frames.split}, {member.name!r}) has frames without a mask, and clips "
                f"of {config.frames} frames {member.frame_gap} apart, of which the last {decoded} teach, begin with "
                "one that has a mask: expected clips that end on it. Set --config.data.chosen=last."
            )


def check_follow(members: Sequence[Member], decoder: str) -> None:
    """Raises UserError where a member's clips are unrelated images, though a decoder learns from what comes before."""
    for member in members:
        if member.holds_images:
            raise UserError(
                f"{member.frames.path} ({member.frames.split}, {member.name!r}) holds single images, and the decoder "
                f"{decoder} learns from frames that follow each other: expected videos alone. Leave that data set out "
                "of config.data.mixture, or choose another decoder."
            )


def check_capacity(members: Sequence[Member], capacity: int) -> None:
    """Raises UserError where a frame of a member holds more classes than the loss has room for."""
    member = max(members, key=lambda member: member.frames.max_classes)
    frames = member.frames
    if frames.max_classes > capacity:
        raise UserError(
            f"A frame of {frames.path} ({frames.split}, {member.name!r}) holds {frames.max_classes} classes, "
            f"but the loss has room for {capacity}. "
            f"Set --config.loss.segmentation.capacity={frames.max_classes} or more."
        )
