"""The feature memory against float64 loops over pixels, on one device and on several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from vspw_jax.models import memory
from vspw_jax.models.temporal import feature_memory
from vspw_jax.models.temporal.feature_memory import FeatureMemory
from vspw_jax.parallel.mesh import DATA_AXES, make_mesh

K, C, PIXELS = 5, 6, 40
VOID = 255


def by_loops(features_PC, labels_P, memory_KC):
    """Equations 2 to 4, pixel by pixel."""
    result = memory_KC.astype(np.float64).copy()
    for k in range(len(memory_KC)):
        mine = [f.astype(np.float64) for f, label in zip(features_PC, labels_P, strict=True) if label == k]
        m = memory_KC[k].astype(np.float64)
        cosines = [f @ m / (np.linalg.norm(f) * np.linalg.norm(m)) for f in mine]
        weights = [0.0 if abs(1 - cosine) < 1e-14 else 1 - cosine for cosine in cosines]
        if sum(weights) > 0:
            result[k] = sum(w / sum(weights) * f for w, f in zip(weights, mine, strict=True))
    return result


def drawn(seed=0, labels=(0, 1, 2, 4, VOID)):
    """Class 3 has no pixel."""
    rng = np.random.default_rng(seed)
    features, memory = (rng.normal(size=(count, C)).astype(np.float32) for count in (PIXELS, K))
    return features, rng.choice(labels, PIXELS).astype(np.int32), memory


representations = jax.jit(feature_memory.class_representations)


def check(features, labels, memory):
    found = np.asarray(representations(features, labels, memory))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_loops(features, labels, memory), rtol=1e-5, atol=1e-6)
    return found


def test_absent_classes_keep_the_memorys_rows_and_void_counts_for_none():
    features, labels, memory = drawn()
    found = check(features, labels, memory)
    np.testing.assert_array_equal(found[3], memory[3])
    other = features + (labels == VOID)[:, None] * np.float32(7)
    np.testing.assert_array_equal(representations(other, labels, memory), found)


@pytest.mark.parametrize("label", [0, 3, VOID])
def test_a_batch_of_one_class_or_of_none(label):
    features, _, memory = drawn(1)
    check(features, np.full(PIXELS, label, np.int32), memory)


def test_a_class_of_one_pixel_is_that_pixel():
    features, labels, memory = drawn(2, labels=(0, 1, VOID))
    labels[labels == 1] = VOID
    labels[7] = 1
    np.testing.assert_allclose(check(features, labels, memory)[1], features[7], rtol=1e-5)


def test_pixels_that_are_like_the_memory_weigh_nothing():
    """Beside another one; all of a class, of any length: then the row is the memory's; near ones keep their digits."""
    features, labels, memory = drawn(3)
    labels[:6] = [1, 1, 2, 2, 4, 4]
    labels[6:] = np.where(np.isin(labels[6:], (1, 2, 4)), 0, labels[6:])
    features[0] = memory[1]
    features[2], features[3] = 2 * memory[2], 0.3 * memory[2]
    features[4], features[5] = memory[4], memory[4] * (1 + np.float32(1e-3) * np.eye(C, dtype=np.float32)[0])
    found = np.asarray(representations(features, labels, memory))
    np.testing.assert_allclose(found[1], features[1], rtol=1e-5)
    np.testing.assert_array_equal(found[2], memory[2])
    np.testing.assert_allclose(found[4], features[5], rtol=1e-5)


def test_vectors_of_zeros_have_no_direction_and_count_as_unlike():
    features, labels, memory = drawn(4)
    features[labels == 2], memory[0] = 0, 0
    found = np.asarray(representations(features, labels, memory))
    np.testing.assert_array_equal(found[2], 0)
    np.testing.assert_allclose(found[0], features[labels == 0].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_equation_1():
    _, _, memory = drawn()
    new = drawn(5)[2]
    np.testing.assert_allclose(feature_memory.update(memory, new, 0.3), 0.7 * memory + 0.3 * new, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(feature_memory.update(memory, memory, 0.3), memory)


def batch(seed):
    """Eight images with representations of 2x3 cells and labels of 4x6 pixels; class 3 is seen from seed 1 on."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(8, 2, 3, C)) + np.arange(8).reshape(8, 1, 1, 1)
    label = rng.choice([0, 1, 2, VOID] + [3] * (seed > 0), (8, 4, 6))
    return features.astype(np.float32), label.astype(np.int32)


def learned(num_devices, first_sight, parts=1):
    """Rows and valid after one and after two batches of eight images, each in parts that follow each other."""
    mesh = make_mesh(devices=jax.devices()[:num_devices])
    graphdef, state = nnx.split(FeatureMemory(K, C))

    def run(state, *batch):
        seen = []
        for part in zip(*(jnp.split(x, parts) for x in batch), strict=True):
            module = nnx.merge(graphdef, state)
            module.learn(*part[:2], 0.25, first_sight, part[2])
            seen.append(nnx.to_pure_dict(nnx.state(module, memory.Seen)))
        module = nnx.merge(graphdef, state)
        memory.settle(module, jax.tree.map(lambda *x: jnp.stack(x), *seen))
        return nnx.state(module)

    in_specs = (P(), *(P(DATA_AXES),) * 3)
    step = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=in_specs, out_specs=P(), check_vma=False))
    states = []
    for seed in range(2):
        state = step(state, *batch(seed), jax.random.split(jax.random.key(seed), 8))
        states.append({name: np.asarray(x) for name, x in nnx.to_pure_dict(state).items()})
    return states


@pytest.fixture(scope="module")
def by_mean():
    return {count: learned(count, "mean") for count in (1, 2, 8)}


def pixels(seed):
    """Representations at the labels' size, and labels, of all images."""
    features, label = batch(seed)
    full = jax.image.resize(features, (8, 4, 6, C), "bilinear", antialias=False)
    return np.asarray(full).reshape(-1, C), label.reshape(-1)


def test_first_sight_sets_a_row_and_later_sights_move_it(by_mean):
    first, second = by_mean[1]
    features, labels = pixels(0)
    np.testing.assert_array_equal(first["valid_K"], [True, True, True, False, False])
    for k in range(3):
        np.testing.assert_allclose(first["rows_KC"][k], features[labels == k].mean(axis=0), rtol=1e-5)
    features, labels = pixels(1)
    np.testing.assert_array_equal(second["valid_K"], [True, True, True, True, False])
    before = first["rows_KC"][:3]
    expected = 0.75 * before + 0.25 * by_loops(features, labels, before)
    np.testing.assert_allclose(second["rows_KC"][:3], expected, rtol=1e-4)
    np.testing.assert_allclose(second["rows_KC"][3], features[labels == 3].mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(second["rows_KC"][4], 0)


@pytest.mark.parametrize("num_devices", [2, 8])
def test_it_does_not_depend_on_how_images_lie_on_devices(by_mean, num_devices):
    for one, several in zip(by_mean[1], by_mean[num_devices], strict=True):
        np.testing.assert_allclose(several["rows_KC"], one["rows_KC"], rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(several["valid_K"], one["valid_K"])


@pytest.mark.parametrize("first_sight", ["mean", "pixel"])
def test_it_does_not_depend_on_the_parts_of_a_batch(first_sight):
    for whole, parted in zip(learned(1, first_sight), learned(2, first_sight, parts=2), strict=True):
        np.testing.assert_allclose(parted["rows_KC"], whole["rows_KC"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(parted["valid_K"], whole["valid_K"])


def test_one_drawn_pixel_of_each_class_is_the_same_on_any_devices():
    one, eight = learned(1, "pixel")[0], learned(8, "pixel")[0]
    np.testing.assert_allclose(one["rows_KC"], eight["rows_KC"], rtol=1e-6)
    features, labels = pixels(0)
    for k in range(3):
        distance = np.abs(features[labels == k] - one["rows_KC"][k]).max(axis=1)
        assert distance.min() < 1e-5
    other = pixels(1)[0]
    assert not np.allclose(one["rows_KC"][0], other.mean(axis=0))


def test_classes_never_seen_are_not_read_as_zeros():
    memory = FeatureMemory(K, C)
    features = np.random.default_rng(0).normal(size=(1, 2, 2, C)).astype(np.float32)
    weights = np.random.default_rng(1).dirichlet(np.ones(K), (1, 2, 2)).astype(np.float32)
    np.testing.assert_allclose(memory.recall(weights, jnp.asarray(features)), features, rtol=1e-6)
    rows = np.random.default_rng(2).normal(size=(K, C)).astype(np.float32)
    valid = np.array([True, False, True, True, False])
    memory.rows_KC[...], memory.valid_K[...] = jnp.asarray(rows), jnp.asarray(valid)
    unseen = weights[..., ~valid].sum(axis=-1, keepdims=True)
    expected = weights[..., valid] @ rows[valid] + unseen * features
    np.testing.assert_allclose(memory.recall(weights, jnp.asarray(features)), expected, rtol=1e-5, atol=1e-6)
