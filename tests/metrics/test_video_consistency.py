"""VC_n against the devkit's rule written out as loops, and the figures that it gives on real video."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import metrics as loops
from vspw_jax.classes import vspw
from vspw_jax.metrics import scores, video_consistency
from vspw_jax.metrics.counts import VideoMeter
from vspw_jax.metrics.truth import open_truth
from vspw_jax.metrics.video_consistency import VideoConsistency


def correct_ratios(labels, predictions, length, num_classes):
    """The corrected form's windows, a pixel at a time: starts 0 to T - n; empty ones left out."""
    found = []
    for start in range(len(labels) - length + 1):
        window = slice(start, start + length)
        stable = (labels[window] == labels[start]).all(axis=0) & (labels[start] < num_classes)
        right = (predictions[window] == labels[window]).all(axis=0)
        if stable.any():
            found.append((stable & right).sum() / stable.sum())
    return found


def flickering(rng, frames, size=(6, 7)):
    """A video whose pixels change class now and then; the fourth class is void."""
    changes = rng.random((frames, *size)) < 0.15
    return np.array([0, 1, 2, 255], np.uint8)[np.cumsum(changes, axis=0) % 4]


def windows(labels, predictions, length):
    meter = VideoConsistency(3, (length,))
    for label, prediction in zip(labels, predictions, strict=True):
        meter.add(label, prediction)
    return np.array(meter.windows[length], np.int64).reshape(-1, 4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32), st.integers(1, 20), st.integers(0, 30), st.sampled_from([(1, 1), (6, 7), (9, 64), (3, 43)])
)
def test_equals_the_devkits_loop_window_by_window(seed, length, frames, size):
    rng = np.random.default_rng(seed)
    labels, predictions = (flickering(rng, frames, size) for _ in range(2))
    predictions = np.where(rng.random(size) < 0.5, labels, predictions)
    own = windows(labels, predictions, length)
    expected = [ratio for ratio in loops.window_ratios(labels, predictions, length) if np.isfinite(ratio)]
    np.testing.assert_array_equal(video_consistency.ratios(own), expected)
    expected = correct_ratios(labels, predictions, length, 3)
    np.testing.assert_array_equal(video_consistency.ratios(own, correct=True), expected)


def test_the_last_window_does_not_count_but_in_the_corrected_form():
    still = np.zeros((8, 4, 4), np.uint8)
    eight, nine = windows(still, still, 8), windows(still[[0] * 9], still[[0] * 9], 8)
    assert video_consistency.ratios(eight).tolist() == []
    assert video_consistency.ratios(nine).tolist() == [1.0]
    assert video_consistency.ratios(eight, correct=True).tolist() == [1.0]
    assert np.isnan(video_consistency.mean_ratio([eight]))


def test_a_constantly_wrong_prediction_is_consistent_but_not_correct():
    own = windows(np.zeros((12, 4, 4), np.uint8), np.ones((12, 4, 4), np.uint8), 8)
    assert video_consistency.mean_ratio([own]) == 1.0
    assert video_consistency.mean_ratio([own], correct=True) == 0.0


def test_void_is_a_label_but_not_in_the_corrected_form():
    label = np.zeros((9, 2, 4), np.uint8)
    label[:, 0] = 255
    prediction = np.zeros((9, 2, 4), np.uint8)
    prediction[4, 0, 0] = 1
    own = windows(label, prediction, 8)
    assert video_consistency.mean_ratio([own]) == 7 / 8
    assert video_consistency.mean_ratio([own], correct=True) == 1.0


def test_windows_are_pooled_not_videos():
    long, short = np.array([[4, 4, 4, 4]] * 5), np.array([[4, 1, 4, 1]] * 2)
    assert video_consistency.mean_ratio([long, short]) == pytest.approx((4 * 1.0 + 0.25) / 5)


def test_frames_repeated_are_counted():
    meter = VideoConsistency(3, (2,))
    for value in (0, 0, 1, 1, 1):
        meter.add(np.zeros((2, 2), np.uint8), np.full((2, 2), value, np.uint8))
    assert meter.repeated == 3


def test_a_frame_of_another_size_is_an_error():
    meter = VideoConsistency(3)
    meter.add(np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="after frames of"):
        meter.add(np.zeros((3, 2), np.uint8), np.zeros((3, 2), np.uint8))


def test_real_video_gives_the_devkits_figures(camvid):
    """Labels shifted one pixel to the right in odd frames as prediction; figures of the devkit's own rules."""
    truth = open_truth(camvid, "val")
    consistency, matrices, videos = [], [], []
    for video in truth.videos:
        labels = [truth.label(video.name, frame) for frame in video.frames]
        rolled = [np.roll(label, number % 2, axis=1) for number, label in enumerate(labels)]
        known = [np.where(mask == vspw.VOID, 0, mask).astype(np.uint8) for mask in rolled]
        videos.append((labels, known))
        meter, of_rolled = VideoMeter(video.name, vspw.NUM_CLASSES), VideoConsistency(vspw.NUM_CLASSES)
        for frame, label, prediction, with_void in zip(video.frames, labels, known, rolled, strict=True):
            meter.add(frame, None, label, prediction)
            of_rolled.add(label, with_void)
        matrices.append(meter.counts())
        consistency.append(of_rolled.windows)
    for length, expected, number in ((8, 0.9888249014376284, 77), (16, 0.9872347652239627, 53)):
        own = [windows_of[length] for windows_of in consistency]
        assert sum(video_consistency.ratios(windows_W4).size for windows_W4 in own) == number
        assert video_consistency.mean_ratio(own) == pytest.approx(expected, abs=1e-15)
    result = scores.summarise(matrices, vspw.classes())
    expected = {"mIoU": 0.9437741271312788, "fwIoU": 0.9828010470132109, "pixel_accuracy": 0.9906209246010426}
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-15)
    assert len(result["IoU"]) == 11
    for name, value in loops.devkit_scores(videos).items():
        assert result[name] == pytest.approx(value, abs=1e-12), name
