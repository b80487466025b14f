"""The contrastive loss against equations 1 and 2 of paper 000, written out as loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vspw_jax.losses import cross_frame_nce

PATCHES, DIM, TEMPERATURE = 14, 5, 0.1
value_and_grad = jax.jit(jax.value_and_grad(lambda f, l: cross_frame_nce.group_loss(f, l, TEMPERATURE)))


def reference(features, labels):
    """Equation 1 for every anchor with a positive, their mean negated as in equation 2."""
    features = features.astype(np.float64)
    losses = []
    for i, anchor in enumerate(features):
        positives = [j for j in range(len(labels)) if j != i and labels[j] == labels[i] != 255]
        negatives = [j for j in range(len(labels)) if labels[j] not in (labels[i], 255)]
        if not positives:
            continue
        total = sum(np.exp(anchor @ features[j] / TEMPERATURE) for j in negatives)
        terms = [np.exp(anchor @ features[p] / TEMPERATURE) for p in positives]
        losses.append(-np.mean([np.log(term / (term + total)) for term in terms]))
    return np.mean(losses) if losses else 0.0


def unit_features(seed):
    features = np.random.default_rng(seed).normal(size=(PATCHES, DIM))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


@given(
    labels=st.lists(st.sampled_from([0, 1, 2, 123, 255]), min_size=PATCHES, max_size=PATCHES), seed=st.integers(0, 99)
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_value_equals_the_equations(labels, seed):
    features = unit_features(seed)
    value, gradient = value_and_grad(features, np.array(labels))
    assert float(value) == pytest.approx(reference(features, labels), rel=1e-5, abs=1e-6)
    assert np.isfinite(gradient).all()


def test_gradient_equals_finite_differences():
    features, labels = unit_features(0), np.arange(PATCHES) % 3
    _, gradient = value_and_grad(features, labels)
    for index in [(0, 0), (3, 2), (13, 4)]:
        step = np.zeros((PATCHES, DIM))
        step[index] = 1e-6
        slope = (reference(features + step, labels) - reference(features - step, labels)) / 2e-6
        # `reference` casts to float64 itself, so that the step survives.
        assert float(gradient[index]) == pytest.approx(slope, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    "labels",
    [np.full(PATCHES, 255), np.arange(PATCHES), np.full(PATCHES, 7)],
    ids=["all void", "no positive", "one class"],
)
def test_nothing_to_contrast_is_zero_with_zero_gradient(labels):
    value, gradient = value_and_grad(unit_features(1), labels)
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, 0)


def test_void_patches_change_nothing():
    features, labels = unit_features(2), np.arange(PATCHES) % 3
    labels[:4] = 255
    other = features.copy()
    other[:4] = unit_features(3)[:4]
    value, gradient = value_and_grad(features, labels)
    changed, _ = value_and_grad(other, labels)
    assert float(value) == float(changed)
    np.testing.assert_array_equal(gradient[:4], 0)


def test_patch_labels_are_torchs_nearest():
    label = np.random.default_rng(0).integers(0, 124, (2, 3, 32, 64))
    patches = np.asarray(cross_frame_nce.patch_labels(jnp.asarray(label), 2, 4))
    np.testing.assert_array_equal(patches, label[:, :, ::16, ::16])


def test_groups_contrast_within_themselves():
    """The loss of two groups of clips is the sum of the losses of each alone."""
    rng = np.random.default_rng(4)
    features = rng.normal(size=(4, 2, 3, 3, DIM)).astype(np.float32)
    label = rng.integers(0, 3, (4, 2, 48, 48))
    together = cross_frame_nce.grouped_loss(features, label, 2, TEMPERATURE)
    apart = [cross_frame_nce.grouped_loss(features[i : i + 2], label[i : i + 2], 1, TEMPERATURE) for i in (0, 2)]
    assert float(together) == pytest.approx(float(sum(apart)), rel=1e-6)


def test_a_zero_feature_has_a_finite_gradient():
    features = jnp.zeros((1, 2, 2, 2, DIM))
    label = jnp.arange(8).reshape(1, 2, 2, 2) % 2
    gradient = jax.grad(lambda f: cross_frame_nce.grouped_loss(f, label, 1, TEMPERATURE))(features)
    assert np.isfinite(gradient).all()
