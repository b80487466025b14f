"""Fully sharded and accumulated training steps beside plain ones on one device."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from configs import nce, upernet
from vspw_jax.console.errors import UserError
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import DATA_AXES, make_mesh
from vspw_jax.tasks import supervised
from vspw_jax.training import optimizers, train_state, train_step


@pytest.fixture(scope="module")
def config():
    """Per-pixel losses and batch norms without randomness: copies of clips have the same losses."""
    config = upernet.get_config("demo")
    config.model.image_size = (32, 32)
    config.model.encoder.update(dim=16, heads=2)
    config.model.decoder.update(dim=16, auxiliary_dim=8, dropout=0.0)
    config.optimizer.update(learning_rate=1e-3, clip_norm=0.5)
    config.schedule.warmup_steps = 0
    config.train.update(batch=8, steps=20)
    config.sharding.whole_below = 64
    return config


def losses_of(config, batch, num_devices, fsdp, accumulate, steps=4):
    """(metrics of some steps on one batch, the state)."""
    config.sharding.fsdp, config.train.accumulate = fsdp, accumulate
    mesh = make_mesh(config.train.batch, 0, jax.devices()[:num_devices], fsdp, accumulate)
    graphdef, params, _ = train_state.describe(config)
    transformation = optimizers.build(config, params)
    state = train_state.new_state(config, transformation, mesh)
    step = train_step.make_train_step(config, graphdef, transformation, mesh)
    metrics = []
    for _ in range(steps):
        state, values = step(state, placement.to_global(mesh, batch, accumulate), train_step.seed_of(config))
        metrics.append({name: float(value) for name, value in values.items()})
    assert step._cache_size() == 1
    return metrics, state


def test_sharded_accumulated_steps_are_those_of_one_device(config):
    """Four clips twice over: in two parts with batch norms of four clips each, on 2 x 2 devices, or all at once.

    Also what clips the gradient, its norm over all parts of all weights.
    """
    rng = np.random.default_rng(0)
    half = {
        "image_BTHWC": rng.normal(size=(4, 1, 32, 32, 3)).astype(np.float32),
        "label_BTHW": rng.integers(0, 5, (4, 1, 4, 4), np.int32).repeat(8, axis=2).repeat(8, axis=3),
        "is_clip_B": np.ones(4, bool),
    }
    batch = {name: np.concatenate([array, array]) for name, array in half.items()}
    alone, _ = losses_of(config, batch, num_devices=1, fsdp=1, accumulate=1)
    together, state = losses_of(config, batch, num_devices=4, fsdp=2, accumulate=2)
    for left, right in zip(alone, together, strict=True):
        assert left == pytest.approx(right, rel=1e-3)
    assert alone[0] == pytest.approx(together[0], rel=1e-5) and alone[3]["loss"] < 0.995 * alone[0]["loss"]

    here = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    assert here < 0.55 * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    kernel = state["opt_state"][1].mu["encoder"]["blocks"]["mlp"]["fc1"]["kernel"]
    assert kernel.sharding.spec == P(None, None, "fsdp")


def test_parts_are_averaged_in_order_and_see_their_own_clips_numbers():
    """A loss of clip numbers and a running count, on two devices with a batch of eight in two parts."""
    mesh = make_mesh(devices=jax.devices()[:2])

    def loss(weight, count, batch, numbers, key, step):
        values = weight * (batch["image_BTHWC"] * (1 + numbers) * (1 + count))
        return values.sum(), ({"sum": values.sum()}, count + 1, {})

    def mapped(batch):
        gradient_of = jax.grad(loss, has_aux=True)
        of_parts = train_step.accumulated(lambda weights, *rest: gradient_of(weights[0], *rest), parts=2)
        gradient, (losses, count, _) = of_parts((1.0, None), 0.0, batch, None, None)
        return jax.lax.psum((gradient, losses["sum"]), DATA_AXES), count

    run = jax.shard_map(mapped, mesh=mesh, in_specs=P(None, DATA_AXES), out_specs=P(), check_vma=False)
    values = np.arange(8, dtype=np.float32)
    (gradient, mean), count = jax.jit(run)(placement.to_global(mesh, {"image_BTHWC": values}, accumulate=2))
    products = values * np.arange(1, 9) * np.repeat([1, 2], 4)
    assert gradient == mean == products.sum() / 2 and count == 2


def test_contrastive_groups_divide_among_parts():
    """A part of a batch has its share of the groups: each group then meets all of its clips, as in one pass."""
    config = nce.get_config("demo")
    config.train.update(batch=16, accumulate=4)
    config.loss.nce.groups = 8
    assert supervised.Supervised(config).contrast_groups() == 2
    assert supervised.of_part(config.loss, 4).nce.groups == 2 and config.loss.nce.groups == 8
    for scope, groups in (("clip", 4), ("all", 1)):
        config.loss.nce.scope = scope
        assert supervised.Supervised(config).contrast_groups() == groups
    config.loss.nce.update(scope="group", groups=6)
    with pytest.raises(UserError, match="multiple of 4"):
        supervised.Supervised(config).contrast_groups()
    config.loss.nce.weight = 0.0
    assert supervised.Supervised(config).contrast_groups() == 0
