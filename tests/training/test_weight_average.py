"""An average of the weights: its values, that devices and restarts do not change it, and who reads it."""

import functools

import jax
import numpy as np
import pytest

from configs import nce_ema
from configs.parts import training
from vspw_jax.checkpoints.checkpoint import Checkpoints
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.tasks import task
from vspw_jax.training import loop, optimizers, train_state, train_step, trained, weight_average

DECAY, STEPS = 0.9, 4


@pytest.fixture
def config(small_config):
    """The small network with an average of its weights."""
    small_config.optimizer = training.sgd(learning_rate=0.1)  # Adam's first steps are signs, which rounding turns over.
    small_config.train.steps = STEPS
    small_config.run.picture_every = 1000
    small_config.ema = training.ema(DECAY)
    return small_config


def states_of(config, batch, num_devices, fsdp=1):
    """The state before and after each of `STEPS` steps, with where its arrays lie."""
    config.sharding.update(fsdp=fsdp, whole_below=64)
    mesh = make_mesh(8, devices=jax.devices()[:num_devices], fsdp=fsdp)
    graphdef, params, _ = train_state.describe(config)
    optimizer = optimizers.build(config, params)
    state = train_state.new_state(config, optimizer, mesh)
    step = train_step.make_train_step(config, graphdef, optimizer, mesh)
    states = [jax.tree.map(np.asarray, state)]
    for _ in range(STEPS):
        state, _ = step(state, placement.to_global(mesh, batch), train_step.seed_of(config))
        states.append(jax.tree.map(np.asarray, state))
    return states, state


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_is_that_of_its_definition(config, random_batch, warmup):
    """In float64 from the weights of every step; batch statistics likewise, and counts of batches are the newest."""
    config.ema.warmup = warmup
    states, _ = states_of(config, random_batch, num_devices=1)
    for part in ("params", "model_state"):
        average = jax.tree.map(lambda leaf: leaf.astype(np.float64), states[0][part])
        for step, state in enumerate(states[1:]):
            decay = min(DECAY, 1 - 1 / (step + 1)) if warmup else DECAY
            average = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * new, average, state[part])
            found, newest = (jax.tree.leaves(tree) for tree in (state["ema"][part], state[part]))
            for one, expected, new in zip(found, jax.tree.leaves(average), newest, strict=True):
                expected = expected if np.issubdtype(one.dtype, np.floating) else new
                np.testing.assert_allclose(one, expected, rtol=2e-6, atol=1e-7)
    kernel = lambda tree: tree["params"]["decoder"]["classifier"]["kernel"]
    assert np.abs(kernel(states[-1]["ema"]) - kernel(states[-1])).max() > 1e-4


def test_eight_devices_with_divided_weights_have_the_average_of_one(config, random_batch):
    alone, _ = states_of(config, random_batch, num_devices=1)
    together, state = states_of(config, random_batch, num_devices=8, fsdp=4)
    for one, other in zip(jax.tree.leaves(alone[-1]["ema"]), jax.tree.leaves(together[-1]["ema"]), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)
    of_weights, of_average = (
        [leaf.sharding.spec for leaf in jax.tree.leaves(tree["params"])] for tree in (state, state["ema"])
    )
    assert of_average == of_weights and any("fsdp" in spec for spec in of_average)


def test_a_run_that_was_interrupted_has_the_average_of_one_that_was_not(config, tmp_path, monkeypatch):
    whole = jax.tree.map(np.asarray, loop.train(config, tmp_path / "whole"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Run, "read", functools.partialmethod(interrupted, loop.Run.read))
        loop.train(config, tmp_path / "parts")
    assert Checkpoints(tmp_path / "parts", keep=3).latest_step() == 2
    parts = jax.tree.map(np.asarray, loop.train(config, tmp_path / "parts"))
    assert jax.tree.structure(parts) == jax.tree.structure(whole)
    for one, other in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(one, other)
    check_who_reads(config, tmp_path / "whole", whole)


def interrupted(run, read, batches, stop):
    """`Run.read` until a checkpoint is there."""
    if run.checkpoints.latest_step() == 2:
        raise KeyboardInterrupt
    return read(run, batches, stop)


def check_who_reads(config, workdir, state):
    """`evaluate.weights` picks what is scored and exported."""
    for name, expected in (("trained", state), ("ema", state["ema"])):
        config.evaluate.weights = name
        _, weights, step, *_ = trained.weights(config, workdir, make_mesh())
        assert step == STEPS and weights.keys() == {"params", "model_state"}
        for part in weights:
            for one, other in zip(jax.tree.leaves(weights[part]), jax.tree.leaves(expected[part]), strict=True):
                np.testing.assert_array_equal(one, other)


def test_the_recipe_begins_with_a_copy_of_released_weights(tiny_config, tmp_path, without_network):
    """`init_from` fills the weights and their average alike; exporting the average then gives them back."""
    config = tiny_config
    config.ema = training.ema(DECAY)
    config.evaluate.weights = "ema"
    config.train.steps = 1
    rng = np.random.default_rng(7)
    _, *shapes = train_state.describe(config)
    drawn = [jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), tree) for tree in shapes]
    source = dict(zip(("params", "model_state"), drawn, strict=True))
    convert.save_weights(config.model, drawn, tmp_path / "A.safetensors")
    config.init_from = str(tmp_path / "A.safetensors")
    zeros = jax.tree.map(np.zeros_like, source)
    new = {**zeros, "ema": zeros, "opt_state": np.zeros(3), "step": np.array(0), "bad_steps": np.array(0)}
    new = jax.device_put(new, placement.replicated(make_mesh(devices=jax.devices()[:1])))
    without_network(new_state=lambda *_: new, loss=1.0)
    state = loop.train(config, tmp_path / "run")
    for part in ("params", "model_state"):
        for one, other in zip(jax.tree.leaves(state["ema"][part]), jax.tree.leaves(source[part]), strict=True):
            np.testing.assert_array_equal(one, other)
    _, weights, *_ = trained.weights(config, tmp_path / "run", make_mesh(devices=jax.devices()[:1]))
    convert.save_weights(config.model, weights.values(), tmp_path / "B.safetensors")
    before, after = (checkpoint_file.read(tmp_path / name).tensors for name in ("A.safetensors", "B.safetensors"))
    for name, tensor in before.items():
        np.testing.assert_array_equal(tensor.read(), after[name].read(), err_msg=name)


def test_a_checkpoint_without_an_average_says_so(tmp_path):
    state = {"params": {"a": np.ones(3)}, "model_state": {"b": np.ones(2)}, "opt_state": {"c": np.ones(1)}}
    checkpoints = Checkpoints(tmp_path, keep=1, trains=True)
    checkpoints.save(3, {**state, "step": np.array(3), "bad_steps": np.array(0)})
    checkpoints.close()
    with pytest.raises(UserError, match="3 has no ema.*evaluate.weights=ema"):
        Checkpoints(tmp_path, keep=1).restore({"ema": {"params": state["params"]}})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("statistics", "none", "ema.statistics is 'none': expected one of averaged, own"),
        ("statistics", "own", "ema.statistics is 'own', but task.name is 'supervised'"),
    ],
)
def test_an_average_that_cannot_be_is_refused(field, value, message):
    config = nce_ema.get_config("demo")
    config.ema[field] = value
    with pytest.raises(UserError, match=message):
        weight_average.check(config, task.needs_teacher(config))
