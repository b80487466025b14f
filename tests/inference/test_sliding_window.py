"""Sliding windows: where they lie, that any number may be scored at a time, that overlaps are averaged by count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vspw_jax.inference import sliding_window


@pytest.mark.parametrize(
    ("size", "crop", "stride", "starts"),
    [
        (480, 480, 320, [0]),
        (800, 480, 320, [0, 320]),
        (864, 480, 320, [0, 320, 384]),
        (1600, 896, 512, [0, 512, 704]),
        (481, 480, 320, [0, 1]),
    ],
)
def test_the_last_window_is_shifted_back(size, crop, stride, starts):
    assert sliding_window.window_starts(size, crop, stride) == starts


@pytest.mark.parametrize(
    ("frame", "crop", "scale", "size"),
    [
        ((480, 853), (896, 896), 1, (896, 1600)),
        ((480, 853), (480, 480), 1, (480, 864)),
        ((1080, 1920), (480, 480), 1, (480, 864)),
        ((853, 480), (480, 480), 1, (864, 480)),
        ((100, 100), (64, 128), 1, (128, 128)),
        ((480, 853), (896, 896), 800 / 896, (800, 1440)),  # 1422 up to a multiple of 32.
        ((480, 853), (896, 896), 832 / 896, (832, 1504)),
        ((480, 853), (480, 480), 1.75, (864, 1504)),
        ((7, 900), (32, 32), 0.01, (32, 64)),
    ],
)
def test_input_size_is_a_multiple_of_32(frame, crop, scale, size):
    assert sliding_window.input_size(*frame, crop, scale) == size


def slide_inference(score, image_NHWC, crop, stride):
    """mmseg's loop, in NumPy and float64; `score` keeps the resolution."""
    size = image_NHWC.shape[1:3]
    rows, columns = (max(s - c + t - 1, 0) // t + 1 for s, c, t in zip(size, crop, stride, strict=True))
    total, count = 0, np.zeros((1, *size, 1))
    for row in range(rows):
        for column in range(columns):
            bottom, right = (min(n * t + c, s) for n, t, c, s in zip((row, column), stride, crop, size, strict=True))
            top, left = max(bottom - crop[0], 0), max(right - crop[1], 0)
            scores = score(image_NHWC[:, top:bottom, left:right])
            total += np.pad(scores, ((0, 0), (top, size[0] - bottom), (left, size[1] - right), (0, 0)))
            count[:, top:bottom, left:right] += 1
    assert count.min() > 0
    return total / count


def window_dependent(window_NHWC):
    """Scores that depend on the pixel, its place in the window and all of the window."""
    place = np.linspace(0, 1, window_NHWC.shape[1])[:, None, None] + np.linspace(0, 2, window_NHWC.shape[2])[:, None]
    return window_NHWC * place + window_NHWC.mean(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("at_a_time", [3, 100])
@pytest.mark.parametrize(
    ("size", "crop", "stride"),
    [
        ((32, 32), (32, 32), (20, 24)),
        ((33, 95), (32, 32), (20, 24)),
        ((160, 32), (32, 32), (32, 1)),
        ((50, 41), (20, 41), (7, 5)),
    ],
    ids=["one window", "odd", "tall", "short windows"],
)
def test_equals_mmsegs_slide_inference(size, crop, stride, at_a_time):
    image = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    calls = []

    def score(window):
        calls.append(window.shape)
        return jnp.asarray(window_dependent(window), jnp.float32)

    @jax.jit
    def ours(image):
        window_NSHWC = sliding_window.cut(image, crop, stride)
        scores = sliding_window.score_windows(score, window_NSHWC.reshape(-1, *crop, 3), at_a_time)
        scores = scores.reshape(*window_NSHWC.shape[:2], *crop, 3)
        return jnp.stack([sliding_window.join(of_frame, *size, crop, stride) for of_frame in scores])

    expected = slide_inference(window_dependent, image.astype(np.float64), crop, stride)
    np.testing.assert_allclose(ours(jnp.asarray(image)), expected, rtol=2e-5, atol=2e-5)
    # The network is traced, and so compiled, for one shape: as many windows as there are in equal parts.
    windows = 2 * len(sliding_window.corners(*size, crop, stride))
    assert set(calls) == {(-(-windows // -(-windows // at_a_time)), *crop, 3)}


def test_scores_at_a_quarter_are_resized_to_the_window():
    score = jnp.arange(12.0).reshape(1, 2, 2, 3)
    joined = sliding_window.join(score, 8, 8, (8, 8), (8, 8))
    np.testing.assert_allclose(joined[:, 0, 0], [0, 0, 0.75, 2.25, 3.75, 5.25, 6, 6], atol=1e-6)
