"""Sliding windows: where they lie, and that overlaps are averaged by count."""

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
    ("frame", "crop", "size"),
    [
        ((480, 853), (896, 896), (896, 1600)),
        ((480, 853), (480, 480), (480, 864)),
        ((1080, 1920), (480, 480), (480, 864)),
        ((853, 480), (480, 480), (864, 480)),
        ((100, 100), (64, 128), (128, 128)),
    ],
)
def test_input_size_has_the_crops_short_side_in_multiples_of_32(frame, crop, size):
    assert sliding_window.input_size(*frame, crop) == size


def test_scores_of_pixels_are_put_back_where_they_came_from():
    """A per-pixel score gives the same whatever the windows."""
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 48, 80, 3)).astype(np.float32))
    scores = sliding_window.class_scores(lambda window: 2 * window, image, (32, 32), (20, 24))
    np.testing.assert_allclose(scores, 2 * image, rtol=1e-6, atol=1e-6)


def test_overlaps_are_averaged_by_count():
    """Every window scores its own mean: compare with a loop over the windows."""
    image = np.random.default_rng(0).normal(size=(1, 40, 64, 3)).astype(np.float32)

    def score(window):
        return jnp.broadcast_to(window.mean(axis=(1, 2), keepdims=True), (1, 8, 8, 3))

    total, count = np.zeros((40, 64, 3)), np.zeros((40, 64, 1))
    for top in (0, 8):
        for left in (0, 20, 32):
            here = np.s_[top : top + 32, left : left + 32]
            total[here] += image[0][here].mean(axis=(0, 1))
            count[here] += 1
    scores = sliding_window.class_scores(score, jnp.asarray(image), (32, 32), (20, 20))
    np.testing.assert_allclose(scores[0], total / count, rtol=1e-5, atol=1e-6)
