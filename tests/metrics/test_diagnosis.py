"""What looks wrong is said in words."""

import numpy as np
import pytest

from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError
from vspw_jax.metrics import scores, table
from vspw_jax.metrics.counts import VideoMeter

RNG = np.random.default_rng(0)
LABELS = [[np.kron(RNG.integers(0, 6, (4, 4)), np.ones((4, 4))).astype(np.uint8) for _ in range(3)] for _ in range(2)]


def warnings(predict, labels=LABELS, num_classes=124):
    """The warnings about what a function of (label, frame number) predicts."""
    counts = []
    for name, video in enumerate(labels):
        meter = VideoMeter(f"v{name}", num_classes)
        for number, label in enumerate(video):
            meter.add(str(number), None, label, predict(label, number).astype(np.uint8))
        counts.append(meter.counts())
    return scores.summarise(counts, vspw.classes())["warnings"]


def noisy(label, number=0):
    """Good but not perfect predictions."""
    return np.where(np.random.default_rng(number).random(label.shape) < 0.9, label % 124, (label + 3) % 6)


def test_good_predictions_raise_no_warning():
    assert warnings(noisy) == []


def test_one_class_only():
    (first, *others) = warnings(lambda label, _: np.full_like(label, 3))
    assert first.startswith("Every pixel is predicted to be 'stair'") and "VC is 100" in first
    assert any("never predicted" in other for other in others)


def test_ids_one_too_high_or_too_low():
    (high, *_) = warnings(lambda label, _: label + 1)
    assert "one too high" in high and "--masks-are=raw_ids" in high and "100.0 %" in high
    (low, *_) = warnings(lambda label, _: np.where(label, label - 1, 9))
    assert "one too low" in low


def test_the_same_prediction_in_every_frame():
    (only,) = warnings(lambda label, _: noisy(LABELS[0][0]))
    assert "never changes within a video" in only


def test_classes_never_predicted_are_named_the_largest_first():
    (only,) = warnings(lambda label, number: np.where(label >= 4, 0, noisy(label, number) % 4))
    assert only.startswith("2 of the 6 classes that occur are never predicted")
    pixels = sum(np.bincount(label.ravel(), minlength=6) for video in LABELS for label in video)
    first, second = sorted((4, 5), key=lambda k: -pixels[k])
    assert f": {vspw.classes().names[first]}, {vspw.classes().names[second]}." in only


def test_labels_that_the_network_has_no_class_for():
    share = np.mean([label >= 4 for video in LABELS for label in video])
    (only,) = warnings(lambda label, _: noisy(label) % 4, num_classes=4)
    assert "do not fit the network" in only and f"{100 * share:.1f} %" in only and "classes 4 or more" in only
    with pytest.raises(UserError, match="None of the labels fits the network"):
        warnings(lambda label, _: label * 0, [[np.full((2, 2), 9, np.uint8)]], num_classes=4)


def test_predictions_of_classes_that_vspw_lacks():
    (only,) = warnings(lambda label, n: np.where(np.arange(16) < 4, 149, noisy(label, n)), num_classes=150)
    assert only.startswith("25.0 % of the labelled pixels") and "the network has 150, the data 124" in only


def test_frames_and_videos_without_labels():
    void = [[np.full((16, 16), 255, np.uint8)] * 2]
    (only,) = warnings(noisy, LABELS + void)
    assert only.startswith("2 of 8 frames have no labelled pixel") and "v2" in only
    with pytest.raises(UserError, match=r"all 512 pixels of 2 frames are void.*data_prep\.verify"):
        warnings(noisy, void)


def test_warnings_stand_above_the_table():
    result = dict.fromkeys(table.HEADLINE, 0.5) | {"warnings": ["All is lost."], "intervals": {"mIoU": [0.4, 0.6]}}
    result["VC16"] = None
    result["commonest_class"] = dict.fromkeys(table.HEADLINE, 0.25) | {"class": "sky"}
    lines = table.table(result).splitlines()
    assert lines[0] == "! All is lost." and "always sky" in lines[1] and "40.00 - 60.00" in lines[2]
    assert lines[-1].split() == ["VC16", "-", "25.00"]
