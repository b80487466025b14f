"""Confusion matrix and the scores read off it, as VSPW's devkit computes them.

As in the devkit, pixels whose label is void do not count, whatever is predicted there; a class without labelled pixels
does not count in mIoU, even where it is predicted.
Source: VSPW-dataset/VSPW_baseline utils.py. Legend: K classes, N pixels, P runs of equal pixels.
"""

import cv2
import numpy as np
from jaxtyping import Float, Int, Int64, Num, UInt8
from numpy.typing import ArrayLike

VALUES = 256

ByClass = Num[np.ndarray, "... K"]
"""Pixels or scores by class."""


def _bytes(ids: ArrayLike) -> UInt8[np.ndarray, "..."]:
    """Ids as uint8; ValueError where they do not fit."""
    ids = np.asarray(ids)
    if ids.dtype != np.uint8 and ids.size and not 0 <= ids.min() <= ids.max() < VALUES:
        raise ValueError(f"ids from {ids.min()} to {ids.max()}: expected 0..{VALUES - 1}")
    return ids.astype(np.uint8, copy=False)


def pair_runs(
    label: Int[np.ndarray, "*shape"], prediction: Int[np.ndarray, "*shape"]
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"], Int64[np.ndarray, " P"]]:
    """Runs of equal (label, prediction) in two arrays of ids 0..255, read row by row.

    Masks are mostly long runs, so that there are about a fiftieth as many runs as pixels.

    Returns:
      (label_P, prediction_P, pixels_P).
    """
    if not label.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    # Interleaved, the two bytes of a pair are one number, "<u2" on machines of any byte order.
    pair_N = cv2.merge([_bytes(prediction).reshape(1, -1), _bytes(label).reshape(1, -1)]).reshape(-1).view("<u2")
    last_P = np.append(np.flatnonzero(pair_N[1:] != pair_N[:-1]), pair_N.size - 1)
    ended_P = pair_N[last_P]
    return ended_P >> 8, ended_P & 255, np.diff(last_P, prepend=-1)


def class_sums(matrix_KK: Num[np.ndarray, "... K K"]) -> tuple[ByClass, ByClass, ByClass]:
    """(hit_K, labelled_K, predicted_K): pixels by class that are right, that have the label, that have the prediction.

    Leading axes, such as one for videos, stay.
    """
    return np.diagonal(matrix_KK, axis1=-2, axis2=-1), matrix_KK.sum(axis=-1), matrix_KK.sum(axis=-2)


def iou(hit_K: ByClass, labelled_K: ByClass, predicted_K: ByClass) -> ByClass:
    """Intersection over union by class; NaN for a class without a labelled pixel. Leading axes stay."""
    union = labelled_K + predicted_K - hit_K
    return np.where(labelled_K > 0, hit_K / np.maximum(union, 1), np.nan)


def mean_present(values_K: ByClass, labelled_K: ByClass) -> Float[np.ndarray, "..."]:
    """Mean over the classes with labelled pixels; NaN where there is none. Leading axes stay."""
    present = labelled_K > 0
    total = np.where(present, values_K, 0).sum(axis=-1)
    count = present.sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def scores(hit_K: ByClass, labelled_K: ByClass, predicted_K: ByClass) -> dict[str, Float[np.ndarray, "..."]]:
    """mIoU over the classes with labelled pixels, frequency-weighted IoU, pixel and mean class accuracy.

    Arrays as of `class_sums`, integers or weighted sums of them; leading axes stay; NaN where nothing is labelled.
    """
    iou_K = iou(hit_K, labelled_K, predicted_K)
    total = np.maximum(labelled_K.sum(axis=-1), 1)
    empty = labelled_K.sum(axis=-1) == 0
    return {
        "mIoU": mean_present(iou_K, labelled_K),
        "fwIoU": np.where(empty, np.nan, np.where(labelled_K > 0, labelled_K * iou_K, 0).sum(axis=-1) / total),
        "pixel_accuracy": np.where(empty, np.nan, hit_K.sum(axis=-1) / total),
        "class_accuracy": mean_present(hit_K / np.maximum(labelled_K, 1), labelled_K),
    }


class ConfusionMatrix:
    """Counts (K, K) of pixels by label (row) and prediction (column)."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._pairs = np.zeros(VALUES * VALUES, np.int64)

    def add(self, label: Int[np.ndarray, "*shape"], prediction: Int[np.ndarray, "*shape"]) -> tuple[int, int]:
        """Adds pixels, with ids 0..255; labels of K or more are void, predictions are 0..K-1.

        Returns:
          (pixels with a label, those of them that are right).

        Raises:
          ValueError: a prediction on a labelled pixel that is no class; ids beyond 0..255.
        """
        label_P, prediction_P, pixels_P = pair_runs(label, prediction)
        known_P = label_P < self.num_classes
        wrong = prediction_P[known_P & (prediction_P >= self.num_classes)]
        if wrong.size:
            raise ValueError(f"prediction {wrong.max()}: expected class ids 0..{self.num_classes - 1}")
        np.add.at(self._pairs, label_P.astype(np.intp) * VALUES + prediction_P, pixels_P)
        return int(pixels_P[known_P].sum()), int(pixels_P[known_P & (label_P == prediction_P)].sum())

    @property
    def counts_KK(self) -> Int64[np.ndarray, "K K"]:
        """Pixels by label and prediction, without those under void."""
        return self._pairs.reshape(VALUES, VALUES)[: self.num_classes, : self.num_classes]

    @property
    def label_pixels(self) -> Int64[np.ndarray, "256"]:
        """Pixels by label, void and unknown labels too."""
        return self._pairs.reshape(VALUES, VALUES).sum(axis=1)

    def iou(self) -> ByClass:
        """Intersection over union by class; NaN for a class without a labelled pixel."""
        return iou(*class_sums(self.counts_KK))

    def scores(self) -> dict[str, float]:
        """See `scores`; ValueError where nothing is labelled."""
        if not self.counts_KK.any():
            raise ValueError("no labelled pixel: nothing to score")
        return {name: float(value) for name, value in scores(*class_sums(self.counts_KK)).items()}


def of_constant(matrix_KK: Int64[np.ndarray, "K K"]) -> Int64[np.ndarray, "K K"]:
    """The matrix of a predictor that always answers the commonest class of the same pixels."""
    labelled_K = matrix_KK.sum(axis=1)
    constant = np.zeros_like(matrix_KK)
    constant[:, labelled_K.argmax()] = labelled_K
    return constant
