"""What looks wrong with predictions, in words that say what to do."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

from vspw_jax.classes import vspw
from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError, listed
from vspw_jax.metrics.confusion import class_sums
from vspw_jax.metrics.counts import VideoCounts

MOST_NAMED = 6
RAW_IDS_HINT = ", as if they were the raw ids 1..124 of VSPW's masks: give --masks-are=raw_ids"

SHIFT_FACTOR = 2
"""Ids one higher or lower must agree with the labels so many times as often before a sentence says so."""

Matrix = Int64[np.ndarray, "K K"]


def require_labels(counts: Sequence[VideoCounts]) -> None:
    """Raises UserError where no pixel can be scored."""
    if any(video.pairs.size for video in counts):
        return
    void, unfit = (sum(getattr(video, name) for video in counts) for name in ("void", "unfit"))
    frames = sum(len(video.frames) for video in counts)
    if unfit:
        raise UserError(
            f"None of the labels fits the network: all {unfit} labelled pixels are of classes {counts[0].num_classes} "
            "or more, which it does not have. Set --config.model.num_classes to the data's, 124 for VSPW."
        )
    raise UserError(
        f"No pixel has a label: all {void} pixels of {frames} frames are void, so there is nothing to score. Do the "
        "masks hold 0 and 255 alone? python -m data_prep.verify --records=DIR shows what is in them."
    )


def explain(counts: Sequence[VideoCounts], matrix_KK: Matrix, classes: ClassList) -> list[str]:
    """Sentences about what looks wrong; none where nothing does.

    Args:
      counts: of all videos.
      matrix_KK: their confusion matrix.
      classes: those of the data.
    """
    checks = (_unfit, _beyond, _unlabelled, _one_class, _shifted, _repeated, _never_predicted)
    return [sentence for check in checks for sentence in check(counts, matrix_KK, classes)]


def _unfit(counts: Sequence[VideoCounts], matrix_KK: Matrix, classes: ClassList) -> Iterator[str]:
    unfit, labelled = sum(video.unfit for video in counts), matrix_KK.sum()
    if unfit:
        yield (
            f"The labels do not fit the network: {100 * unfit / (unfit + labelled):.1f} % of the labelled pixels are "
            f"of classes {len(matrix_KK)} or more, which it does not have. They are left out of every score, so that "
            f"these figures are no scores of the data, which has {len(classes)} classes: "
            f"--config.model.num_classes={len(classes)}."
        )


def _beyond(counts: Sequence[VideoCounts], matrix_KK: Matrix, classes: ClassList) -> Iterator[str]:
    beyond = matrix_KK[:, len(classes) :].sum()
    if beyond:
        yield (
            f"{100 * beyond / matrix_KK.sum():.1f} % of the labelled pixels are predicted to be classes that the data "
            f"lacks: the network has {len(matrix_KK)}, the data {len(classes)}. Was it trained on another data set? "
            "With --config.init_from its weights start a head of the data's classes, which then must be trained."
        )


def _unlabelled(counts: Sequence[VideoCounts], matrix_KK: Matrix, classes: ClassList) -> Iterator[str]:
    empty = sum(int((video.frames[:, 0] == 0).sum()) for video in counts)
    frames = sum(len(video.frames) for video in counts)
    if empty:
        videos = [video.video for video in counts if not video.frames[:, 0].any()]
        named = f" Videos without any: {listed(videos, MOST_NAMED)}." if videos else ""
        yield (
            f"{empty} of {frames} frames have no labelled pixel: all void. They count in VC8 and VC16 alone, as the "
            f"devkit has it.{named}"
        )


def _one_class(counts: Sequence[VideoCounts], matrix_KK: Matrix, classes: ClassList) -> Iterator[str]:
    predicted = np.flatnonzero(matrix_KK.sum(axis=0))
    if len(predicted) == 1 and np.count_nonzero(matrix_KK.sum(axis=1)) > 1:
        yield (
            f"Every pixel is predicted to be {classes.name(int(predicted[0]))!r}. The network has not learned yet, its "
            "learning rate drove it to a constant, or other weights were loaded than meant. VC is 100 for any "
            "constant: it says nothing here."
        )


def _shifted(counts: Sequence[VideoCounts], matrix_KK: Matrix, classes: ClassList) -> Iterator[str]:
    total, right = matrix_KK.sum(), np.trace(matrix_KK)
    for offset, what in (
        (1, "one too high" + (RAW_IDS_HINT if vspw.are(classes) else "")),
        (-1, f"one too low, as if 1 had been taken off twice: they should be train ids 0..{len(classes) - 1}"),
    ):
        moved = np.trace(matrix_KK, offset=offset)
        if moved > SHIFT_FACTOR * right and moved > total / 4:
            yield (
                f"The predicted ids look {what}. So read, {100 * moved / total:.1f} % of the pixels would be right; as "
                f"they are, {100 * right / total:.1f} %."
            )
            return


def _repeated(counts: Sequence[VideoCounts], matrix_KK: Matrix, classes: ClassList) -> Iterator[str]:
    pairs = sum(max(len(video.frames) - 1, 0) for video in counts)
    repeated = sum(video.repeated for video in counts)
    if pairs and repeated == pairs and len(np.flatnonzero(matrix_KK.sum(axis=0))) > 1:
        yield (
            "The prediction never changes within a video: each frame has its first frame's, pixel for pixel. Was one "
            "frame predicted for all, or one file copied?"
        )


def _never_predicted(counts: Sequence[VideoCounts], matrix_KK: Matrix, classes: ClassList) -> Iterator[str]:
    _, labelled_K, predicted_K = class_sums(matrix_KK)
    missing = np.flatnonzero((labelled_K > 0) & (predicted_K == 0))
    present = np.count_nonzero(labelled_K)
    if len(missing):
        missing = missing[np.argsort(-labelled_K[missing], kind="stable")]
        share = 100 * labelled_K[missing].sum() / labelled_K.sum()
        yield (
            f"{len(missing)} of the {present} classes that occur are never predicted ({share:.1f} % of the labelled "
            f"pixels): {listed([classes.name(int(k)) for k in missing], MOST_NAMED)}. Each counts as 0 in mIoU."
        )
