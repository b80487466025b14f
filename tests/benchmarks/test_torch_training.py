"""UperNet's recipe beside PyTorch's: the same losses step by step, and the same weights afterwards."""

import numpy as np
import pytest
from flax import nnx

from tests.torch_libraries import library
from vspw_jax.console.errors import UserError
from vspw_jax.interop import convert
from vspw_jax.training import optimizers

library("transformers")
from benchmarks import torch_training  # noqa: E402 - imports PyTorch.

STEPS = 4


def small_recipe():
    config = torch_training.recipe(seed=3).unlock()
    config.model.update(image_size=(32, 32), num_classes=7)
    config.model.encoder.update(dim=32)
    config.model.decoder.update(dim=32, auxiliary_dim=16)
    # Weight decay that shows, a gradient that is clipped, a warm-up that ends.
    config.optimizer.update(weight_decay=5.0, clip_norm=0.5)
    config.schedule.warmup_steps = 2
    config.train.update(batch=8, steps=6)
    return config.lock()


def batch(seed):
    rng = np.random.default_rng(seed)
    return {
        "image_BTHWC": rng.normal(size=(8, 1, 32, 32, 3)).astype(np.float32),
        "label_BTHW": rng.choice([*range(7), 255], (8, 1, 32, 32)).astype(np.int32),
        "is_clip_B": np.ones(8, bool),
    }


def test_losses_and_weights_stay_those_of_pytorch(tmp_path):
    config = small_recipe()
    ours = torch_training.Jax(config)
    first = torch_training.copied(ours.weights())
    theirs = torch_training.Torch(config, first)
    losses = [(ours.step(batch(step)), theirs.step(batch(step))) for step in range(STEPS)]
    for mine, other in losses:
        assert mine == pytest.approx(other, rel=1e-4)
    before, after, expected = map(torch_training.arrays_of, (first, ours.weights(), theirs.weights()))
    moved = [np.abs(after[path] - before[path]).max() for path in after]
    # Adam's step is a gradient's sign where the gradient is rounding alone: there two steps may part by the rate.
    apart = np.concatenate([np.abs(after[path] - expected[path]).ravel() for path in after])
    assert np.quantile(apart, 0.99) < 2e-5 and np.median(moved) > 1e-3
    for side in (ours, theirs):  # As both are evaluated: from a file.
        torch_training.save(config, side.weights(), tmp_path / "weights.pth")
        loaded, _ = convert.model_from_torch(tmp_path / "weights.pth")
        found, expected = (
            torch_training.arrays_of(tree) for tree in ([nnx.to_pure_dict(nnx.state(loaded))], side.weights())
        )
        kernel = "decoder/classifier/conv/kernel"
        np.testing.assert_array_equal(found[kernel], expected[kernel])


def test_the_learning_rate_is_the_recipes():
    config = torch_training.recipe(seed=0)
    ours = optimizers.learning_rate(config)
    for step in (0, 1, 25, 49, 50, 51, 300, 499):
        assert torch_training.learning_rate(config, step) == pytest.approx(float(ours(step)), rel=1e-5, abs=1e-9)


def test_steps_that_the_recipe_does_not_have_are_refused():
    for option in ("--steps=0", "--steps=501", "--seeds=0"):
        with pytest.raises(UserError, match="expected 1 to 500, and 1 or more"):
            torch_training.main([option])
