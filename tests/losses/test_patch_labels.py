"""Labels of patches against loops over their pixels, and PyTorch's nearest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vspw_jax.losses import patch_labels


def loops(label, size, min_share):
    """Majority labels: every pixel's vote, counted one by one."""
    patches = np.full((*label.shape[:2], *size), 255)
    for *clip, row, column in np.ndindex(*patches.shape):
        votes = []
        for y, x in np.ndindex(*label.shape[2:]):
            if (y * size[0] // label.shape[2], x * size[1] // label.shape[3]) == (row, column):
                votes.append(int(label[(*clip, y, x)]))
        classes = sorted(set(votes) - {255})
        if classes:
            best = max(classes, key=votes.count)
            if votes.count(best) >= min_share * len(votes):
                patches[(*clip, row, column)] = best
    return patches


@given(
    label=arrays.arrays(np.int32, (1, 2, 6, 4), elements=st.sampled_from([0, 3, 123, 254, 255])),
    size=st.sampled_from([(3, 2), (2, 1), (4, 3)]),
    min_share=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_majority_equals_counted_votes(label, size, min_share):
    np.testing.assert_array_equal(patch_labels.majority(label, *size, min_share), loops(label, size, min_share))


def test_nearest_is_torchs():
    torch = pytest.importorskip("torch")
    label = np.random.default_rng(0).integers(0, 124, (2, 3, 31, 64))
    theirs = torch.nn.functional.interpolate(torch.from_numpy(label).float(), size=(5, 4), mode="nearest")
    np.testing.assert_array_equal(patch_labels.nearest(label, 5, 4), theirs.numpy())
