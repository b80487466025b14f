"""How the terms of the loss are chosen, weighted and warmed up, on a made-up network's outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from configs import nce, pne
from vspw_jax import sharding, train_step
from vspw_jax.losses import cross_frame_nce, segmentation

CLASSES, QUERIES = 3, 4


@pytest.fixture(scope="module")
def outputs():
    rng = np.random.default_rng(0)
    shapes = {
        "layer_class_logits_LBTQC": (2, 1, 2, QUERIES, CLASSES + 1),
        "layer_mask_logits_LBTQHW": (2, 1, 2, QUERIES, 8, 8),
    }
    outputs = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    outputs["encoder"] = [jnp.asarray(rng.normal(size=(1, 2, n, n, 5)), jnp.float32) for n in (8, 4, 2, 1)]
    return outputs


@pytest.fixture
def config():
    config = nce.get_config("demo").loss
    config.segmentation.update(num_points=16, capacity=4)
    config.nce.scope = "clip"
    return config


def batch():
    return {"label_BTHW": jnp.asarray(np.random.default_rng(1).choice([0, 1, 2, 255], (1, 2, 8, 8)), jnp.int32)}


def losses(outputs, config, step=0, decoder="mask2former"):
    keys = jax.random.split(jax.random.key(0), 1)
    run = lambda outputs, batch: train_step.clip_losses(outputs, batch, keys, step, decoder, config)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    mapped = jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    return {name: float(value) for name, value in jax.jit(mapped)(outputs, batch()).items()}


def test_equation_4_to_the_letter(outputs, config):
    """Cross-entropy 1, dice 5, nothing else, in the loss and in the matching."""
    config.segmentation.weights.mask = config.segmentation.matching.mask = 0.0
    config.nce.weight = 0.0
    logits = [outputs[f"layer_{name}"][:, 0] for name in ("class_logits_LBTQC", "mask_logits_LBTQHW")]
    keys = jax.random.split(jax.random.split(jax.random.key(0), 1)[0], 2)
    labels = batch()["label_BTHW"][0]
    terms = jax.jit(lambda: segmentation.mask_classification_loss(*logits, labels, keys, config.segmentation))()
    found = losses(outputs, config)
    assert found.keys() == {"cls", "mask", "dice"} and found["mask"] == 0
    assert found["cls"] == pytest.approx(float(terms["cls"]), rel=1e-6)
    assert found["dice"] == pytest.approx(5 * float(terms["dice"]), rel=1e-6)


def test_contrast_reads_the_level_asked_for_or_the_projection(outputs, config):
    config.nce.update(level=1, start_step=0)
    keys = jax.random.split(jax.random.key(0), 1)
    labels = batch()["label_BTHW"]
    of = lambda features: 0.1 * float(cross_frame_nce.batch_loss(features, labels, keys, config.nce))
    assert losses(outputs, config)["nce"] == pytest.approx(of(outputs["encoder"][1]), rel=1e-5)
    projected = outputs | {"projection_BTHWC": outputs["encoder"][0][..., :3]}
    assert losses(projected, config)["nce"] == pytest.approx(of(projected["projection_BTHWC"]), rel=1e-5)


@pytest.mark.parametrize(
    ("start", "warmup", "shares"),
    [(0, 0, {0: 1, 9: 1}), (5, 0, {4: 0, 5: 1}), (0, 4, {0: 0.25, 3: 1, 90: 1}), (5, 4, {4: 0, 5: 0.25, 8: 1})],
)
def test_warm_up_of_a_weight(start, warmup, shares):
    config = nce.get_config().loss.nce
    config.update(start_step=start, warmup_steps=warmup)
    ramp = jax.jit(lambda step: train_step.ramp(config, step))
    assert {step: float(ramp(step)) for step in shares} == shares


def test_a_contrastive_term_that_is_not_asked_for_costs_nothing():
    """Its code is not even traced: these outputs would not do for it."""
    config = pne.get_config("demo").loss
    config.pne.weight = 0.0
    logits = jnp.zeros((1, 2, 8, 8, CLASSES))
    found = losses({"logits_BTHWC": logits, "auxiliary_logits_BTHWC": logits}, config, decoder="upernet")
    assert found == pytest.approx({"pixel": np.log(CLASSES), "auxiliary": 0.4 * np.log(CLASSES)}, rel=1e-6)
