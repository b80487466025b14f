"""The forms of the positive-negative equal loss against loops over pixels in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.losses import pne

SIDE, DIM, CLASSES = 5, 4, 4
PIXELS = SIDE * SIDE
ALL = dict(temperature=0.5, anchors=PIXELS, samples=60, capacity=PIXELS, hard_share=0.1)
"""More samples than pixels: whole sets in turns, so that nothing is left to the draw."""


def config(form, **options):
    return ConfigDict(dict(form=form, **ALL) | options)


def problem(seed, label=None, predicted=None):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(PIXELS, DIM)).astype(np.float32)
    label = rng.choice([0, 1, 2, 255], PIXELS, p=[0.4, 0.3, 0.2, 0.1]) if label is None else np.array(label)
    if predicted is None:
        predicted = np.where(rng.uniform(size=PIXELS) < 0.5, label % CLASSES, rng.integers(0, CLASSES, PIXELS))
    return features, label, np.array(predicted), rng.uniform(0.3, 1.0, PIXELS).astype(np.float32)


@functools.cache
def compiled(form, options=()):
    def loss(features, label, predicted, confidence, key):
        maps = (x.reshape(SIDE, SIDE, *x.shape[1:]) for x in (features, label, predicted, confidence))
        sum_, weights = pne.image_sums(*maps, key, config(form, **dict(options)))
        return pne.FORMS[form][1](sum_, weights, config(form, **dict(options)))

    return jax.jit(jax.value_and_grad(loss))


def run(form, image, seed=0, **options):
    value, gradient = compiled(form, tuple(options.items()))(*image, jax.random.key(seed))
    return float(value), np.asarray(gradient)


def unit(features):
    features = np.asarray(features, np.float64)
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def in_turns(pixels, samples):
    return [pixels[i % len(pixels)] for i in range(samples)]


def paper(features, label, predicted, confidence):
    """Equation 9, every set brought to as many pixels in turns."""
    x, terms = unit(features), []
    for i in range(PIXELS):
        k, l = label[i], predicted[i]
        positives = [p for p in range(PIXELS) if label[p] == predicted[p] == k]
        negatives = [n for n in range(PIXELS) if label[n] == predicted[n] == l]
        if k == 255 or k == l or not positives or not negatives:
            continue
        weights = confidence.astype(np.float64)
        # The draw may begin a turn anywhere: means over whole sets are what all orders share.
        pull = np.mean([weights[p] * np.exp(x[i] @ x[p] / 0.5) for p in positives]) / np.mean(weights[positives])
        terms.append(np.log(1 + np.mean([np.exp(x[i] @ x[n] / 0.5) for n in negatives]) / pull))
    return np.mean(terms) if terms else 0.0


def released(features, label, predicted, confidence, samples=60, most=PIXELS, anchors=None):
    """Rows of every (predicted, true) pair as the released rules have them; `anchors` replaces anchors' features."""
    x, a = unit(features), unit(features) if anchors is None else anchors
    total, pixels, sets = 0.0, 0, 0
    for j in sorted(set(label) - {255}):
        for k in sorted(set(label) - {255, j}):
            own = [i for i in range(PIXELS) if predicted[i] == j and label[i] == k]
            positives = [i for i in range(PIXELS) if predicted[i] == label[i] == k]
            negatives = [i for i in range(PIXELS) if predicted[i] == label[i] == j]
            if not own or not positives or len(own) > most:
                continue
            pixels, sets = pixels + len(own), sets + 1
            for i in in_turns(own, samples):
                push = sum(np.exp(a[i] @ x[n] / 0.5) for n in in_turns(negatives or own, samples))
                pull = sum(float(confidence[p]) * np.exp(a[i] @ x[p] / 0.5) for p in in_turns(positives, samples))
                total += np.log(1 + push / pull)
    return total * pixels / max(1, sets * samples) ** 2


def equation_1(features, label, predicted):
    """Equation 1 for every misclassified pixel, with its hardest tenth alone: one to three pixels, all drawn often."""
    x, terms = unit(features), []
    for i in range(PIXELS):
        similar = x @ x[i] / 0.5
        positives = [p for p in range(PIXELS) if p != i and label[p] == label[i] != 255]
        negatives = [n for n in range(PIXELS) if 255 != label[n] != label[i]]
        if label[i] in (255, predicted[i]) or not positives or not negatives:
            continue
        positives = sorted(positives, key=lambda p: similar[p])[: int(np.ceil(0.1 * len(positives)))]
        negatives = sorted(negatives, key=lambda n: -similar[n])[: int(np.ceil(0.1 * len(negatives)))]
        total = np.mean(np.exp(similar[negatives])) * 60
        terms.append(np.mean([np.log(1 + total / np.exp(similar[p])) for p in positives]))
    return np.mean(terms) if terms else 0.0


maps = arrays.arrays(np.int32, (PIXELS,), elements=st.sampled_from([0, 1, 2, 255]))
predictions = arrays.arrays(np.int32, (PIXELS,), elements=st.integers(0, CLASSES - 1))


@pytest.mark.parametrize("options", [{}, {"samples": 3, "anchors": 4}], ids=["sets in turns", "sets cut and skipped"])
@given(label=maps, predicted=predictions, seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_the_released_form_equals_its_rules(options, label, predicted, seed):
    image = problem(seed, label, predicted)
    value, gradient = run("released", image, **options)
    wanted = released(*image, options.get("samples", 60), options.get("anchors", PIXELS))
    assert value == pytest.approx(wanted, rel=2e-5, abs=1e-7)
    assert np.isfinite(gradient).all()


@given(label=maps, predicted=predictions, seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_the_papers_form_equals_equation_9(label, predicted, seed):
    """Samples are drawn in turns, 4200 of sets of 1 to 25: means over whole sets to a share of 25 in 4200."""
    image = problem(seed, label, predicted)
    value, gradient = run("paper", image, samples=4200)
    assert value == pytest.approx(paper(*image), rel=1e-2, abs=1e-7)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("seed", range(3))
def test_equation_1_takes_the_hardest(seed):
    """The draw among one to three hardest varies the mean of 4000 samples by a few hundredths at the most."""
    image = problem(seed)
    value, _ = run("equation_1", image, samples=4000)
    assert value == pytest.approx(equation_1(*image[:3]) + np.log(4000 / 60), rel=2e-2)


def test_gradients_of_the_papers_form_equal_finite_differences():
    """Sets of 1, 2, 3, 4 or 6 pixels come out even in 60 samples, so that the draw does not matter."""
    label = [0] * 8 + [1] * 7 + [2] * 6 + [255] * 4
    predicted = [0] * 6 + [1, 2] + [1] * 4 + [0] * 3 + [2] * 3 + [0, 1, 1] + [0] * 4
    image = problem(3, label, predicted)
    value, gradient = run("paper", image)
    assert value == pytest.approx(paper(*image), rel=1e-5)
    for index in list(np.ndindex(PIXELS, DIM))[::3]:
        step = np.zeros((PIXELS, DIM))
        step[index] = 1e-6
        slope = (paper(image[0] + step, *image[1:]) - paper(image[0] - step, *image[1:])) / 2e-6
        assert gradient[index] == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_gradients_of_the_released_form_are_those_of_anchors_over_fixed_lengths():
    features, *rest = problem(4)
    _, gradient = run("released", (features, *rest))
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    for index in list(np.ndindex(PIXELS, DIM))[::7]:
        step = np.zeros((PIXELS, DIM))
        step[index] = 1e-6
        above, below = (released(features, *rest, anchors=(features + x) / lengths) for x in (step, -step))
        assert gradient[index] == pytest.approx((above - below) / 2e-6, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("form", pne.FORMS)
@pytest.mark.parametrize(
    ("label", "predicted"),
    [([255] * PIXELS, [1] * PIXELS), ([1] * PIXELS, [2] * PIXELS), ([0, 1, 2, 255, 1] * 5, [0, 1, 2, 3, 1] * 5)],
    ids=["all void", "one class, all wrong", "nothing wrong"],
)
def test_nothing_to_contrast_is_zero_with_zero_gradient(form, label, predicted):
    value, gradient = run(form, problem(0, label, predicted))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("form", pne.FORMS)
def test_void_pixels_change_nothing(form):
    features, label, predicted, confidence = problem(5)
    void = label == 255
    changed = np.where(void[:, None], 3 * features[::-1], features)
    others = np.where(void, (predicted + 1) % CLASSES, predicted)
    value, gradient = run(form, (features, label, predicted, confidence))
    assert run(form, (changed, label, others, np.where(void, 0.5, confidence)))[0] == value
    assert not gradient[void].any()


def test_at_most_so_many_anchors_are_drawn():
    maps = [jnp.asarray(x).reshape(SIDE, SIDE, *x.shape[1:]) for x in problem(6)]
    sums = jax.jit(lambda key: pne.image_sums(*maps, key, config("paper", anchors=3)))
    results = [sums(jax.random.key(seed)) for seed in range(5)]
    assert all(int(weights["anchors"]) == 3 for _, weights in results)
    assert len({float(sum_) for sum_, _ in results}) > 1


def test_anchors_beyond_the_capacity_are_stood_for_by_the_first_of_each_set():
    """Three sets of three alike pixels and room for three anchors: one of each stands for its set, the loss stays."""
    rng = np.random.default_rng(6)
    label = np.array([0, 1, 2] * 3 + [0, 1, 2, 3] * 4)
    predicted = np.concatenate([(label[:9] + 1) % CLASSES, label[9:]])
    features = rng.normal(size=(CLASSES, DIM))[label] + 3 * rng.normal(size=(CLASSES, DIM))[predicted]
    image = (features.astype(np.float32), label, predicted, np.full(PIXELS, 0.5, np.float32))
    whole, part = run("released", image), run("released", image, capacity=3)
    assert part[0] == pytest.approx(whole[0], rel=1e-5)
    assert np.flatnonzero(part[1].any(axis=1)).tolist() == [0, 1, 2]
    np.testing.assert_allclose(part[1][:3], whole[1][:9].reshape(3, 3, DIM).sum(axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", pne.FORMS)
def test_confidences_carry_no_gradient(form):
    rng = np.random.default_rng(8)
    features = jnp.asarray(rng.normal(size=(1, 1, SIDE, SIDE, DIM)), jnp.float32)
    scores = jax.nn.softmax(jnp.asarray(rng.normal(size=(1, 1, SIDE, SIDE, CLASSES)), jnp.float32))
    label = jnp.asarray(rng.integers(0, 3, (1, 1, SIDE, SIDE)), jnp.int32)
    loss = lambda features, scores: pne.batch_loss(
        features, scores, label, jax.random.split(jax.random.key(0), 1), config(form)
    )
    by_features, by_scores = jax.jit(jax.grad(loss, argnums=(0, 1)))(features, scores)
    assert np.asarray(by_features).any() and not np.asarray(by_scores).any()


def test_an_anchor_of_equation_1_is_not_its_own_positive():
    """Class 1 has two pixels, one of them misclassified: its positive is the other alone."""
    label, predicted = np.zeros(PIXELS, int), np.zeros(PIXELS, int)
    label[:2] = 1
    predicted[1] = 1
    image = problem(9, label, predicted)
    value, _ = run("equation_1", image, samples=4000)
    assert value == pytest.approx(equation_1(*image[:3]) + np.log(4000 / 60), rel=2e-2)


def test_a_batch_on_two_devices_is_that_on_one():
    """Parts by vmap with a named axis in place of devices; scores of half the features' resolution."""
    rng = np.random.default_rng(7)
    features = jnp.asarray(rng.normal(size=(4, 2, 4, 4, DIM)), jnp.float32)
    scores = jax.nn.softmax(jnp.asarray(rng.normal(size=(4, 2, 2, 2, CLASSES)), jnp.float32))
    label = jnp.asarray(rng.choice([0, 1, 255], (4, 2, 8, 8)), jnp.int32)
    keys = jax.random.split(jax.random.key(0), 4)
    whole = (features, scores, label, keys)
    loss = functools.partial(pne.batch_loss, config=config("released", anchors=5, samples=3))
    parts = jax.vmap(functools.partial(loss, total=lambda x: jax.lax.psum(x, "device")), axis_name="device")
    halves = jax.jit(parts)(*(x.reshape(2, 2, *x.shape[1:]) for x in whole))
    assert float(halves.sum()) == pytest.approx(float(jax.jit(loss)(*whole)), rel=1e-5) and halves.shape == (2,)


def test_an_unknown_form_is_refused():
    with pytest.raises(UserError, match="loss.pne.form is 'equal': expected one of equation_1, paper, released"):
        pne.batch_loss(*[jnp.zeros((1, 1, 2, 2, 3))] * 2, jnp.zeros((1, 1, 2, 2)), None, config("equal"))
