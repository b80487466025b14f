"""Paper 003's contrasts against equations 2, 4 and 8, written out as loops in float64, with their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vspw_jax.losses import prototypes

PIXELS, DIM, CLASSES, TEMPERATURE = 11, 5, 6, 0.07
ALL, NONE = np.ones(CLASSES, bool), np.zeros(CLASSES, bool)


def unit(seed, rows):
    x = np.random.default_rng(seed).normal(size=(rows, DIM))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def logsumexp(values):
    return max(values) + np.log(np.exp(np.array(values) - max(values)).sum())


def equation_8(features, labels, rows, valid, alpha=1.0, top=0, own_in_top=True):
    losses = []
    for feature, label in zip(features.astype(np.float64), labels, strict=True):
        if label >= CLASSES or not valid[label]:
            continue
        similarity = {k: feature @ rows[k].astype(np.float64) / TEMPERATURE for k in range(CLASSES) if valid[k]}
        log_of = lambda k, s=similarity: s[k] - logsumexp(list(s.values()))
        candidates = [k for k in similarity if own_in_top or k != label]
        nearest = sorted(candidates, key=lambda k, s=similarity: -s[k])[:top]  # Stable: of equal ones the first.
        loss = -alpha * log_of(label)
        if nearest:
            loss -= (1 - alpha) / len(nearest) * sum(log_of(k) for k in nearest)
        losses.append(loss)
    return np.mean(losses) if losses else 0.0


def equation_2(features, labels, keys, key_labels):
    losses = []
    for feature, label in zip(features.astype(np.float64), labels, strict=True):
        similarity = [feature @ key / TEMPERATURE for key, y in zip(keys.astype(np.float64), key_labels, strict=True)
                      if y != 255]  # fmt: skip
        known = [y for y in key_labels if y != 255]
        positives = [s for s, y in zip(similarity, known, strict=True) if y == label]
        if positives:
            losses.append(-sum(s - logsumexp(similarity) for s in positives) / len(positives))
    return np.mean(losses) if losses else 0.0


def differences(reference, features):
    """The gradient of a float64 loop by central differences."""
    gradient = np.zeros(features.shape)
    for index in np.ndindex(features.shape):
        step = np.zeros(features.shape)
        step[index] = 1e-6
        gradient[index] = (reference(features + step) - reference(features - step)) / 2e-6
    return gradient


@functools.cache
def by_features(alpha, top, own_in_top):
    def loss(features, labels, rows, valid):
        return prototypes.mean(
            prototypes.prototype_losses(features, labels, rows, valid, TEMPERATURE, alpha, top, own_in_top)
        )

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 2)))


def check_8(labels, valid, options, features=None, rows=None):
    features = unit(0, PIXELS) if features is None else features
    rows = unit(1, CLASSES) if rows is None else rows
    labels = np.resize(labels, PIXELS).astype(np.int32)
    value, (of_features, of_rows) = by_features(*options)(features, labels, rows, valid)
    assert float(value) == pytest.approx(equation_8(features, labels, rows, valid, *options), rel=1e-5, abs=1e-6)
    loop = lambda x, y: equation_8(x, labels, y, valid, *options)
    np.testing.assert_allclose(of_features, differences(lambda x: loop(x, rows), features), rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(of_rows, differences(lambda y: loop(features, y), rows), rtol=1e-3, atol=2e-4)
    return float(value)


HARD, SPARSE, OTHERS = (1.0, 0, True), (0.5, 3, True), (0.25, 3, False)


@pytest.mark.parametrize("options", [HARD, SPARSE, OTHERS, (0.5, CLASSES + 3, True)])
@pytest.mark.parametrize(
    ("labels", "valid"),
    [
        ([0, 1, 5, 255, 3], ALL),
        ([0, 1, 5, 255, 3], np.array([1, 0, 1, 1, 0, 1], bool)),  # Class 1 has pixels, class 4 none.
        ([2], ALL),  # One class.
        ([2, 255], np.arange(CLASSES) == 2),  # One prototype: the softmax is 1.
        ([0, 1], NONE),
        ([255], ALL),
    ],
)
def test_prototypes_are_equations_4_and_8_with_gradients(labels, valid, options):
    value = check_8(labels, valid, options)
    assert (value == 0) == (valid.sum() < 2 or labels == [255])


def test_of_equally_similar_prototypes_the_first_are_pulled_to():
    """Pairs of equal rows; three of six are picked, so one of the second pair. The gradient by rows shows which."""
    rows = np.repeat(unit(3, CLASSES // 2), 2, axis=0)
    features, labels, options = unit(3, 1), np.zeros(1, np.int32), (0.5, 3, True)
    value, (_, of_rows) = by_features(*options)(features, labels, rows, ALL)
    assert float(value) == pytest.approx(equation_8(features, labels, rows, ALL, *options), rel=1e-5)
    _, (_, of_rows_hard) = by_features(*HARD)(features, labels, rows, ALL)
    pull = TEMPERATURE * (of_rows_hard - of_rows) @ features[0] + 0.5 * (np.arange(CLASSES) == 0)
    similar = np.argsort(-(rows.astype(np.float64) @ features[0]), kind="stable")
    np.testing.assert_allclose(pull, np.isin(np.arange(CLASSES), similar[:3]) / 6, atol=1e-5)


def test_the_contract_is_the_mean_and_its_own_class_may_be_among_the_similar():
    features, rows, labels = unit(0, PIXELS), unit(1, CLASSES), np.arange(PIXELS) % CLASSES
    hard = prototypes.pixel_to_prototype(features, labels, rows, ALL, TEMPERATURE)
    sparse = prototypes.pixel_to_prototype(features, labels, rows, ALL, TEMPERATURE, alpha=0.5, top=3)
    assert float(hard) == pytest.approx(equation_8(features, labels, rows, ALL), rel=1e-5)
    assert float(sparse) == pytest.approx(equation_8(features, labels, rows, ALL, 0.5, 3), rel=1e-5)


@pytest.mark.parametrize(
    ("labels", "key_labels"),
    [([0, 1, 255, 4], [1, 255, 4, 4, 7]), ([3], [3]), ([3], [2]), ([255], [1, 2]), ([0, 1], [255])],
)
def test_pixels_are_equation_2_with_gradients(labels, key_labels):
    features, keys = unit(0, PIXELS), unit(2, 7)
    labels, key_labels = np.resize(labels, PIXELS).astype(np.int32), np.resize(key_labels, 7).astype(np.int32)
    loss = lambda x, y: prototypes.pixel_to_pixel(x, labels, y, key_labels, TEMPERATURE)
    value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(features, keys)
    reference = lambda x, y: equation_2(x, labels, y, key_labels)
    assert float(value) == pytest.approx(reference(features, keys), rel=1e-5, abs=1e-6)
    expected = differences(lambda x: reference(x, keys), features), differences(lambda y: reference(features, y), keys)
    for found, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=2e-4)


def test_strips_change_nothing_and_keep_no_similarities(monkeypatch):
    """Strips of 4 do not divide 11 pixels. At 4096 pixels and keys the plain form keeps 64 MiB, strips a few."""
    labels, key_labels = np.arange(PIXELS) % 4, np.arange(7) % 5
    loss = lambda x: (
        prototypes.pixel_to_pixel(x, labels, unit(2, 7), key_labels, TEMPERATURE)
        + prototypes.pixel_to_prototype(x, labels, unit(1, CLASSES), ALL, TEMPERATURE, 0.5, 3)
    )
    plain = jax.value_and_grad(loss)(jnp.asarray(unit(0, PIXELS)))
    monkeypatch.setattr(prototypes, "STRIP_SIMILARITIES", 4 * 7)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        plain,
        jax.value_and_grad(loss)(jnp.asarray(unit(0, PIXELS))),
    )
    shape = jax.ShapeDtypeStruct((4096, DIM), np.float32), jax.ShapeDtypeStruct((4096,), np.int32)

    def temporaries(similarities):
        monkeypatch.setattr(prototypes, "STRIP_SIMILARITIES", similarities)
        gradient = jax.grad(lambda x, y: prototypes.pixel_to_pixel(x, y, x, y, TEMPERATURE))
        return jax.jit(gradient).lower(*shape).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(2**16) < 4 * 2**20 < 64 * 2**20 < temporaries(2**24)
