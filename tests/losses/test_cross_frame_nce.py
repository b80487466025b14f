"""The contrastive loss against equations 1 and 2 of paper 000, written out as loops in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from configs import nce
from vspw_jax.console.errors import UserError
from vspw_jax.losses import cross_frame_nce
from vspw_jax.parallel.mesh import make_mesh

PATCHES, DIM, TEMPERATURE = 14, 5, 0.1
FORMS = {"plain": None, "strips": 4}
"""Strips of 4 do not divide the 14 patches."""


@functools.cache
def value_and_grad(form, self_positive=False, temperature=TEMPERATURE):
    def loss(features, labels, negatives):
        return cross_frame_nce.group_loss(features, labels, temperature, FORMS[form], self_positive, negatives)

    return jax.jit(jax.value_and_grad(loss))


def reference(features, labels, eligible=None, self_positive=False, temperature=TEMPERATURE):
    """Equation 1 for every anchor with a positive, their mean negated as in equation 2."""
    features = np.asarray(features, np.float64)
    eligible = np.ones(len(labels), bool) if eligible is None else eligible
    losses = []
    for i, anchor in enumerate(features):
        positives = [j for j in range(len(labels)) if (j != i or self_positive) and labels[j] == labels[i] != 255]
        negatives = [j for j in range(len(labels)) if 255 != labels[j] != labels[i] and eligible[j]]
        if not positives:
            continue
        total = sum(np.exp(anchor @ features[j] / temperature) for j in negatives)
        terms = [np.exp(anchor @ features[p] / temperature) for p in positives]
        losses.append(-np.mean([np.log(term / (term + total)) for term in terms]))
    return np.mean(losses) if losses else 0.0


def unit_features(seed, patches=PATCHES, dim=DIM):
    features = np.random.default_rng(seed).normal(size=(patches, dim))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
@given(
    labels=st.lists(st.sampled_from([0, 1, 2, 123, 255]), min_size=PATCHES, max_size=PATCHES),
    eligible=st.lists(st.booleans(), min_size=PATCHES, max_size=PATCHES),
    self_positive=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_value_equals_the_equations(form, labels, eligible, self_positive, seed):
    features, labels, eligible = unit_features(seed), np.array(labels), np.array(eligible)
    value, gradient = value_and_grad(form, self_positive)(features, labels, eligible)
    assert float(value) == pytest.approx(reference(features, labels, eligible, self_positive), rel=1e-5, abs=1e-6)
    plain, plain_gradient = value_and_grad("plain", self_positive)(features, labels, eligible)
    assert float(value) == pytest.approx(float(plain), rel=1e-5, abs=1e-7)
    np.testing.assert_allclose(gradient, plain_gradient, atol=1e-5 * max(1e-3, np.abs(plain_gradient).max()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("self_positive", [False, True])
def test_gradient_equals_finite_differences(form, self_positive):
    features, labels = unit_features(0), np.arange(PATCHES) % 3
    eligible = np.arange(PATCHES) % 4 != 1
    _, gradient = value_and_grad(form, self_positive)(features, labels, eligible)
    for index in np.ndindex(PATCHES, DIM):
        step = np.zeros((PATCHES, DIM))
        step[index] = 1e-6
        above, below = (reference(features + x, labels, eligible, self_positive) for x in (step, -step))
        # `reference` casts to float64 itself, so that the step survives.
        assert float(gradient[index]) == pytest.approx((above - below) / 2e-6, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "labels",
    [np.full(PATCHES, 255), np.arange(PATCHES), np.full(PATCHES, 7)],
    ids=["all void", "no positive", "one class"],
)
def test_nothing_to_contrast_is_zero_with_zero_gradient(form, labels):
    value, gradient = value_and_grad(form)(unit_features(1), labels, np.ones(PATCHES, bool))
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("form", FORMS)
def test_void_patches_change_nothing(form):
    features, labels = unit_features(2), np.arange(PATCHES) % 3
    labels[:4] = 255
    other = features.copy()
    other[:4] = unit_features(3)[:4]
    value, gradient = value_and_grad(form)(features, labels, np.ones(PATCHES, bool))
    changed, _ = value_and_grad(form)(other, labels, np.ones(PATCHES, bool))
    assert float(value) == float(changed)
    np.testing.assert_array_equal(gradient[:4], 0)


@pytest.mark.parametrize("form", FORMS)
def test_a_temperature_that_takes_exponentials_out_of_float32s_range(form):
    """Similarities of up to 1000 on both sides."""
    features, labels = unit_features(5), np.arange(PATCHES) % 2
    value, gradient = value_and_grad(form, temperature=1e-3)(features, labels, np.ones(PATCHES, bool))
    wide = np.asarray(features, np.longdouble)
    losses = []
    for i in range(PATCHES):
        s = wide @ wide[i] / np.longdouble(np.float32(1e-3))
        total = np.log(np.exp(s[labels != labels[i]]).sum())
        positives = s[(labels == labels[i]) & (np.arange(PATCHES) != i)]
        losses.append(np.mean(np.logaddexp(0, total - positives)))
    assert float(value) == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("patches", [50_176, 100_352])
def test_an_anchors_weight_does_not_overflow(patches):
    """Of four frames of crop 896 at 1/8, all of one class, positives times anchors are more than 32 bits hold."""
    weight_M = np.asarray(cross_frame_nce.anchor_weights(jnp.zeros(patches, jnp.int32)), np.float64)
    assert (weight_M > 0).all() and weight_M.sum() * (patches - 1) == pytest.approx(1.0, rel=1e-5)


def test_the_strips_arrays_grow_with_the_patches_not_their_square():
    """No array of the compiled gradient, or of all of them together, comes near patches x patches."""
    patches = 4096

    def temporary(block):
        loss = functools.partial(cross_frame_nce.group_loss, block=block)
        shapes = jax.ShapeDtypeStruct((patches, 8), jnp.float32), jax.ShapeDtypeStruct((patches,), jnp.int32)
        return jax.jit(jax.grad(loss)).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    assert temporary(32) < patches * patches
    assert temporary(None) > 4 * patches * patches


@pytest.mark.parametrize(
    ("block", "patches", "rows"),
    [(None, 9000, None), ("plain", 9000, None), ("auto", 450, None), ("auto", 9000, 192), ("64", 9000, 64), (64, 9, 9)],
)
def test_the_form_is_chosen_by_size_or_by_name(block, patches, rows):
    assert cross_frame_nce.strip_rows(block, patches) == rows


@pytest.mark.parametrize("block", ["many", "-3", 0, 1.5])
def test_an_unknown_form_is_refused(block):
    with pytest.raises(UserError, match="loss.nce.block is .*expected auto, plain"):
        cross_frame_nce.strip_rows(block, 100)


def test_drawn_negatives_are_as_many_as_asked_for_and_never_void():
    labels = jnp.arange(40) % 5
    labels = jnp.where(labels == 2, 255, labels)
    draw = jax.vmap(lambda key: cross_frame_nce.drawn_negatives(key, labels, 10))
    draws = np.asarray(draw(jax.random.split(jax.random.key(0), 60)))
    assert all(draw.sum() == 10 and not (draw & (labels == 255)).any() for draw in draws)
    all_known = np.asarray(cross_frame_nce.drawn_negatives(jax.random.key(0), labels, 39))
    np.testing.assert_array_equal(all_known, labels != 255)
    frequency = np.mean(draws, axis=0)[np.asarray(labels) != 255]
    assert frequency.min() > 0.1 and frequency.max() < 0.6  # All of about 10 in 32.


BATCH, FRAMES, SIDE = 8, 2, 2
SHARING = {
    "a clip on each device": dict(scope="clip", block="3"),
    "a group on each four devices": dict(scope="group", groups=2, block="3"),
    "all": dict(scope="all", negatives=5, labels="majority", min_share=0.3, self_positive=True),
}


def clip_batch():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(BATCH, FRAMES, SIDE, SIDE, DIM)).astype(np.float32)
    return features, rng.choice([0, 1, 2, 255], (BATCH, FRAMES, 4 * SIDE, 4 * SIDE)).astype(np.int32)


def shared(config, num_devices):
    """(value, gradient by features) of a batch that so many devices share."""
    mesh = make_mesh(devices=jax.devices()[:num_devices])
    clips, whole = P(mesh.axis_names[0]), P()

    def gradients(features, label, keys):
        name = mesh.axis_names[0]
        loss = functools.partial(
            cross_frame_nce.batch_loss,
            label_BTHW=label,
            key_B=keys,
            config=config,
            device=jax.lax.axis_index(name),
            devices=num_devices,
            gather=lambda x: jax.lax.all_gather(x, name, tiled=True),
        )
        value, gradient = jax.value_and_grad(loss)(features)
        return jax.lax.psum(value, name), gradient

    mapped = jax.shard_map(gradients, mesh=mesh, in_specs=clips, out_specs=(whole, clips), check_vma=False)
    value, gradient = jax.jit(mapped)(*clip_batch(), jax.random.split(jax.random.key(0), BATCH))
    return float(value), np.asarray(gradient)


@pytest.mark.parametrize("options", SHARING.values(), ids=SHARING.keys())
def test_one_device_equals_eight_and_the_equations(options):
    config = ConfigDict(nce.get_config("demo").loss.nce.to_dict() | options)
    value, gradient = shared(config, 1)
    on_eight, gradient_on_eight = shared(config, 8)
    assert value == pytest.approx(on_eight, rel=1e-6)
    np.testing.assert_allclose(gradient, gradient_on_eight, atol=1e-6 * np.abs(gradient).max())
    if options["scope"] != "all":
        features, label = clip_batch()
        features = features / np.linalg.norm(features, axis=-1, keepdims=True)
        groups = {"clip": BATCH, "group": config.groups}[config.scope]
        runs = zip(features.reshape(groups, -1, DIM), label[:, :, ::4, ::4].reshape(groups, -1), strict=True)
        assert value == pytest.approx(np.mean([reference(*run) for run in runs]), rel=1e-5)


def test_clips_without_labels_take_no_part():
    """A batch of eight clips of which six are void is the batch of the other two, over four groups in place of one."""
    features, label = clip_batch()
    keys = jax.random.split(jax.random.key(0), BATCH)
    config = ConfigDict(nce.get_config("demo").loss.nce.to_dict() | dict(groups=4))
    label[2:] = 255
    whole = cross_frame_nce.batch_loss(features, label, keys, config)
    config.groups = 1
    assert float(whole) == pytest.approx(
        float(cross_frame_nce.batch_loss(features[:2], label[:2], keys[:2], config)) / 4
    )


def test_a_zero_feature_has_a_finite_gradient():
    features = jnp.zeros((1, 2, 2, 2, DIM))
    label = jnp.arange(8).reshape(1, 2, 2, 2) % 2
    config = ConfigDict(nce.get_config("demo").loss.nce.to_dict() | dict(scope="clip"))
    keys = jax.random.split(jax.random.key(0), 1)
    gradient = jax.jit(jax.grad(lambda f: cross_frame_nce.batch_loss(f, label, keys, config)))(features)
    assert np.isfinite(gradient).all()
