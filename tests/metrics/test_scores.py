"""Scores of several videos against the devkit's loops; intervals against draws made one by one."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from benchmarks import metrics as loops
from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError
from vspw_jax.metrics import scores
from vspw_jax.metrics.counts import VideoCounts, VideoMeter

SCORED = (*scores.DEVKIT, *scores.CORRECT)


def random_video(rng, frames, size=(5, 9), classes=(0, 1, 7, 255)):
    """Labels and predictions that resemble each other."""
    labels = np.array(classes, np.uint8)[np.cumsum(rng.random((frames, *size)) < 0.1, axis=0) % len(classes)]
    others = np.array([0, 1, 3], np.uint8)[rng.integers(0, 3, labels.shape)]
    keep = (rng.random(labels.shape) < 0.8) & (labels != 255)
    return list(labels), list(np.where(keep, labels, others))


def counted(name, video, num_classes=124):
    meter = VideoMeter(name, num_classes)
    for number, (label, prediction) in enumerate(zip(*video, strict=True)):
        meter.add(str(number), None, label, prediction)
    return meter.counts()


@pytest.fixture(scope="module")
def videos():
    """Of several lengths and sizes; one shorter than any window, one without labels."""
    rng = np.random.default_rng(0)
    lengths = ((30, (5, 9)), (9, (8, 8)), (17, (3, 2)), (16, (4, 4)), (3, (6, 6)))
    found = [random_video(rng, frames, size) for frames, size in lengths]
    found.append(([np.full((2, 2), 255, np.uint8)] * 12, [np.zeros((2, 2), np.uint8)] * 12))
    return found


@pytest.fixture(scope="module")
def counts(videos):
    return [counted(f"v{number}", video) for number, video in enumerate(videos)]


def test_every_score_equals_the_devkits_loops(videos, counts):
    result = scores.summarise(counts, vspw.classes())
    for name, value in loops.devkit_scores(videos).items():
        assert result[name] == pytest.approx(value, abs=1e-14), name


def test_the_order_of_the_videos_and_a_journey_through_json_change_nothing(counts):
    expected = scores.summarise(counts, vspw.classes())
    for order in itertools.islice(itertools.permutations(counts), 0, 720, 101):
        assert scores.summarise([VideoCounts.from_json(video.to_json()) for video in order], vspw.classes()) == expected


def test_the_result_is_json_without_nan(counts):
    result = scores.summarise(counts[4:], vspw.classes())
    assert result["VC8"] == 1.0 and result["videos"]["v4"]["VC8"] is None and result["VC16"] is None
    json.dumps(result, allow_nan=False)


def test_a_class_that_is_predicted_but_not_labelled_does_not_count():
    label, prediction = np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 0, 1, 9]], np.uint8)
    result = scores.summarise([counted("v", ([label], [prediction]))], vspw.classes())
    assert result["mIoU"] == pytest.approx((1 + 1 / 2) / 2) and result["IoU"].keys() == {"wall", "ceiling"}


def test_the_commonest_class_is_scored_beside(counts):
    result = scores.summarise(counts, vspw.classes())
    matrix = scores.total_matrix(counts)
    name = vspw.classes().name(int(matrix.sum(axis=1).argmax()))
    assert result["commonest_class"]["class"] == name
    assert result["commonest_class"]["pixel_accuracy"] == pytest.approx(matrix.sum(axis=1).max() / matrix.sum())
    assert result["commonest_class"]["VC8"] == 1.0


def test_a_draw_is_scored_as_if_its_videos_were_there_so_many_times(counts):
    weights = scores.draws(len(counts), replicates=5)
    drawn = scores.resampled(counts, weights)
    for row, weight in enumerate(weights):
        again = [
            dataclasses.replace(video, video=f"{video.video} {copy}")
            for video, times in zip(counts, weight, strict=True)
            for copy in range(times)
        ]
        expected = scores.summarise(again, vspw.classes())
        for name in SCORED:
            value = np.nan if expected[name] is None else expected[name]
            assert drawn[name][row] == pytest.approx(value, abs=1e-12, nan_ok=True), name


def test_intervals_are_seeded_and_hold_the_middle(counts):
    result = scores.summarise(counts, vspw.classes())
    assert result == scores.summarise(counts, vspw.classes()) and result["intervals"] != scores.intervals(
        counts, seed=1
    )
    for name in SCORED:
        low, high = result["intervals"][name]
        assert low <= high and low <= result[name] + 0.2 and high >= result[name] - 0.2
    assert scores.summarise(counts[:1], vspw.classes())["intervals"] == {}


def test_the_interval_of_a_mean_of_equal_videos_is_known():
    """Videos of one pixel each, right or wrong: pixel accuracy is a binomial share."""
    label = np.zeros((1, 1), np.uint8)
    videos = [([label], [label + (number % 2)]) for number in range(100)]
    low, high = scores.intervals([counted(f"{n}", video) for n, video in enumerate(videos)])["pixel_accuracy"]
    assert 0.38 <= low <= 0.43 and 0.57 <= high <= 0.62  # 0.5 -+ 1.96 sqrt(0.25 / 100).


def test_differences_are_of_the_same_draws(videos, counts):
    """A run that is better by as much in every video differs by that in every draw."""
    label = np.zeros((1, 4), np.uint8)
    worse, better = (
        [counted(f"{n}", ([label], [np.array([prediction], np.uint8)])) for n in range(5)]
        for prediction in ([1, 1, 1, 0], [1, 1, 0, 0])
    )
    value, low, high = scores.differences(worse, better[::-1])["pixel_accuracy"]
    assert value == low == high == 0.25
    assert all(change == [0, 0, 0] for change in scores.differences(counts, counts).values())


def test_a_prediction_of_another_size_or_of_no_class_is_named():
    meter = VideoMeter("street", 124)
    with pytest.raises(UserError, match="frame 7 of video street is 3x2 pixels; expected 4x2"):
        meter.add("7", None, np.zeros((2, 4), np.uint8), np.zeros((2, 3), np.uint8))
    with pytest.raises(UserError, match=r"In frame 7 of video street: prediction 200: expected class ids 0\.\.123"):
        meter.add("7", None, np.zeros((2, 4), np.uint8), np.full((2, 4), 200, np.uint8))


def test_frames_in_the_order_of_text_are_not_scored():
    meter, pixels = VideoMeter("street", 124), np.zeros((2, 4), np.uint8)
    for name in ("1", "10"):
        meter.add(name, None, pixels, pixels)
    with pytest.raises(UserError, match="frame 2 of video street: it comes after frame 10. .*convert again"):
        meter.add("2", None, pixels, pixels)
