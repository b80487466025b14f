"""Scores against the definitions, one pixel at a time."""

import numpy as np
import pytest

from vspw_jax.metrics import confusion
from vspw_jax.metrics.confusion import ConfusionMatrix


def pixels(seed=0, classes=5, count=400):
    rng = np.random.default_rng(seed)
    label = rng.choice([0, 1, 2, 255], count)
    return label.astype(np.uint8), rng.integers(0, classes, count).astype(np.uint8)


def test_scores_equal_the_definitions():
    label, prediction = pixels()
    matrix = ConfusionMatrix(5)
    matrix.add(label.reshape(20, 20), prediction.reshape(20, 20))
    known = label != 255
    iou, frequency, accuracy = {}, {}, {}
    for c in (0, 1, 2):
        both = (known & (label == c) & (prediction == c)).sum()
        either = (known & ((label == c) | (prediction == c))).sum()
        iou[c], frequency[c] = both / either, (label == c).sum() / known.sum()
        accuracy[c] = both / (label == c).sum()
    assert matrix.scores() == pytest.approx(
        {
            "mIoU": np.mean(list(iou.values())),
            "fwIoU": sum(frequency[c] * iou[c] for c in iou),
            "pixel_accuracy": (label == prediction)[known].mean(),
            "class_accuracy": np.mean(list(accuracy.values())),
        }
    )
    np.testing.assert_allclose(matrix.iou(), [iou[0], iou[1], iou[2], np.nan, np.nan])


def test_frames_add_up():
    whole, parts = ConfusionMatrix(5), ConfusionMatrix(5)
    label, prediction = pixels(1)
    whole.add(label, prediction)
    for part in np.split(np.arange(400), 4):
        parts.add(label[part], prediction[part])
    np.testing.assert_array_equal(whole.counts_KK, parts.counts_KK)


def test_predictions_under_void_do_not_count():
    label, prediction = pixels(2)
    other = np.where(label == 255, (prediction + 1) % 5, prediction).astype(np.uint8)
    first, second = ConfusionMatrix(5), ConfusionMatrix(5)
    first.add(label, prediction)
    second.add(label, other)
    np.testing.assert_array_equal(first.counts_KK, second.counts_KK)


def test_uint8_ids_do_not_overflow():
    matrix = ConfusionMatrix(124)
    matrix.add(np.array([123], np.uint8), np.array([122], np.uint8))
    assert matrix.counts_KK[123, 122] == 1


def test_constant_predictor_answers_the_commonest_class():
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([0, 1, 1, 1, 2, 255], np.uint8), np.zeros(6, np.uint8))
    scores = confusion.scores(*confusion.class_sums(confusion.of_constant(matrix.counts_KK)))
    assert scores["pixel_accuracy"] == pytest.approx(3 / 5)
    assert scores["mIoU"] == pytest.approx((3 / 5) / 3)


def test_nothing_labelled_is_an_error():
    with pytest.raises(ValueError, match="no labelled pixel"):
        ConfusionMatrix(3).scores()


def test_ids_of_any_integer_type_count_the_same_and_none_wraps_around():
    label, prediction = pixels(3)
    matrices = [ConfusionMatrix(5) for _ in range(2)]
    matrices[0].add(label, prediction)
    matrices[1].add(label.astype(np.int64), prediction.astype(np.int32))
    np.testing.assert_array_equal(matrices[0].counts_KK, matrices[1].counts_KK)
    for strange in (-1, 256):
        with pytest.raises(ValueError, match=r"expected 0\.\.255"):
            matrices[0].add(label.astype(np.int64), np.full(label.shape, strange))


def test_a_prediction_that_is_no_class_is_an_error():
    with pytest.raises(ValueError, match="prediction 255"):
        ConfusionMatrix(3).add(np.array([0], np.uint8), np.array([255], np.uint8))
