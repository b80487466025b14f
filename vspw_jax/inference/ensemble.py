"""Several models' class scores of a frame made one label map: arXiv 2306.03508, section 3.3.

Scores may be of a few classes of each pixel, the same of every model: see `scores.candidates`. Of classes that come out
equal the lowest wins. Shapes: M models, H and W pixels, K classes, P pixels of a part.
"""

import numpy as np

PART = 1 << 14
"""Pixels that are worked on at a time, so that their scores stay in the processor's cache."""


def weighted_sum(score_MHWK, weights_M, ids_HWK=None):
    """Equation 5, for any number of models: the scores' sum with a weight each, as train ids (H, W) uint8."""
    weights_M = np.asarray(weights_M, np.float32)
    return _labels(score_MHWK, ids_HWK, lambda score_MPK: sum(map(np.multiply, weights_M, score_MPK)))


def mean(score_MHWK, ids_HWK=None):
    """Equation 6, whose minus sign is taken for a slip: the scores' mean, as train ids (H, W) uint8."""
    return weighted_sum(score_MHWK, np.full(len(score_MHWK), 1 / len(score_MHWK)), ids_HWK)


def vote(score_MHWK, ids_HWK=None):
    """Majority of the models' own labels, as train ids (H, W) uint8.

    The paper leaves ties open: here that of the classes with most votes wins whose scores' sum is highest.
    """

    def counted(score_MPK):
        one_hot = np.eye(score_MPK[0].shape[-1], dtype=np.uint8)
        votes_PK = sum(one_hot[score_PK.argmax(axis=-1)] for score_PK in score_MPK)
        return np.where(votes_PK == votes_PK.max(axis=-1, keepdims=True), sum(score_MPK), -np.inf)

    return _labels(score_MHWK, ids_HWK, counted)


def _labels(score_MHWK, ids_HWK, combine):
    """Train ids (H, W) uint8 of the highest combined score (P, K) at each pixel."""
    height, width, num_classes = score_MHWK[0].shape
    flat = [score_HWK.reshape(-1, num_classes) for score_HWK in score_MHWK]
    label = np.empty(height * width, np.uint8)
    for start in range(0, height * width, PART):
        label[start : start + PART] = combine([score[start : start + PART] for score in flat]).argmax(axis=-1)
    label = label.reshape(height, width)
    return label if ids_HWK is None else np.take_along_axis(ids_HWK, label[..., None], axis=-1)[..., 0]
