"""The per-pixel cross-entropy against float64 NumPy, and against PyTorch where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vspw_jax.console.errors import UserError
from vspw_jax.losses import per_pixel

CLASSES = 5


def problem(logits_size=(4, 4), label_size=(4, 4), seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(3, *logits_size, CLASSES)).astype(np.float32)
    return logits, rng.choice([*range(CLASSES), 255], (3, *label_size)).astype(np.int32)


def pixel_losses(logits, label):
    """-log softmax at the label, float64; zero at void pixels."""
    logits = logits.astype(np.float64)
    log_softmax = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    losses = -np.take_along_axis(log_softmax, np.where(label == 255, 0, label)[..., None], axis=-1)[..., 0]
    return np.where(label == 255, 0.0, losses)


@pytest.mark.parametrize("averaged_over", ["labelled", "all"])
def test_mean_over_the_pixels_that_count(averaged_over):
    logits, label = problem()
    count = (label != 255).sum() if averaged_over == "labelled" else label.size
    wanted = pixel_losses(logits, label).sum() / count
    assert float(per_pixel.cross_entropy(logits, label, averaged_over)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("class_weight", [(), (0.5, 2.0, 1.0, 0.0, 3.0)])
def test_class_weights_are_torchs(class_weight):
    torch = pytest.importorskip("torch")
    logits, label = problem()
    cross_entropy = lambda logits: per_pixel.cross_entropy(logits, label, class_weight=class_weight)
    value, gradient = jax.value_and_grad(cross_entropy)(jnp.asarray(logits))
    theirs = torch.from_numpy(logits.transpose(0, 3, 1, 2).copy()).double().requires_grad_()
    weight = torch.tensor(class_weight or (1.0,) * CLASSES).double()
    loss = torch.nn.functional.cross_entropy(theirs, torch.from_numpy(label).long(), weight, ignore_index=255)
    loss.backward()
    assert float(value) == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-7)


def test_class_weights_leave_the_divisor_over_all_pixels():
    logits, label = problem()
    weights = np.array([0.5, 2.0, 1.0, 0.0, 3.0, *[0.0] * 251])
    wanted = (weights[label] * pixel_losses(logits, label)).sum() / label.size
    found = per_pixel.cross_entropy(logits, label, "all", tuple(weights[:CLASSES]))
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_a_weight_missing_is_refused():
    with pytest.raises(UserError, match="class_weight has 2 weights: expected one for each of the 5 classes"):
        per_pixel.cross_entropy(*problem(), class_weight=(1.0, 2.0))


def test_nothing_under_void_moves_the_loss():
    logits, label = problem()
    replaced = np.where((label == 255)[..., None], 1e6 * logits[..., ::-1], logits)
    value, gradient = jax.value_and_grad(per_pixel.cross_entropy)(jnp.asarray(logits), label)
    assert float(value) == float(per_pixel.cross_entropy(replaced, label))
    assert (np.asarray(gradient)[label == 255] == 0).all()


def test_devices_parts_add_up_to_the_batchs_mean():
    """Images with few labels do not weigh more than others: the mean is over all labelled pixels of the batch."""
    logits, label = problem()
    label[0, 1:] = 255
    together = per_pixel.cross_entropy(logits, label)
    parts = jax.vmap(
        lambda logits, label: per_pixel.cross_entropy(
            logits[None], label[None], total=lambda x: jax.lax.psum(x, "device")
        ),
        axis_name="device",
    )(logits, label)
    assert float(parts.sum()) == pytest.approx(float(together), rel=1e-5)


def test_nothing_labelled_costs_nothing():
    logits, label = problem()
    value, gradient = jax.value_and_grad(per_pixel.cross_entropy)(jnp.asarray(logits), np.full_like(label, 255))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_huge_logits_stay_finite():
    logits, label = problem()
    value, gradient = jax.value_and_grad(per_pixel.cross_entropy)(1e4 * jnp.asarray(logits), label)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_an_unknown_mean_is_refused():
    with pytest.raises(UserError, match="averaged_over is 'some': expected one of all, labelled"):
        per_pixel.cross_entropy(*problem(), "some")


WHOLE_FACTORS = [((16, 20), 2), ((8, 15), 4), ((64, 10), 1), ((12, 5), 2)]
"""Sizes of labels for logits of 4 x 5, and the rows of the strips of a CPU."""
BROKEN_FACTORS = [(16, 16), (13, 9), (3, 5), (4, 10)]
"""For which images are taken whole, as one axis is not enlarged by a whole number."""


@pytest.fixture
def strips_of_small_images(monkeypatch):
    """As if an image with a few logits were a large one."""
    monkeypatch.setattr(per_pixel, "WHOLE_BELOW", 0)


def test_strips_are_of_whole_factors(monkeypatch, strips_of_small_images):
    rows_of = lambda size: per_pixel.rows_of_strip((4, 5, CLASSES), size)
    assert [rows_of(size) for size, _ in WHOLE_FACTORS] == [rows for _, rows in WHOLE_FACTORS]
    assert not any(map(rows_of, BROKEN_FACTORS))
    assert per_pixel.rows_of_strip((9, 9, CLASSES), (18, 18)) == 3  # Rows that divide the height.
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert rows_of((16, 20)) == 0


def test_strips_are_of_large_images():
    assert [per_pixel.rows_of_strip((12, 12, classes), (96, 96)) for classes in (19, 124)] == [0, 1]


@pytest.mark.parametrize("label_size", [size for size, _ in WHOLE_FACTORS] + BROKEN_FACTORS)
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_logits_are_resized_as_torch_does(monkeypatch, strips_of_small_images, label_size, platform):
    """Loss and gradient, enlarging by whole and broken factors, and shrinking."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    logits, label = problem(logits_size=(4, 5), label_size=label_size)
    value, gradient = jax.value_and_grad(per_pixel.cross_entropy)(jnp.asarray(logits), label)
    theirs = torch.from_numpy(logits.transpose(0, 3, 1, 2).copy()).double().requires_grad_()
    resized = torch.nn.functional.interpolate(theirs, size=label_size, mode="bilinear", align_corners=False)
    loss = torch.nn.functional.cross_entropy(resized, torch.from_numpy(label).long(), ignore_index=255)
    loss.backward()
    assert float(value) == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-7)


def test_void_has_no_weight_among_more_classes_than_bytes():
    label = jnp.array([[[0, 255, 256, 299]]])
    weights = per_pixel.pixel_weights(label, tuple(range(1, 301)))
    assert weights.tolist() == [[[1.0, 0.0, 257.0, 300.0]]]
