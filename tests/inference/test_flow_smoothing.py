"""Scores that follow optical flow: on moving pictures whose flow is known, where one covers another, and at cuts."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.inference.flow_smoothing import Smoothing, agree, averaged, seen_before
from vspw_jax.inference.predictor import FULL_SCORES, Result, check_options
from vspw_jax.sampling.dis_flow import DisFlow

HEIGHT, WIDTH, CLASSES = 64, 96, 3


def texture(seed):
    """A picture of blurred noise, wide enough to move."""
    noise = np.random.default_rng(seed).uniform(0, 255, (HEIGHT // 4, WIDTH // 4 + 8, 3))
    return np.kron(noise, np.ones((4, 4, 1))).astype(np.uint8)


def shown(picture, shift):
    """The part of a picture that a camera sees which has moved so far to the right."""
    return picture[:, shift : shift + WIDTH]


def result_of(score_NHWK):
    return Result({"label": score_NHWK.argmax(-1).astype(np.uint8), FULL_SCORES: score_NHWK}, len(score_NHWK))


def drawn_scores(seed, count=1):
    score = np.random.default_rng(seed).uniform(size=(count, HEIGHT, WIDTH, CLASSES))
    return (score / score.sum(-1, keepdims=True)).astype(np.float32)


def options(weight):
    return ConfigDict({"flow_weight": weight})


def test_scores_are_averaged_where_they_went_to():
    """Against the sum written out: moved by whole cells, beyond the frame and unseen pixels alone."""
    score, before = drawn_scores(0)[0], drawn_scores(1)[0]
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    flow[..., 0], flow[..., 1] = 3, -2  # To the frame before, where a pixel was further right and higher.
    seen = np.random.default_rng(2).uniform(size=(HEIGHT, WIDTH)) < 0.7
    found = np.asarray(averaged(score, before, flow, seen, 0.25))
    for y, x in ((10, 10), (40, 80), (63, 92), (2, 0), (30, 30), (31, 30)):
        wanted = 0.75 * score[y, x] + 0.25 * before[y - 2, x + 3] if seen[y, x] else score[y, x]
        np.testing.assert_allclose(found[y, x], wanted, rtol=1e-4)
    half = np.full((HEIGHT, WIDTH, 2), 0.5, np.float32)
    found = np.asarray(averaged(score, before, half, np.ones_like(seen), 1.0))
    wanted = before[20:22, 30:32].mean(axis=(0, 1))
    np.testing.assert_allclose(found[20, 30], wanted, rtol=1e-4)


def test_flow_there_and_back_must_agree_and_stay_inside():
    backward = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    backward[..., 0] = 4
    seen = agree(backward, -backward)
    assert seen[:, : WIDTH - 4].all() and not seen[:, WIDTH - 4 :].any()
    assert not agree(backward, backward)[:, : WIDTH - 8].any()


def test_a_moving_camera_is_followed():
    picture = texture(0)
    flow, seen = seen_before(shown(picture, 4), shown(picture, 0), DisFlow())
    assert seen.mean() > 0.7
    np.testing.assert_allclose(np.median(flow[seen], axis=0), (4, 0), atol=0.3)


@pytest.mark.parametrize("after", ["another picture", "another flat colour"])
def test_a_cut_leaves_nothing_of_the_frame_before(after):
    """Also between flat pictures, on which flow agrees with anything."""
    before, frame = shown(texture(0), 0), shown(texture(1), 0)
    if after == "another flat colour":
        before, frame = np.full_like(before, 40), np.full_like(frame, 120)
    assert seen_before(frame, before, DisFlow()) is None
    scores = drawn_scores(3, 2)
    labels = Smoothing(options(0.9)).labels([before, frame], result_of(scores))
    np.testing.assert_array_equal(labels, scores.argmax(-1))


def test_what_is_uncovered_takes_nothing_from_what_covered_it():
    """A square moves over a background: where it was, the background stands by itself."""
    rng = np.random.default_rng(0)
    background = np.kron(rng.uniform(0, 120, (16, 24, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    square = np.kron(rng.uniform(140, 255, (5, 5, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    before, frame = background.copy(), background.copy()
    before[20:40, 20:40], frame[20:40, 32:52] = square, square
    _, seen = seen_before(frame, before, DisFlow())
    assert seen.mean() > 0.7 and seen[20:40, 22:30].mean() < 0.2


def test_noise_of_single_frames_is_averaged_away():
    """Of a still video whose scores have noise, more pixels are right; and no weight is no change."""
    still = [shown(texture(0), 0)] * 6
    truth = np.arange(WIDTH) // 32 * np.ones((HEIGHT, 1), int)
    noise = np.random.default_rng(0).normal(scale=1.0, size=(6, HEIGHT, WIDTH, CLASSES))
    logits = np.exp(np.eye(CLASSES)[truth] + noise)
    scores = (logits / logits.sum(-1, keepdims=True)).astype(np.float16)
    alone = Smoothing(options(0.0)).labels(still, result_of(scores))
    np.testing.assert_array_equal(alone, scores.argmax(-1))
    smoothing = Smoothing(options(0.7))
    smooth = np.concatenate([smoothing.labels(still[n : n + 2], result_of(scores[n : n + 2])) for n in (0, 2, 4)])
    np.testing.assert_array_equal(smooth[0], alone[0])
    assert (smooth[-1] == truth).mean() > (alone[-1] == truth).mean() + 0.1
    whole = Smoothing(options(0.7)).labels(still, result_of(scores))
    np.testing.assert_array_equal(smooth, whole)


def test_a_frame_of_another_size_stands_by_itself():
    """And one too small for flow, such as 8 rows."""
    for rows in (32, 8, 8):
        smoothing = Smoothing(options(0.9))
        smoothing.labels([shown(texture(0), 0)[: 2 * rows]], result_of(drawn_scores(0)[:, : 2 * rows]))
        for seed in (1, 2):
            score = drawn_scores(seed)[:, :rows]
            found = smoothing.labels([shown(texture(seed), 0)[:rows]], result_of(score))
            np.testing.assert_array_equal(found, score.argmax(-1))


def test_saved_scores_and_smoothing_exclude_each_other():
    fields = dict(stride=(8, 8), scales=(1.0,), top_classes=0, flow_weight=0.5, save_scores=True)
    with pytest.raises(UserError, match=r"flow_weight is 0.5 and evaluate.save_scores is True"):
        check_options(ConfigDict(fields), (8, 8), 3)
