"""Makes one label map of several models' class scores of a frame: arXiv 2306.03508, section 3.3.

A pixel's scores may be those of a few classes, the same ones for every model: see `scores.candidates`. Where classes
come out equal, the lowest id wins. Shapes: M models, H and W pixels, K classes, P pixels of a part.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

PART = 1 << 14
"""Pixels that are worked on at a time, so that their scores stay in the processor's cache."""

Scores = Sequence[Float[np.ndarray, "H W K"]]
"""One array for each model."""
Ids = UInt8[np.ndarray, "H W K"] | None
"""The classes that the scores are of; None for all classes in order."""
Labels = UInt8[np.ndarray, "H W"]
"""Train ids."""


def weighted_sum(score_MHWK: Scores, weights_M: Sequence[float] | np.ndarray, ids_HWK: Ids = None) -> Labels:
    """Equation 5, for any number of models: the labels of the scores' weighted sum."""
    weights_M = np.asarray(weights_M, np.float32)
    return _labels(
        score_MHWK, ids_HWK, lambda score_MPK: functools.reduce(np.add, map(np.multiply, weights_M, score_MPK))
    )


def mean(score_MHWK: Scores, ids_HWK: Ids = None) -> Labels:
    """Equation 6: the labels of the scores' mean. Its minus sign is taken for a slip of the paper."""
    return weighted_sum(score_MHWK, np.full(len(score_MHWK), 1 / len(score_MHWK)), ids_HWK)


def vote(score_MHWK: Scores, ids_HWK: Ids = None) -> Labels:
    """Majority of the models' own labels.

    The paper does not say what wins a tie. Here, of the tied classes, the one with the highest sum of scores wins.
    """

    def counted(score_MPK: list[Float[np.ndarray, "P K"]]) -> Float[np.ndarray, "P K"]:
        one_hot = np.eye(score_MPK[0].shape[-1], dtype=np.uint8)
        votes_PK = sum(one_hot[score_PK.argmax(axis=-1)] for score_PK in score_MPK)
        return np.where(votes_PK == votes_PK.max(axis=-1, keepdims=True), sum(score_MPK), -np.inf)

    return _labels(score_MHWK, ids_HWK, counted)


def by_class(score_MHWK: Scores, counts_MK: Bool[np.ndarray, "M K"], ids_HWK: None = None) -> Labels:
    """The labels of scores each of which is the mean of the models that count for its class.

    For models that were trained for a group of classes each, as the authors of arXiv 2306.03508 tried (conclusion).

    Args:
      counts_MK: whether a model counts for a class; one at least for each.
      ids_HWK: the scores must be of all classes.
    """
    weight_MK = (counts_MK / counts_MK.sum(axis=0)).astype(np.float32)
    return _labels(
        score_MHWK, ids_HWK, lambda score_MPK: functools.reduce(np.add, map(np.multiply, weight_MK, score_MPK))
    )


def _labels(score_MHWK: Scores, ids_HWK: Ids, combine: Callable[[list[np.ndarray]], np.ndarray]) -> Labels:
    """The label of the highest combined score at each pixel."""
    height, width, num_classes = score_MHWK[0].shape
    flat = [score_HWK.reshape(-1, num_classes) for score_HWK in score_MHWK]
    label = np.empty(height * width, np.uint8)
    for start in range(0, height * width, PART):
        label[start : start + PART] = combine([score[start : start + PART] for score in flat]).argmax(axis=-1)
    label = label.reshape(height, width)
    return label if ids_HWK is None else np.take_along_axis(ids_HWK, label[..., None], axis=-1)[..., 0]
