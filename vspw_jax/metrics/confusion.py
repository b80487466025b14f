"""Confusion matrix and the scores read off it, as VSPW's devkit computes them.

Source: VSPW-dataset/VSPW_baseline utils.py. Pixels whose label is void do not count, whatever is predicted there.
"""

import numpy as np


class ConfusionMatrix:
    """Counts (K, K) of pixels by label (row) and prediction (column)."""

    def __init__(self, num_classes):
        self.counts_KK = np.zeros((num_classes, num_classes), np.int64)

    def add(self, label, prediction):
        """Adds pixels: two integer arrays of one shape; labels of K or more are void, predictions are 0..K-1.

        Raises:
          ValueError: a prediction on a labelled pixel that is no class.
        """
        num_classes = len(self.counts_KK)
        known = label < num_classes
        label, prediction = label[known].astype(np.int64), prediction[known]
        if prediction.size and prediction.max() >= num_classes:
            raise ValueError(f"prediction {prediction.max()}: expected class ids 0..{num_classes - 1}")
        pairs = np.bincount(label * num_classes + prediction, minlength=num_classes**2)
        self.counts_KK += pairs.reshape(num_classes, num_classes)

    def iou(self):
        """Intersection over union by class; NaN for a class without a labelled pixel."""
        hit = np.diag(self.counts_KK)
        labelled = self.counts_KK.sum(axis=1)
        union = labelled + self.counts_KK.sum(axis=0) - hit
        return np.where(labelled > 0, hit / np.maximum(union, 1), np.nan)

    def scores(self):
        """mIoU over the classes with labelled pixels, frequency-weighted IoU, pixel and mean class accuracy."""
        labelled = self.counts_KK.sum(axis=1)
        if not labelled.any():
            raise ValueError("no labelled pixel: nothing to score")
        iou, present = self.iou(), labelled > 0
        hit = np.diag(self.counts_KK)
        return {
            "mIoU": float(np.mean(iou[present])),
            "fwIoU": float((labelled[present] * iou[present]).sum() / labelled.sum()),
            "pixel_accuracy": float(hit.sum() / labelled.sum()),
            "class_accuracy": float(np.mean(hit[present] / labelled[present])),
        }

    def of_constant(self):
        """The matrix of a predictor that always answers the commonest class of the same pixels."""
        constant = ConfusionMatrix(len(self.counts_KK))
        labelled = self.counts_KK.sum(axis=1)
        constant.counts_KK[:, labelled.argmax()] = labelled
        return constant
