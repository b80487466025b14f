"""Which frames of a training split keep their labels: `config.data.labelled_frames`.

"all", "first", "middle", "drawn" (one of each video), or a share of each video's frames such as "0.25". Only frames
that have a mask are labelled: the rule chooses among these. What is drawn follows from `data.labels_seed`, the video's
name and the frame's place in it, whatever other videos there are; a larger share keeps all frames of a smaller one.
The labels of all other frames are withheld: their records have no mask, see `records.Frames.with_labels_of`.

A run may learn from clips around unlabelled frames too (`config.data.unlabelled_share`); see `mixture.py`. VSPW labels
every frame, so that one label a video is a choice of the experiment; paper 002 does not say which frame has it.
Shapes: N records of a split.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Int
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError

ALL, DRAWN = "all", "drawn"
Offsets = Int[np.ndarray, " n"]
"""Places of frames in a video, in rising order."""
ONE: dict[str, Callable[[Offsets], Offsets]] = {
    "first": lambda offsets: offsets[:1],
    "middle": lambda offsets: offsets[len(offsets) // 2 :][:1],
}
"""Rules that keep a certain label of each video."""


def _share(rule: str) -> float | None:
    """The share that a rule names; None where it names none that there can be."""
    try:
        share = float(rule)
    except ValueError:
        return None
    return share if 0 < share < 1 else None


def is_sparse(config: ConfigDict) -> bool:
    """Whether clips are drawn around labelled frames; `config` is `config.data`."""
    return config.labelled_frames != ALL or config.unlabelled_share > 0


def check_rule(rule: str, field: str) -> None:
    """Raises UserError where a rule keeps no labels; `field` is what named it."""
    if rule not in (ALL, DRAWN, *ONE) and _share(rule) is None:
        raise UserError(
            f"{field} is {rule!r}: expected one of {', '.join(sorted((ALL, DRAWN, *ONE)))}, or a share of each video's "
            "frames between 0 and 1, such as 0.25."
        )


def check(config: ConfigDict) -> None:
    """Raises UserError where `config.data` keeps labels by no rule, or makes clips that may lack theirs."""
    rule = config.labelled_frames
    check_rule(rule, "data.labelled_frames")
    if not is_sparse(config):
        return
    if config.min_mapped:
        raise UserError(
            f"data.min_mapped is {config.min_mapped:g}, which leaves frames out by their labels, but "
            f"data.labelled_frames={rule} with data.unlabelled_share={config.unlabelled_share:g} has frames without "
            "labels. Set --config.data.min_mapped=0."
        )
    if config.chosen == "first" and config.frames > 1 and config.frame_gap > 1:
        raise UserError(
            f"Near the end of a video, a clip of {config.frames} frames {config.frame_gap} apart that begins with its "
            "labelled frame would have to leave that out. Set --config.data.chosen=last."
        )


def _drawn(offsets: Offsets, video: str, seed: int, count: int) -> Offsets:
    """The frames of least hash."""
    digest = lambda offset: hashlib.sha256(f"{seed}\0{video}\0{offset}".encode()).digest()
    return np.sort(np.array(sorted(offsets.tolist(), key=digest)[:count], np.int64))


def _of_video(offsets: Offsets, video: str, rule: str, seed: int) -> Offsets:
    """Those of a video's frames with masks that a rule keeps; of a share at least one."""
    if rule == ALL:
        return offsets
    if rule in ONE:
        return ONE[rule](offsets)
    count = max(round((_share(rule) or 0) * len(offsets)), 1)  # Of "drawn" one.
    return _drawn(offsets, video, seed, count)


def labelled(
    rule: str, seed: int, index: Sequence[tuple[str, int]], has_mask_N: Bool[np.ndarray, " N"]
) -> Bool[np.ndarray, " N"]:
    """Which records keep their labels.

    Args:
      rule: as `check` lets it pass.
      index: (name, number of records) of each video, in the records' order.
    """
    kept_N, start = np.zeros(len(has_mask_N), bool), 0
    for video, count in index:
        offsets = np.flatnonzero(has_mask_N[start : start + count])
        kept_N[start + _of_video(offsets, video, rule, seed)] = True
        start += count
    return kept_N
