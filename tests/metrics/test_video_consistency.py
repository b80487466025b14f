"""VC_n against the devkit's rule written out, and the figures that it gives on real video."""

import numpy as np
import pytest

from vspw_jax import classes
from vspw_jax.data import records
from vspw_jax.metrics.confusion import ConfusionMatrix
from vspw_jax.metrics.video_consistency import VideoConsistency


def reference(videos, length):
    """The devkit's loop: windows i of range(T - n), ratios pooled over videos, 0/0 left out."""
    ratios = []
    for labels, predictions in videos:
        for start in range(len(labels) - length):
            window = slice(start, start + length)
            stable = (labels[window] == labels[start]).all(axis=0)
            constant = (predictions[window] == predictions[start]).all(axis=0)
            if stable.any():
                ratios.append((stable & constant).sum() / stable.sum())
    return np.mean(ratios) if ratios else float("nan")


def flickering(rng, frames):
    """A video whose pixels change class now and then."""
    changes = rng.random((frames, 6, 7)) < 0.15
    return (np.cumsum(changes, axis=0) % 4).astype(np.uint8)


def score(videos, length):
    meter = VideoConsistency(length)
    for labels, predictions in videos:
        meter.start_video()
        for label, prediction in zip(labels, predictions, strict=True):
            meter.add(label, prediction)
    return meter.score(), meter.windows


@pytest.mark.parametrize("length", [1, 2, 8, 16])
def test_equals_the_devkits_loop(length):
    rng = np.random.default_rng(length)
    videos = [(flickering(rng, frames), flickering(rng, frames)) for frames in (1, 2, 8, 9, 16, 17, 30)]
    assert score(videos, length)[0] == pytest.approx(reference(videos, length), nan_ok=True)


def test_last_window_and_short_videos_do_not_count():
    still = np.zeros((8, 4, 4), np.uint8)
    assert np.isnan(score([(still, still)], 8)[0])
    assert score([(np.zeros((9, 4, 4), np.uint8),) * 2], 8) == (1.0, 1)


def test_a_constantly_wrong_prediction_is_consistent():
    assert score([(np.zeros((12, 4, 4), np.uint8), np.ones((12, 4, 4), np.uint8))], 8)[0] == 1.0


def test_videos_may_differ_in_size():
    sizes = [(12, 3, 4), (12, 5, 2)]
    assert score([(np.zeros(size, np.uint8), np.zeros(size, np.uint8)) for size in sizes], 8) == (1.0, 8)


def test_real_video_gives_the_devkits_figures(camvid_records):
    """Labels shifted one pixel to the right in odd frames as prediction; figures of the devkit's own rules."""
    frames = records.Frames(camvid_records, "val")
    consistency = {8: VideoConsistency(8), 16: VideoConsistency(16)}
    confusion = ConfusionMatrix(classes.NUM_CLASSES)
    for video in frames.videos:
        for meter in consistency.values():
            meter.start_video()
        for number in range(video.count):
            _, label = frames.image_and_label(video.start + number)
            prediction = np.roll(label, 1, axis=1) if number % 2 else label
            for meter in consistency.values():
                meter.add(label, prediction)
            confusion.add(label, np.where(prediction == classes.VOID, 0, prediction))
    assert consistency[8].score() == pytest.approx(0.9888249014376284, abs=1e-12)
    assert consistency[16].score() == pytest.approx(0.9872347652239627, abs=1e-12)
    assert (consistency[8].windows, consistency[16].windows) == (77, 53)
    scores = confusion.scores()
    assert scores["mIoU"] == pytest.approx(0.9437741271312788, abs=1e-12)
    assert scores["fwIoU"] == pytest.approx(0.9828010470132109, abs=1e-12)
    assert scores["pixel_accuracy"] == pytest.approx(0.9906209246010426, abs=1e-12)
    assert np.isfinite(confusion.iou()).sum() == 11
