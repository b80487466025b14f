"""Adaptive pooling and drop-out of UperNet; the published parameter totals of the networks that use it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import baseline, upernet
from vspw_jax.models import layers, segmenter
from vspw_jax.models.decoders.upernet import adaptive_average_pool
from vspw_jax.training import train_state


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (4, 20), (2, 3), (1, 1)])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_bins_are_averages_that_may_overlap_or_repeat(size, bins):
    """PyTorch's definition: bin i of n covers floor(i s / n) to ceil((i + 1) s / n); s may be smaller than n."""
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    pooled = adaptive_average_pool(jnp.asarray(x), bins)
    assert pooled.shape == (2, bins, bins, 3)
    for row, column in np.ndindex(bins, bins):
        rows, columns = (
            slice(int(np.floor(i * s / bins)), int(np.ceil((i + 1) * s / bins)))
            for i, s in zip((row, column), size, strict=True)
        )
        np.testing.assert_allclose(pooled[:, row, column], x[:, rows, columns].mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)


def test_pooling_is_torchs():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, 11, 7, 3)).astype(np.float32)
    for bins in (1, 2, 3, 6):
        theirs = torch.nn.AdaptiveAvgPool2d(bins)(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
        ours = adaptive_average_pool(jnp.asarray(x), bins)
        np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


def test_dropped_channels_are_whole_maps_and_the_rest_is_scaled():
    x = jnp.ones((16, 3, 2, 64))
    keys = jax.random.split(jax.random.key(0), 16)
    dropped = np.asarray(layers.drop_channels(x, 0.25, keys))
    np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1, :1], dropped.shape))
    np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3], rtol=1e-6)
    assert 0.2 < (dropped == 0).mean() < 0.3
    assert len(np.unique(dropped[:, 0, 0], axis=0)) == 16
    np.testing.assert_array_equal(layers.drop_channels(x[5:6], 0.25, keys[5:6])[0], dropped[5])
    np.testing.assert_array_equal(layers.drop_channels(x, 0.25, None), x)


def test_scores_are_the_softmax_of_every_pixel():
    logits = jax.random.normal(jax.random.key(0), (1, 2, 3, 4, 5))
    scores = segmenter.class_scores({"logits_BTHWC": logits})
    np.testing.assert_allclose(scores, np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True), rtol=1e-5)


def large():
    config = upernet.get_config()
    config.model.update(image_size=(640, 640), num_classes=150)
    return config


def base():
    config = large()
    config.model.image_size = (512, 512)
    config.model.encoder.update(dim=768, depth=12, heads=12, out_blocks=(4, 6, 8, 12))
    config.model.decoder.dim = 768
    return config


def behind_the_adapter():
    config = large()
    config.model.encoder = baseline.get_config().model.encoder
    return config


@pytest.mark.parametrize("make", [large, behind_the_adapter])
def test_outputs_behind_either_encoder(make):
    """By shapes alone: logits at 1/4 and at the auxiliary head's 1/16, four maps, scores of every class."""
    model = make().model
    image = jax.ShapeDtypeStruct((1, 2, 640, 640, 3), jnp.float32)

    def run(image_BTHWC):
        outputs = segmenter.build(model, jax.random.key(0))(image_BTHWC)
        return outputs, segmenter.class_scores(outputs)

    outputs, scores = jax.eval_shape(run, image)
    assert outputs["logits_BTHWC"].shape == scores.shape == (1, 2, 160, 160, 150)
    assert outputs["auxiliary_logits_BTHWC"].shape == (1, 2, 40, 40, 150)
    assert [x.shape[2:] for x in outputs["encoder"]] == [(640 // side, 640 // side, 1024) for side in (4, 8, 16, 32)]


@pytest.mark.parametrize(("make", "millions"), [(large, 441.3), (base, 163.08), (behind_the_adapter, 451.9)])
def test_published_parameter_totals(make, millions):
    _, params, _ = train_state.describe(make())
    total = sum(np.prod(leaf.shape, dtype=np.int64) for leaf in jax.tree.leaves(params))
    assert total / 1e6 == pytest.approx(millions, abs=0.05 if millions > 200 else 0.005)
