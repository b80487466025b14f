"""A training step of BEiT with UperNet and a contrastive loss: the same on one device and on eight, and it learns."""

import jax
import numpy as np
import pytest

from configs import pne
from vspw_jax.data import pipeline
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import optimizers, train_state, train_step


@pytest.fixture
def config(generated_records):
    """The recipe, tiny, with stochastic depth and drop-out; eight devices can share its batch."""
    config = pne.get_config("demo")
    config.model.image_size = (32, 32)
    config.model.encoder.update(dim=16, heads=2, drop_path=0.3)
    config.model.decoder.update(dim=16, auxiliary_dim=8, dropout=0.3)
    config.model.projection.update(hidden=16, dim=8)
    config.loss.pne.update(form="equation_1", anchors=20, samples=10)  # The others need pixels that are right.
    config.optimizer.learning_rate, config.schedule.warmup_steps = 1e-2, 1
    config.train.update(batch=8, steps=40)
    config.data.frames = 2
    config.data.records = str(generated_records)
    config.data.augment.base_size = (64, 48)
    return config


@pytest.fixture(scope="module")
def prepare():
    """prepare(config, devices): (state, step, to_device), compiled once a pair."""
    made = {}

    def prepare(config, num_devices):
        key = (num_devices, config.to_json())
        if key not in made:
            mesh = make_mesh(config.train.batch, devices=jax.devices()[:num_devices])
            graphdef, params, _ = train_state.describe(config)
            transformation = optimizers.build(config, params)
            step = train_step.make_train_step(config, graphdef, transformation, mesh)
            made[key] = (mesh, transformation, step)
        mesh, transformation, step = made[key]
        return train_state.new_state(config, transformation, mesh), step, lambda x: placement.to_global(mesh, x)

    return prepare


def batches_of(config):
    return pipeline.training_batches(config.data, config.train.batch, config.model.image_size, config.seed)


def test_eight_devices_give_the_losses_of_one(prepare, config):
    """Drop path, drop-out, batch statistics and the mean over labelled pixels do not depend on the devices."""
    results = []
    for num_devices in (1, 8):
        state, step, to_device = prepare(config, num_devices)
        stream, metrics = batches_of(config), []
        for _ in range(2):
            state, values = step(state, to_device(next(stream)), train_step.seed_of(config))
            metrics.append({name: float(value) for name, value in values.items()})
        results.append((metrics, jax.tree.map(np.asarray, jax.tree.leaves(state["model_state"]))))
    (one, statistics), (eight, statistics_of_eight) = results
    assert one[0].keys() == {"loss", "pixel", "auxiliary", "pne", "gradient_norm", "learning_rate", "bad_steps"}
    assert one[0]["loss"] == pytest.approx(one[0]["pixel"] + one[0]["auxiliary"] + one[0]["pne"], rel=1e-5)
    assert one[0]["pne"] > 0
    for left, right in zip(one, eight, strict=True):
        for term in ("pixel", "auxiliary"):
            assert left[term] == pytest.approx(right[term], rel=2e-4)
        # Where rounding decides a pixel's prediction it is an anchor on one side alone.
        for term in ("pne", "loss", "gradient_norm"):
            assert left[term] == pytest.approx(right[term], rel=2e-2)
    for left, right in zip(statistics, statistics_of_eight, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)


def test_the_loss_of_one_batch_falls_and_every_parameter_moves(prepare, config):
    state, step, to_device = prepare(config, 8)
    before = jax.tree.map(np.asarray, state["params"])
    batch, losses = next(batches_of(config)), []
    for _ in range(config.train.steps):
        state, metrics = step(state, to_device(batch), train_step.seed_of(config))
        losses.append(float(metrics["pixel"] + metrics["auxiliary"]))
    # From about log 124 a head.
    assert losses[0] == pytest.approx(1.4 * np.log(124), rel=0.1)
    assert np.mean(losses[-5:]) < 0.6 * losses[0]
    still = []
    placement.map_with_path(
        lambda path, pair: still.append(path) if np.array_equal(*pair) else None,
        jax.tree.map(lambda *pair: np.stack(pair), before, state["params"]),
    )
    assert still == []
