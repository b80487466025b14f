"""The seam of tasks: one that learns from a teacher, an average of the weights, beside its labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs.parts import training
from vspw_jax.console.errors import UserError
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.tasks import supervised, task
from vspw_jax.training import optimizers, train_state, train_step, weight_average


class Consistent(supervised.Supervised):
    """The supervised terms, and the squared distance of the model's logits from the teacher's."""

    needs_teacher = True

    def losses(self, model, teacher, batch, key_B, step, rate):
        terms = super().losses(model, None, batch, key_B, step, rate)
        image = batch["image_BTHWC"]
        distance = (model(image)["logits_BTHWC"] - teacher(image, train=True)["logits_BTHWC"]) ** 2
        return terms | {"consistency": distance.sum(axis=(0, 1)).mean() / 8}  # Of eight clips.


@pytest.fixture
def config(small_config, monkeypatch):
    """The small network, learning from a teacher too."""
    monkeypatch.setitem(task.TASKS, "consistent", Consistent)
    small_config.task.name = "consistent"
    small_config.optimizer = training.sgd(learning_rate=0.1)  # Adam's first steps are signs, which rounding turns over.
    small_config.train.steps = 4
    small_config.ema = training.ema(0.9)
    small_config.ema.update(statistics="own", warmup=False)
    return small_config


def steps_of(config, batch, num_devices, fsdp=1, accumulate=1, count=3):
    """[(state before, metrics)] of some steps and the state after them, as NumPy arrays."""
    config.sharding.update(fsdp=fsdp, whole_below=64)
    config.train.accumulate = accumulate
    mesh = make_mesh(8, devices=jax.devices()[:num_devices], fsdp=fsdp, accumulate=accumulate)
    graphdef, params, _ = train_state.describe(config)
    optimizer = optimizers.build(config, params)
    state = train_state.new_state(config, optimizer, mesh)
    step = train_step.make_train_step(config, graphdef, optimizer, mesh)
    made = []
    for _ in range(count):
        before = jax.tree.map(np.asarray, state)
        state, metrics = step(state, placement.to_global(mesh, batch, accumulate), train_step.seed_of(config))
        made.append((before, jax.tree.map(float, metrics)))
    return graphdef, made, jax.tree.map(np.asarray, state)


def test_the_teacher_is_the_average_and_keeps_statistics_of_its_own(config, random_batch):
    """The term of every step against the two networks called by themselves with that step's weights."""
    graphdef, made, after = steps_of(config, random_batch, num_devices=1)
    image = jnp.asarray(random_batch["image_BTHWC"])
    mesh = make_mesh(devices=jax.devices()[:1])
    logits = jax.jit(
        jax.shard_map(
            lambda train, weights: nnx.merge(graphdef, weights["params"], weights["model_state"])(image, train=train)[
                "logits_BTHWC"
            ],
            mesh=mesh,
            in_specs=(None, jax.P()),
            out_specs=jax.P(),
            check_vma=False,
        ),
        static_argnums=0,
    )
    for before, metrics in made:
        # The supervised pass has left its batch's statistics in the model, which the second pass then uses.
        model = {"params": before["params"], "model_state": after_pass(graphdef, mesh, before, image)}
        expected = ((logits(False, model) - logits(True, before["ema"])) ** 2).mean(axis=(0, 1)).mean()
        assert metrics["consistency"] == pytest.approx(float(expected), rel=1e-3, abs=1e-6)
    assert made[-1][1]["consistency"] > 0
    count = lambda tree: int(tree["model_state"]["decoder"]["norm"]["count"])
    assert count(after) == 3 and count(after["ema"]) == 3


def after_pass(graphdef, mesh, state, image):
    """What is not trained, after the model's pass in training."""

    def run(params, model_state):
        model = nnx.merge(graphdef, params, model_state)
        model(image, train=True)
        return nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))

    mapped = jax.shard_map(run, mesh=mesh, in_specs=jax.P(), out_specs=jax.P(), check_vma=False)
    return jax.jit(mapped)(state["params"], state["model_state"])


def test_devices_and_divided_weights_change_nothing(config, random_batch):
    """The teacher's weights are divided as the model's are."""
    _, alone, after = steps_of(config, random_batch, num_devices=1)
    _, together, after_together = steps_of(config, random_batch, num_devices=8, fsdp=4)
    for (_, one), (_, other) in zip(alone, together, strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    for one, other in zip(jax.tree.leaves(after["ema"]), jax.tree.leaves(after_together["ema"]), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


def test_parts_of_a_batch_hand_the_teachers_statistics_on(config, random_batch):
    """One step in two parts: the teacher has made two passes, one after the other, and the step is still one."""
    _, made, after = steps_of(config, random_batch, num_devices=2, accumulate=2, count=1)
    norm = after["ema"]["model_state"]["decoder"]["norm"]
    assert norm["count"] == 2 and after["step"] == 1 and made[0][1]["consistency"] > 0
    assert np.abs(norm["mean"]).max() > 0


def test_a_teacher_is_never_differentiated(config, random_batch):
    """With the supervised terms off, a model that pulls only the teacher would have a gradient; it has none."""

    class PullsTheTeacher(Consistent):
        def losses(self, model, teacher, batch, key_B, step, rate):
            return {"consistency": (teacher(batch["image_BTHWC"])["logits_BTHWC"] ** 2).sum()}

    task.TASKS["consistent"] = PullsTheTeacher
    _, made, _ = steps_of(config, random_batch, num_devices=1, count=1)
    assert made[0][1]["consistency"] > 0 and made[0][1]["gradient_norm"] == 0


def test_a_task_with_a_teacher_needs_an_average_and_an_unknown_task_is_named(config):
    del config.ema
    with pytest.raises(UserError, match="task.name is 'consistent', whose teacher is an average.*parts.training.ema"):
        weight_average.check(config, task.needs_teacher(config))
    config.task.name = "suprevised"
    with pytest.raises(UserError, match="task.name is 'suprevised': expected one of .*Did you mean 'supervised'"):
        task.check(config)
