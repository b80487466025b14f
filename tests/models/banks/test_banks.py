"""The banks against lists kept in Python: past their length, on one and eight devices, and in parts of a batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from vspw_jax.losses import prototypes
from vspw_jax.models import memory
from vspw_jax.models.banks.class_bank import ClassBank
from vspw_jax.models.banks.image_means import image_means
from vspw_jax.models.banks.region_bank import RegionBank
from vspw_jax.parallel.mesh import DATA_AXES, make_mesh

IMAGES, PIXELS, K, D = 8, 6, 4, 3
OPTIONS = ConfigDict(dict(slots=3, images=20))
"""Twenty images are two and a half batches."""
BATCHES = 5


def batch(seed):
    """Class 3 is seen in batches 0 and 4 alone; batch 2 is void everywhere; image 5 has one class."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(IMAGES, PIXELS, D)) + np.arange(IMAGES)[:, None, None]
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    labels = rng.choice([0, 1, 2, 255] + [3] * (seed % 4 == 0), (IMAGES, PIXELS))
    labels[5] = 1
    return features.astype(np.float32), np.full_like(labels, 255) if seed == 2 else labels.astype(np.int32)


def means(features, labels):
    """[{class: the mean of its pixels}] of images, in float64."""
    return [
        {k: x[y == k].astype(np.float64).mean(axis=0) for k in range(K) if (y == k).any()}
        for x, y in zip(features, labels, strict=True)
    ]


def unit(x):
    return x / np.linalg.norm(x)


@functools.cache
def history(bank, num_devices, parts=1):
    """What `see` gave in the last part of every step, and the bank after it."""
    mesh = make_mesh(IMAGES // parts, devices=jax.devices()[:num_devices])
    graphdef, state = nnx.split(bank(K, D, OPTIONS))

    def run(state, features, labels):
        module, seen = nnx.merge(graphdef, state), []
        for part in zip(features, labels, strict=True):
            known = module.see(*part)
            seen.append(nnx.to_pure_dict(nnx.state(module, memory.Seen)))
        del module.seen
        memory.settle(module, jax.tree.map(lambda *x: jnp.stack(x), *seen))
        return known, nnx.state(module)

    split = P(None, DATA_AXES)
    step = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(P(), split, split), out_specs=P(), check_vma=False))
    steps = []
    for seed in range(BATCHES):
        by_part = [x.reshape(parts, -1, *x.shape[1:]) for x in batch(seed)]
        known, state = step(state, *by_part)
        kept = {name: np.asarray(x) for name, x in nnx.to_pure_dict(state).items()}
        steps.append((jax.tree.map(np.asarray, known), kept))
    return steps


def test_prototypes_are_equation_3_over_the_last_batches():
    kept = []
    for seed, ((found, valid), _) in enumerate(history(ClassBank, 1)):
        kept = [*kept, means(*batch(seed))][-OPTIONS.slots :]
        for k in range(K):
            of_class = [image[k] for images in kept for image in images if k in image]
            assert valid[k] == bool(of_class)
            expected = unit(np.mean(of_class, axis=0)) if of_class else np.zeros(D)
            np.testing.assert_allclose(found[k], expected, rtol=1e-5, atol=1e-6)
    assert [bool(valid[3]) for (_, valid), _ in history(ClassBank, 1)] == [True, True, True, False, True]


def test_regions_are_the_last_images_one_by_one():
    kept = []
    for seed, ((rows, valid), _) in enumerate(history(RegionBank, 1)):
        kept = [*kept, *means(*batch(seed))][-OPTIONS.images :]
        expected = sorted((k, *unit(mean)) for image in kept for k, mean in image.items())
        found = sorted((int(k), *rows[place, k].tolist()) for place, k in zip(*np.nonzero(valid), strict=True))
        assert len(found) == len(expected)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bank", [ClassBank, RegionBank])
@pytest.mark.parametrize(("num_devices", "parts"), [(8, 1), (2, 2)])
def test_devices_and_parts_of_a_batch_change_nothing(bank, num_devices, parts):
    for (known, kept), (other_known, other) in zip(history(bank, 1), history(bank, num_devices, parts), strict=True):
        for name, value in kept.items():
            np.testing.assert_allclose(other[name], value, rtol=1e-6, atol=1e-6)
        if parts == 1:
            np.testing.assert_allclose(other_known[0], known[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(other_known[1], known[1])


def test_void_is_no_class_of_many():
    """Several data sets together have more classes than a byte tells apart; none of them is number 255."""
    features, labels = np.ones((1, 3, D), np.float32), np.array([[255, 2, 299]])
    has = np.asarray(image_means(features, labels, 300).has_NK[0])
    assert np.flatnonzero(has).tolist() == [2, 299]
    rows, valid = np.eye(300, D, dtype=np.float32), np.ones(300, bool)
    _, counts = prototypes.prototype_losses(features[0], labels[0], rows, valid, 0.07)
    assert np.asarray(counts).tolist() == [False, True, True]


def test_no_gradient_reaches_what_fills_a_bank():
    features, labels = batch(0)
    mesh = make_mesh(IMAGES, devices=jax.devices()[:1])
    loss = lambda features: (ClassBank(K, D, OPTIONS).see(features, labels)[0] ** 2 * jnp.arange(D)).sum()
    mapped = jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    assert not np.asarray(mapped(features)).any()
