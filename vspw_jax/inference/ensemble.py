"""Several models' class scores of a frame made one label map: arXiv 2306.03508, section 3.3.

Shapes: M models, H and W pixels, K classes, S weights; P pixels of a part.
"""

import numpy as np

PART = 1 << 14
"""Pixels that are worked on at a time, so that their scores stay in the processor's cache."""


def weighted_sum(score_MHWK, weights_M):
    """Equation 5, for any number of models: the scores' sum with a weight each, as train ids (H, W) uint8.

    The lowest of classes with equal sums wins.
    """
    return _labels(score_MHWK, lambda score_MPK: np.tensordot(np.asarray(weights_M, np.float32), score_MPK, 1))


def mean(score_MHWK):
    """Equation 6, whose minus sign is taken for a slip: the scores' mean, as train ids (H, W) uint8."""
    return weighted_sum(score_MHWK, np.full(len(score_MHWK), 1 / len(score_MHWK)))


def vote(score_MHWK):
    """Majority of the models' own labels, as train ids (H, W) uint8.

    The paper leaves ties open. Here the one of the classes with most votes wins whose scores' sum is highest, and the
    lowest of those that are equal in that too.
    """

    def counted(score_MPK):
        votes_PK = sum(
            np.eye(score_MPK.shape[-1], dtype=np.float32)[score_PK.argmax(axis=-1)] for score_PK in score_MPK
        )
        return np.where(votes_PK == votes_PK.max(axis=-1, keepdims=True), score_MPK.sum(axis=0), -np.inf)

    return _labels(score_MHWK, counted)


def _labels(score_MHWK, combine):
    """Train ids (H, W) uint8 of the highest combined score (P, K) at each pixel."""
    height, width, num_classes = score_MHWK[0].shape
    flat = [score_HWK.reshape(-1, num_classes) for score_HWK in score_MHWK]
    label = np.empty(height * width, np.uint8)
    for start in range(0, height * width, PART):
        part = np.stack([score[start : start + PART] for score in flat])
        label[start : start + PART] = combine(part).argmax(axis=-1)
    return label.reshape(height, width)
