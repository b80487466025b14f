"""Class vectors, what attends to them, clusters: against loops in float64 that are written from the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from vspw_jax.losses.clusters import nearest_mse
from vspw_jax.models.decoders.ocrnet import ObjectAttention, gather_regions
from vspw_jax.models.temporal.category_context import Clusters, Reference, classes_present
from vspw_jax.parallel.mesh import DATA_AXES, make_mesh

IMAGES, HEIGHT, WIDTH, CLASSES, CLUSTERS, DIM, KEY_DIM = 2, 3, 4, 3, 2, 6, 4


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    return lambda *shape: rng.normal(size=shape).astype(np.float32)


def in_loops(features, logits):
    """Each class's mean feature by the softmax over an image's cells."""
    vectors = np.zeros((IMAGES, CLASSES, DIM))
    for n in range(IMAGES):
        for k in range(CLASSES):
            weights = np.exp(logits[n, :, :, k].astype(np.float64))
            for y in range(HEIGHT):
                for x in range(WIDTH):
                    vectors[n, k] += weights[y, x] / weights.sum() * features[n, y, x]
    return vectors


def projected(x, layers):
    """Through 1x1 convolutions with a fresh batch norm, which divides by sqrt(1 + 1e-5), and ReLU."""
    for layer in layers:
        x = np.maximum(x @ np.asarray(layer.conv.kernel[...], np.float64) / np.sqrt(1 + 1e-5), 0)
    return x


def test_pixels_attend_to_the_reference_to_themselves_and_to_clusters(drawn):
    features, reference = drawn(2, IMAGES, HEIGHT, WIDTH, DIM)
    logits, of_reference = drawn(2, IMAGES, HEIGHT, WIDTH, CLASSES)
    rngs = nnx.Rngs(params=jax.random.key(0))
    attention = ObjectAttention(DIM, KEY_DIM, dtype=jnp.float32, rngs=rngs)
    clusters = Clusters(CLASSES, CLUSTERS, DIM, "mse", rngs=rngs)
    clusters.rows_KGC[...] = drawn(CLASSES, CLUSTERS, DIM)
    vectors = gather_regions(reference, of_reference), gather_regions(features, logits)
    ours = attention(features, jnp.concatenate([*vectors, clusters.for_images(vectors[0])], axis=1), False)

    of_reference, own = in_loops(reference, of_reference), in_loops(features, logits)
    np.testing.assert_allclose(vectors[0], of_reference, rtol=1e-5, atol=1e-6)
    expected = np.zeros(features.shape)
    for n in range(IMAGES):
        seen = [*of_reference[n], *own[n], *np.asarray(clusters.rows_KGC[...], np.float64).reshape(-1, DIM)]
        keys = [projected(vector, attention.key) for vector in seen]
        values = [projected(vector, [attention.value]) for vector in seen]
        for y in range(HEIGHT):
            for x in range(WIDTH):
                pixel = features[n, y, x].astype(np.float64)
                query = projected(pixel, attention.query)
                weights = np.exp([query @ key / np.sqrt(KEY_DIM) for key in keys])
                found = sum(weight * value for weight, value in zip(weights / weights.sum(), values, strict=True))
                context = projected(found, [attention.out])
                expected[n, y, x] = projected(np.concatenate([context, pixel]), [attention.joining])
    assert np.abs(ours - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_cluster_is_pulled_by_the_vectors_that_it_is_nearest_to(drawn):
    """The loss and its gradients; a class that no image has pulls nothing, and no vector is pulled."""
    vectors, rows = drawn(IMAGES, CLASSES, DIM), drawn(CLASSES, CLUSTERS, DIM)
    label = np.array([[[0, 255], [1, 1]], [[1, 0], [1, 1]]])
    present = classes_present(jnp.asarray(label), CLASSES)
    np.testing.assert_array_equal(present, [[True, True, False]] * 2)
    loss, (of_rows, of_vectors) = jax.value_and_grad(lambda rows, vectors: nearest_mse(vectors, rows, present), (0, 1))(
        rows, vectors
    )
    expected, gradient = 0.0, np.zeros(rows.shape)
    for n, k in ((0, 0), (0, 1), (1, 0), (1, 1)):
        errors = [np.mean((vectors[n, k].astype(np.float64) - row) ** 2) for row in rows[k]]
        nearest = int(np.argmin(errors))
        expected += errors[nearest] / 4
        gradient[k, nearest] += 2 * (rows[k, nearest] - vectors[n, k]) / DIM / 4
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(of_rows, gradient, rtol=1e-5, atol=1e-7)
    assert not np.any(of_vectors)
    assert float(nearest_mse(vectors, rows, np.zeros((IMAGES, CLASSES), bool))) == 0.0


def taught(rows_of_steps, present, num_devices, momentum=0.25):
    """Clusters after so many steps, each of two passes, as a step has its parts."""
    clusters = Clusters(CLASSES, CLUSTERS, DIM, "ema", rngs=nnx.Rngs(params=jax.random.key(0)))
    graphdef, state = nnx.split(clusters)

    def seen(state, vectors, present):
        module = nnx.merge(graphdef, state)
        module.learn(vectors, present, momentum)
        return module.seen.get_value()

    mesh = make_mesh(devices=jax.devices()[:num_devices])
    shared = jax.shard_map(seen, mesh=mesh, in_specs=(P(), P(DATA_AXES), P(DATA_AXES)), out_specs=P(), check_vma=False)
    for vectors in rows_of_steps:
        lessons = [shared(nnx.state(clusters), vectors[half], present[half]) for half in (np.s_[:2], np.s_[2:])]
        clusters.settle(jax.tree.map(lambda *parts: jnp.stack(parts), *lessons))
    return np.asarray(clusters.rows_KGC[...]), np.asarray(clusters.valid_KG[...])


def test_clusters_as_a_moving_average(drawn):
    """On one device and on two. The first vectors of a class set its first cluster, the next step's its second; then
    the nearest moves."""
    steps = [drawn(4, CLASSES, DIM) + offset for offset in (0.0, 1.0, 2.0, 3.0)]
    present = np.array([[True, False, True]] * 3 + [[True, False, False]])
    rows, valid = taught(steps, present, 1)
    expected, seen = {}, {}
    for vectors in steps:
        before = {name: row.copy() for name, row in expected.items()}
        given = {}
        for n, k in zip(*np.nonzero(present), strict=True):
            unseen = [g for g in range(CLUSTERS) if (k, g) not in before]
            distances = [np.sum((vectors[n, k] - before.get((k, g), 0)) ** 2) for g in range(CLUSTERS)]
            given.setdefault((k, unseen[0] if unseen else int(np.argmin(distances))), []).append(vectors[n, k])
        for name, vectors_of_cluster in given.items():
            mean, row = np.mean(vectors_of_cluster, axis=0, dtype=np.float64), before.get(name)
            expected[name] = mean if row is None else 0.75 * row + 0.25 * mean
            seen[name] = True
    for (k, g), row in expected.items():
        np.testing.assert_allclose(rows[k, g], row, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(valid, [[True, True], [False, False], [True, True]])
    np.testing.assert_allclose(taught(steps, present, 2)[0], rows, rtol=1e-5, atol=1e-6)


def test_no_pixel_attends_to_a_cluster_that_has_seen_nothing(drawn):
    """Where none of a class has, to the image's own class vector; and the others are as they are."""
    clusters = Clusters(CLASSES, CLUSTERS, DIM, "ema", rngs=nnx.Rngs(params=jax.random.key(0)))
    rows, vectors = drawn(CLASSES, CLUSTERS, DIM), drawn(IMAGES, CLASSES, DIM)
    clusters.rows_KGC[...], clusters.valid_KG[...] = rows, jnp.array([[True, True], [True, False], [False, False]])
    expected = [[*rows[0], rows[1, 0], rows[1, 0], own[2], own[2]] for own in vectors]
    np.testing.assert_array_equal(clusters.for_images(jnp.asarray(vectors)), expected)


@pytest.mark.parametrize(("rule", "expected"), [("first", [0, 0, 0, 0, 0, 0]), ("distance", [0, 0, 0, 0, 1, 2])])
def test_the_reference_of_each_frame_of_a_video(rule, expected):
    """At a distance of 3: until then the first frame. A second view begins two frames later, in the same calls."""
    reference = Reference(rule, 3)
    kept = reference.none_yet(jnp.zeros((2, 1, 1)))
    assert kept.shape == (2, 1 if rule == "first" else 3, 1, 1)
    found = []
    for t in range(6):
        vectors = jnp.asarray([t, t - 2], jnp.float32).reshape(2, 1, 1)
        given, kept = reference.next_frame(vectors, kept, jnp.asarray([t == 0, t in (0, 2)]))
        found.append(given.ravel())
    np.testing.assert_array_equal(np.asarray(found)[:, 0], expected)
    np.testing.assert_array_equal(np.asarray(found)[2:, 1], expected[:4])
