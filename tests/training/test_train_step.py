"""One training step: the same on one device and on eight that divide the state, deterministic, and it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vspw_jax.data import pipeline
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import optimizers, train_state, train_step

# In a loop around the blocks' loop, with rows of devices, XLA's CPU devices meet collectives in different orders and
# wait for each other without end.
pytestmark = pytest.mark.unrolled


def flat(tree):
    return jax.tree.map(np.asarray, jax.tree.leaves(tree))


def mesh_of(num_devices):
    """One device; or eight in two rows, the four devices of each dividing every weight."""
    return make_mesh(8, 8, jax.devices()[:num_devices], fsdp=min(num_devices, 4))


@pytest.fixture(scope="module")
def run_steps(generated_records):
    """run(config, devices): (state, metrics of each of two steps, the step) from the first batches; compiles once."""
    compiled, results = {}, {}

    def run(config, num_devices, again=False):
        config.sharding.whole_below = 0
        key = (num_devices, config.to_json())
        if key in results and not again:
            return results[key]
        mesh = mesh_of(num_devices)
        graphdef, params, _ = train_state.describe(config)
        transformation = optimizers.build(config, params)
        state = train_state.new_state(config, transformation, mesh)
        step = compiled.setdefault(key, train_step.make_train_step(config, graphdef, transformation, mesh))
        batches = pipeline.training_batches(config.data, config.train.batch, config.model.image_size, config.seed)
        metrics = []
        for _ in range(2):
            state, values = step(state, placement.to_global(mesh, next(batches)), train_step.seed_of(config))
            metrics.append({name: float(value) for name, value in values.items()})
        results[key] = state, metrics, step
        return results[key]

    return run


def test_eight_devices_give_the_losses_of_one(run_steps, tiny_config):
    """Drop path, points, batch statistics and contrastive groups do not depend on how clips share devices."""
    one, alone, _ = run_steps(tiny_config, 1)
    eight, together, _ = run_steps(tiny_config, 8)
    kernel = eight["params"]["encoder"]["interactions"]["blocks"]["mlp"]["fc1"]["kernel"]
    assert kernel.addressable_shards[0].data.nbytes * 4 == kernel.nbytes
    assert alone[0] == pytest.approx(together[0], rel=1e-5)
    # Adam's first update is the gradient's sign: where that is rounding alone, weights part by twice the rate.
    assert alone[1] == pytest.approx(together[1], rel=1e-2)
    for left, right in zip(flat(one["model_state"]), flat(eight["model_state"]), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)


def test_the_first_step_has_the_losses_and_the_gradient_that_it_had(run_steps, tiny_config, golden):
    _, metrics, _ = run_steps(tiny_config, 1)
    golden("configs/nce.py:demo, tiny, drawn video", metrics[0], tolerance=1e-3)


def test_the_same_run_twice_is_the_same_bit_for_bit(run_steps, tiny_config):
    first, second = run_steps(tiny_config, 8), run_steps(tiny_config, 8, again=True)
    assert first[1] == second[1]
    for left, right in zip(flat(first[0]), flat(second[0]), strict=True):
        np.testing.assert_array_equal(left, right)


def test_every_term_is_there_and_every_parameter_moves(run_steps, tiny_config):
    after, metrics, _ = run_steps(tiny_config, 8)
    assert metrics[0].keys() == {"loss", "cls", "mask", "dice", "nce", "gradient_norm", "learning_rate", "bad_steps"}
    terms = [metrics[0][name] for name in ("cls", "mask", "dice", "nce")]
    assert metrics[0]["loss"] == pytest.approx(sum(terms), rel=1e-5) and min(terms) > 0
    mesh = mesh_of(8)
    _, params, _ = train_state.describe(tiny_config)
    transformation = optimizers.build(tiny_config, params)
    before = train_state.new_state(tiny_config, transformation, mesh)["params"]
    still = []
    placement.map_with_path(
        lambda path, pair: still.append(path) if np.array_equal(*pair) else None,
        jax.tree.map(lambda *pair: np.stack(pair), before, after["params"]),
    )
    # The coarsest map has one cell: the softmax over it passes no gradient on to queries and keys.
    assert set(still) <= {f"decoder/layers/0/cross_attn/{name}/bias" for name in ("query", "key")}


@pytest.mark.parametrize("num_devices", [1, 8])
def test_the_step_compiles_once(run_steps, tiny_config, num_devices):
    """What a step gives, the next takes as it is: same shapes, types (weak ones too) and shardings."""
    _, metrics, step = run_steps(tiny_config, num_devices)
    assert len(metrics) == 2 and step._cache_size() == 1


def test_the_compiled_step_takes_unrelated_images_and_does_not_contrast_them(run_steps, tiny_config):
    """Batches of all mixtures have one shape; where no clip is of one video, the contrastive loss sees nothing."""
    state, _, step = run_steps(tiny_config, 8)
    mesh = mesh_of(8)
    batch = next(pipeline.training_batches(tiny_config.data, tiny_config.train.batch, tiny_config.model.image_size, 0))
    terms = []
    for is_clip in (True, False):
        batch["is_clip_B"] = np.full(tiny_config.train.batch, is_clip)
        _, metrics = step(
            jax.tree.map(jnp.copy, state), placement.to_global(mesh, batch), train_step.seed_of(tiny_config)
        )
        terms.append({name: float(metrics[name]) for name in ("cls", "mask", "dice", "nce")})
    contrasted, unrelated = terms
    assert contrasted.pop("nce") > 0 and unrelated.pop("nce") == 0
    assert contrasted == unrelated and step._cache_size() == 1
