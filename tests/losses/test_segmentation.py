"""The mask classification loss against NumPy in float64, straight from Mask2Former's definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from ml_collections import ConfigDict
from scipy.optimize import linear_sum_assignment

from vspw_jax.console.errors import UserError
from vspw_jax.losses import matching, segmentation
from vspw_jax.metrics.confusion import ConfusionMatrix
from vspw_jax.sampling import bilinear, points

QUERIES, CLASSES, SIZE = 6, 4, 8
CONFIG = ConfigDict(
    dict(
        capacity=4,
        num_points=24,
        oversample=3.0,
        importance=0.75,
        no_object_weight=0.1,
        matching={"cls": 2.0, "mask": 5.0, "dice": 5.0},
        void="background",
    )
)
EXCLUDED = ConfigDict(CONFIG.to_dict() | {"void": "excluded"})


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def sample(map_HW, points):
    """Bilinear samples with zeros outside, one point at a time."""
    height, width = map_HW.shape
    values = []
    for x, y in np.asarray(points, np.float64):
        x, y = x * width - 0.5, y * height - 0.5
        total = 0.0
        for row in (int(np.floor(y)), int(np.floor(y)) + 1):
            for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                if 0 <= row < height and 0 <= column < width:
                    total += (1 - abs(x - column)) * (1 - abs(y - row)) * map_HW[row, column]
        values.append(total)
    return np.array(values)


def mask_losses(logits, targets, counted):
    """(binary cross-entropy, dice loss) of one mask at those of its points that count."""
    p, targets = sigmoid(logits)[counted], targets[counted]
    if not counted.any():
        return 0.0, 0.0
    cross_entropy = -np.mean(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    return cross_entropy, 1 - (2 * (p * targets).sum() + 1) / (p.sum() + targets.sum() + 1)


def problem(seed, label=None):
    rng = np.random.default_rng(seed)
    class_logits = rng.normal(size=(QUERIES, CLASSES + 1)).astype(np.float32)
    mask_logits = rng.normal(size=(QUERIES, SIZE, SIZE)).astype(np.float32)
    if label is None:
        label = np.kron(rng.choice([0, 1, 3, 255], (4, 4)), np.ones((4, 4))).astype(np.int32)
    return class_logits, mask_logits, label


def reference(class_logits, mask_logits, label, key, void="background"):
    """Sums and weights of `image_terms`, at the points that it draws."""

    def is_counted(points):
        if void == "background":
            return np.ones(len(points), bool)
        cells_under_void = (label == 255).reshape(SIZE, label.shape[0] // SIZE, SIZE, -1).all(axis=(1, 3))
        return np.isclose(sample(label == 255, points), 0) & np.isclose(sample(cells_under_void, points), 0)

    def counted_traced(points):
        shape = jax.ShapeDtypeStruct(points.shape[:-1], bool)
        return jax.pure_callback(is_counted, shape, points, vmap_method="sequential")

    def losses_at(points, mask_HW, c):
        counted = is_counted(points)
        return mask_losses(sample(mask_HW, points), sample(label == c, points), counted)

    present = [c for c in range(CLASSES) if (label == c).any()]
    match_key, point_key = jax.random.split(key)
    points = jax.random.uniform(match_key, (CONFIG.num_points, 2))
    probabilities = np.exp(np.float64(class_logits)) / np.exp(np.float64(class_logits)).sum(axis=1, keepdims=True)
    cost = np.zeros((QUERIES, len(present)))
    for q in range(QUERIES):
        for m, c in enumerate(present):
            mask, dice = losses_at(points, mask_logits[q], c)
            cost[q, m] = 2 * -probabilities[q, c] + 5 * mask + 5 * dice
    queries, targets = linear_sum_assignment(cost)

    wanted = np.full(QUERIES, CLASSES)
    sums = {"cls": 0.0, "mask": 0.0, "dice": 0.0}
    keys = jax.random.split(point_key, CONFIG.capacity)
    for q, m in zip(queries, targets, strict=True):
        wanted[q] = present[m]
        (points,) = segmentation.uncertain_points(
            mask_logits[q][None], keys[m][None], CONFIG.num_points, 3.0, 0.75, counted_traced
        )
        mask, dice = losses_at(points, mask_logits[q], present[m])
        sums["mask"] += mask
        sums["dice"] += dice
    weights = np.where(wanted == CLASSES, 0.1, 1.0)
    sums["cls"] = (weights * -np.log(probabilities[np.arange(QUERIES), wanted])).sum()
    return sums, {"cls": weights.sum(), "mask": len(present), "dice": len(present)}


def matched_terms(class_logits, mask_logits, label, key, config):
    """`image_terms` with the matching."""
    class_M, valid_M = segmentation.present_classes(label, class_logits.shape[1] - 1, config.capacity)
    cost_QM = segmentation.image_cost(class_logits, mask_logits, label, class_M, key, config)
    matched = class_M, valid_M, matching.assign(cost_QM, valid_M)
    return segmentation.image_terms(class_logits, mask_logits, label, *matched, key, config)


image_terms = jax.jit(lambda *args: matched_terms(*args, CONFIG))


@jax.jit
def excluded_terms_and_gradient(class_logits, mask_logits, label, key):
    """(sums, weights) with void excluded, and the gradient of the sums' total by the mask logits."""

    def total(mask_logits):
        sums, weights = matched_terms(class_logits, mask_logits, label, key, EXCLUDED)
        return sum(sums.values()), (sums, weights)

    gradient, (sums, weights) = jax.grad(total, has_aux=True)(mask_logits)
    return sums, weights, gradient


@pytest.mark.parametrize("void", ["background", "excluded"])
@pytest.mark.parametrize("seed", range(3))
def test_terms_equal_the_definitions(seed, void):
    class_logits, mask_logits, label = problem(seed)
    key = jax.random.key(seed)
    terms = image_terms if void == "background" else excluded_terms_and_gradient
    sums, weights, *_ = terms(class_logits, mask_logits, label, key)
    wanted_sums, wanted_weights = reference(class_logits, mask_logits, label, key, void)
    for term in wanted_sums:
        assert float(sums[term]) == pytest.approx(wanted_sums[term], rel=1e-5)
        assert float(weights[term]) == pytest.approx(wanted_weights[term], rel=1e-6)


def test_a_frame_of_void_counts_nothing():
    class_logits, mask_logits, label = problem(0, np.full((16, 16), 255, np.int32))
    sums, weights = image_terms(class_logits, mask_logits, label, jax.random.key(0))
    assert set(map(float, (*sums.values(), *weights.values()))) == {0.0}


@given(
    cells=arrays.arrays(np.int32, (SIZE, SIZE), elements=st.sampled_from([0, 1, 3, 255, 255])),
    specks=arrays.arrays(bool, (SIZE, SIZE)),
    seed=st.integers(0, 99),
    size=st.sampled_from([0.0, 1.0, 1e6]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_nothing_under_excluded_void_moves_loss_matching_or_scores(cells, specks, seed, size):
    """Predictions under void are replaced: terms stay bit for bit, so the matching does, and no gradient is there.

    Labels have four times the masks' resolution; a speck is one labelled pixel in a cell that is void else.
    """
    label = np.kron(cells, np.ones((4, 4), np.int32))
    under_void = (cells == 255) & ~specks
    label[1::4, 1::4] = np.where((cells == 255) & specks, 1, cells)
    class_logits, mask_logits, _ = problem(seed)
    key = jax.random.key(seed)
    drawn = size * np.random.default_rng(seed + 1).normal(size=mask_logits.shape).astype(np.float32)
    replaced = np.where(under_void, drawn, mask_logits)
    sums, weights, gradient = excluded_terms_and_gradient(class_logits, mask_logits, label, key)
    other_sums, other_weights, _ = excluded_terms_and_gradient(class_logits, replaced, label, key)
    assert (sums, weights) == (other_sums, other_weights)
    assert np.isfinite(gradient).all() and (np.asarray(gradient)[:, under_void] == 0).all()
    scores = [ConfusionMatrix(QUERIES) for _ in range(2)]
    for matrix, masks in zip(scores, (mask_logits, replaced), strict=True):
        matrix.add(label, np.kron(masks.argmax(axis=0), np.ones((4, 4), np.int64)))
    np.testing.assert_array_equal(scores[0].counts_KK, scores[1].counts_KK)


def test_void_counts_as_released_unless_excluded():
    """The property above is the option's doing: as released, a prediction under void moves the loss."""
    class_logits, mask_logits, label = problem(0, np.kron([[0, 255], [1, 3]], np.ones((8, 8))).astype(np.int32))
    replaced = np.where(label[::2, ::2] == 255, 9.0, mask_logits).astype(np.float32)
    sums, _ = image_terms(class_logits, mask_logits, label, jax.random.key(0))
    other_sums, _ = image_terms(class_logits, replaced, label, jax.random.key(0))
    assert abs(float(sums["mask"]) - float(other_sums["mask"])) > 0.1


@jax.jit
def batch_loss_and_gradients(class_logits, mask_logits, label, keys):
    """The sum of a batch's terms, and its gradients by class and mask logits."""
    loss = lambda *logits: sum(segmentation.mask_classification_loss(*logits, label, keys, CONFIG).values())
    return jax.value_and_grad(loss, argnums=(0, 1))(class_logits, mask_logits)


@pytest.mark.parametrize("labels", [(255, 255), (255, 1)])
def test_an_image_of_void_teaches_nothing_beside_others_or_alone(labels):
    """Of the loss of a batch: no gradient, and the other image's terms are as if it were alone."""
    first, second = problem(0), problem(1)
    class_logits, mask_logits = (np.stack([first[part], second[part]])[None] for part in (0, 1))
    label = np.stack([np.full((16, 16), value, np.int32) for value in labels])
    keys = jax.random.split(jax.random.key(0), 2)

    value, gradients = batch_loss_and_gradients(class_logits, mask_logits, label, keys)
    assert all((np.asarray(gradient)[:, 0] == 0).all() for gradient in gradients)
    sums, weights = image_terms(second[0], second[1], label[1], jax.random.fold_in(keys[1], 0))
    alone = sum(float(sums[term]) / max(float(weights[term]), 1.0) for term in sums)
    assert float(value) == pytest.approx(alone, rel=1e-5)
    assert all((np.asarray(gradient)[:, 1] != 0).any() == (labels[1] == 1) for gradient in gradients)


def test_an_unknown_void_is_refused():
    config = ConfigDict(CONFIG.to_dict() | {"void": "some"})
    with pytest.raises(UserError, match="void is 'some': expected one of background, excluded"):
        matched_terms(*problem(0), jax.random.key(0), config)


def test_classes_are_padded_in_ascending_order():
    label = jnp.array([[3, 255], [1, 3]])
    class_M, valid_M = segmentation.present_classes(label, CLASSES, 4)
    assert class_M[:2].tolist() == [1, 3]
    assert valid_M.tolist() == [True, True, False, False]


def test_void_is_no_class_among_more_classes_than_bytes():
    class_M, valid_M = segmentation.present_classes(jnp.array([[300, 255, 7, 256]]), 343, 5)
    assert class_M[valid_M].tolist() == [7, 256, 300]


def test_points_are_where_the_mask_is_least_sure():
    """A mask that is unsure in its middle half: three quarters of the points lie there, the rest anywhere."""
    logits = jnp.full((SIZE, SIZE), 50.0).at[:, 2:6].set(0.0)
    (points,) = np.asarray(segmentation.uncertain_points(logits[None], jax.random.key(0)[None], 400, 3.0, 0.75))
    in_the_middle = np.abs(points[:, 0] - 0.5) < 0.25
    assert points.shape == (400, 2) and (points >= 0).all() and (points <= 1).all()
    assert in_the_middle[:300].all() and 0.3 < in_the_middle[300:].mean() < 0.7


def test_samples_equal_loops_also_at_borders_and_outside():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(5, 7, 3)).astype(np.float32)
    awkward = [[0, 0], [1, 1], [0, 1], [-0.01, 0.5], [1.02, 0.5], [0.5, -3], [1e9, -1e9], [0.5 / 7, 0.5 / 5]]
    points = np.concatenate([rng.uniform(-0.2, 1.2, (50, 2)), awkward]).astype(np.float32)
    sampled = np.asarray(bilinear.sample(image, points))
    for channel in range(3):
        np.testing.assert_allclose(sampled[:, channel], sample(image[..., channel], points), atol=1e-5)


def test_batch_averages_over_images_and_sums_over_predictions():
    """Two images and two predictions: class by total weight, masks by their total number."""
    problems = [problem(seed) for seed in (0, 1)]
    keys = jax.random.split(jax.random.key(9), 2)
    class_logits = np.stack([[p[0] for p in problems], [2 * p[0] for p in problems]])
    mask_logits = np.stack([[p[1] for p in problems], [-p[1] for p in problems]])
    labels = np.stack([p[2] for p in problems])
    losses = segmentation.mask_classification_loss(class_logits, mask_logits, labels, keys, CONFIG)
    for term in losses:
        wanted = 0.0
        for prediction in range(2):
            parts = [
                image_terms(
                    class_logits[prediction, i],
                    mask_logits[prediction, i],
                    labels[i],
                    jax.random.fold_in(keys[i], prediction),
                )
                for i in range(2)
            ]
            wanted += sum(float(sums[term]) for sums, _ in parts) / sum(float(weights[term]) for _, weights in parts)
        assert float(losses[term]) == pytest.approx(wanted, rel=1e-5)


def test_gradients_are_finite_for_extreme_logits():
    class_logits, mask_logits, label = problem(3)

    def loss(class_logits, mask_logits):
        sums, _ = matched_terms(class_logits, mask_logits, label, jax.random.key(0), CONFIG)
        return sum(sums.values())

    for scale in (0.0, 1e3, 1e6):
        gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(scale * class_logits, scale * mask_logits)
        assert all(np.isfinite(g).all() for g in gradients)


@pytest.fixture(scope="module")
def of_gathers():
    """What `loss_and_gradient` gives without kernels."""
    return loss_and_gradient()


def loss_and_gradient():
    """The loss of a batch in which each image has some of the classes, and its gradients."""
    problems = [problem(seed) for seed in range(3)]
    class_logits, mask_logits, labels = (np.stack(x) for x in zip(*problems, strict=True))
    labels[1] = np.where(labels[1] == 255, 255, 3)
    keys = jax.random.split(jax.random.key(5), 3)

    def loss(*logits):
        terms = segmentation.mask_classification_loss(*logits, labels, keys, CONFIG)
        return sum(terms.values()), terms

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    return jax.tree.map(np.asarray, gradient(class_logits[None], mask_logits[None]))


def test_the_loss_is_the_same_by_kernels_and_by_gathers(of_gathers, platform):
    for by_kernels, by_gathers in zip(*map(jax.tree.leaves, (loss_and_gradient(), of_gathers)), strict=True):
        np.testing.assert_allclose(by_kernels, by_gathers, rtol=1e-5, atol=1e-6)


def test_what_samples_for_an_order_are_off_by_is_in_no_term(of_gathers, monkeypatch):
    """Larger by the same share they have the same order, so that terms and gradients stay as they are, to the bit."""
    sample = points.sample

    def off(maps, *args, exact=True):
        return sample(maps if exact else maps * 1.5, *args, exact=exact)

    monkeypatch.setattr(points, "sample", off)
    for found, wanted in zip(*map(jax.tree.leaves, (loss_and_gradient(), of_gathers)), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.fixture(scope="module")
def matched_by_gathers():
    """What `matchings` gives without kernels."""
    return matchings()


def matchings():
    """(costs, queries of targets) of twenty random images."""

    def of_image(class_logits, mask_logits, label, key):
        class_M, valid_M = segmentation.present_classes(label, CLASSES, CONFIG.capacity)
        cost_QM = segmentation.image_cost(class_logits, mask_logits, label, class_M, key, CONFIG)
        return cost_QM, matching.assign(cost_QM, valid_M)

    problems = [np.stack(x) for x in zip(*map(problem, range(20)), strict=True)]
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(of_image))(*problems, jax.random.split(jax.random.key(6), 20)))


def test_matchings_by_kernels_are_those_by_gathers(matched_by_gathers, platform):
    (cost, query), (exact_cost, exact_query) = matchings(), matched_by_gathers
    np.testing.assert_allclose(cost, exact_cost, atol=1e-3)
    np.testing.assert_array_equal(query, exact_query)
