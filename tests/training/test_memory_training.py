"""Training steps of decoders that remember: on one device and on eight the same, also after a stop between them; and
every parameter moves."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from configs import memory_b
from configs.parts import training
from tests.inference.test_memory_decoders import recipe
from tests.models import small_network
from vspw_jax.checkpoints.checkpoint import Checkpoints
from vspw_jax.console.errors import UserError
from vspw_jax.models import layers
from vspw_jax.models.temporal import feature_memory
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.tasks import task
from vspw_jax.training import optimizers, train_state, train_step

NETWORKS = ("memory_a", "memory_b", "mcibi", "tmanet", "ssltm")


@pytest.fixture(scope="module", autouse=True)
def known():
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_network.register(monkeypatch)
        yield
    prepared.cache_clear()


def batch_of(config):
    rng = np.random.default_rng(0)
    shape = (8, config.data.frames, 32, 32)
    return {
        "image_BTHWC": rng.normal(size=(*shape, 3)).astype(np.float32),
        "label_BTHW": rng.choice([0, 1, 2, 3, 255], shape).astype(np.int32),
        "is_clip_B": np.ones(8, bool),
    }


@functools.cache
def prepared(name, num_devices, rate=0.05, parts=1, warmup=0, **changes):
    """(config, mesh, optimizer, the jitted step), each once, so that a step is compiled once."""
    config = recipe(name)
    config.optimizer = training.sgd(learning_rate=rate)  # Adam's first update would be the sign of rounding errors.
    config.schedule.warmup_steps = warmup
    config.train.update(batch=8, steps=10, accumulate=parts)
    config.model.decoder.update(changes)
    config.model.decoder.dropout = 0.2
    if name.startswith("memory"):
        config.model.decoder.truth_steps = 1
    if "memory_start_step" in config.loss.segmentation:
        config.loss.segmentation.memory_start_step = 1
    mesh = make_mesh(8, 0, jax.devices()[:num_devices], accumulate=parts)
    graphdef, params, _ = train_state.describe(config)
    optimizer = optimizers.build(config, params)
    return config, mesh, optimizer, train_step.make_train_step(config, graphdef, optimizer, mesh)


def advanced(made, state, steps):
    """([metrics of each step], state after them) of what `prepared` gives."""
    config, mesh, _, step = made
    batch, metrics = placement.to_global(mesh, batch_of(config), config.train.accumulate), []
    for _ in range(steps):
        state, values = step(state, batch, train_step.seed_of(config))
        metrics.append({name: float(value) for name, value in values.items()})
    return metrics, state


def trained(name, num_devices, steps=3, **fields):
    """([metrics of each step], state before, state after), NumPy arrays."""
    made = config, mesh, optimizer, _ = prepared(name, num_devices, **fields)
    state = train_state.new_state(config, optimizer, mesh)
    before = jax.tree.map(np.array, state)
    metrics, state = advanced(made, state, steps)
    return metrics, before, jax.tree.map(np.array, state)


@pytest.fixture(scope="module")
def run(known):
    """`trained`, each run once."""
    return functools.cache(trained)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_term_is_there_and_every_parameter_moves(run, name):
    metrics, before, after = run(name, 8)
    remembers_classes = name not in ("tmanet", "ssltm")
    terms = {"pixel", "auxiliary"} | ({"first_pass", "memory"} if remembers_classes else set())
    terms |= {"clusters"} if name == "ssltm" else set()
    assert metrics[0].keys() == terms | {"loss", "gradient_norm", "learning_rate", "bad_steps"}
    for step, values in enumerate(metrics):
        assert values["loss"] == pytest.approx(sum(values[term] for term in terms), rel=1e-5)
        assert (values.get("memory", 0) > 0) == (step >= 1 and remembers_classes)
    if remembers_classes:
        memory = after["model_state"]["decoder"]["feature_memory"]
        np.testing.assert_array_equal(memory["valid_K"], [True] * 4 + [False])
        assert np.abs(memory["rows_KC"][:4]).max(axis=1).all() and not memory["rows_KC"][4].any()
    still = []
    placement.map_with_path(
        lambda path, pair: still.append(path) if np.array_equal(*pair) else None,
        jax.tree.map(lambda *pair: np.stack(pair), before["params"], after["params"]),
    )
    assert still == []


@pytest.mark.parametrize("name", NETWORKS)
def test_eight_devices_learn_what_one_does(run, name):
    """Also what is no weight: memories, and the statistics of batch norms."""
    (metrics_of_one, _, one), (metrics_of_eight, _, eight) = run(name, 1), run(name, 8)
    for ours, theirs in zip(metrics_of_one, metrics_of_eight, strict=True):
        assert theirs == pytest.approx(ours, rel=2e-3, abs=1e-5)
    placement.map_with_path(
        lambda path, pair: np.testing.assert_allclose(*pair, rtol=1e-3, atol=1e-4, err_msg=path),
        jax.tree.map(lambda *pair: np.stack(pair), eight["model_state"], one["model_state"]),
    )


def differing(first, second):
    """Paths of arrays that are not the same to the last bit in two trees."""
    paths = []
    placement.map_with_path(
        lambda path, pair: paths.append(path) if pair[0].tobytes() != pair[1].tobytes() else None,
        jax.tree.map(lambda *pair: np.stack(pair), first, second),
    )
    return paths


@pytest.mark.parametrize(
    ("name", "changes"), [*((name, {}) for name in NETWORKS), ("ssltm", {"cluster_update": "ema"})]
)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(run, name, changes, tmp_path):
    """Of three steps two are made after a checkpoint, which has what was remembered until then."""
    metrics, _, whole = run(name, 8, **changes)
    made = config, mesh, optimizer, _ = prepared(name, 8, **changes)
    _, state = advanced(made, train_state.new_state(config, optimizer, mesh), 1)
    checkpoints = Checkpoints(tmp_path, keep=1, in_background=False)
    checkpoints.save(1, state)
    stopped = jax.tree.map(np.array, state)
    restored = train_state.restore_state(config, optimizer, checkpoints, mesh)
    checkpoints.close()
    again, resumed = advanced(made, restored, 2)
    assert again == metrics[1:]
    assert differing(resumed, whole) == []
    moved = {path.rpartition("/")[2] for path in differing(stopped["model_state"], whole["model_state"])}
    assert moved >= ({"rows_KGC"} if changes else {"rows_KC"} if "memory" in metrics[0] else set())


def test_a_memory_learns_from_all_parts_of_a_batch_as_from_the_whole():
    """Its rows are cells of the encoder's map, which no batch norm makes others in a part; no weight moves."""
    given = dict(memory_space="backbone", momentum=0.8)
    _, before, after = trained("memory_a", 1, steps=2, rate=1e-12, parts=2, warmup=2, **given)
    batch, config = batch_of(recipe("memory_a")), recipe("memory_a")
    config.model.decoder.update(given)
    graphdef, _, _ = train_state.describe(config)
    model = nnx.merge(graphdef, before["params"], before["model_state"])
    maps = model.encoder(batch["image_BTHWC"].reshape(-1, 32, 32, 3))[0]
    features, labels = layers.resize_bilinear(maps, 32, 32).reshape(-1, 8), batch["label_BTHW"].reshape(-1)
    first = np.stack([np.asarray(features)[labels == k].mean(axis=0) for k in range(4)] + [np.zeros(8)])
    later = feature_memory.class_representations(features, labels, first)
    expected = first + 0.8 * (0.9 * 0.5) * (later - first)  # Of ten steps one is done, of two of the warm-up too.
    found = after["model_state"]["decoder"]["feature_memory"]["rows_KC"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert np.abs(expected - first)[:4].max() > 1e-3


def test_clips_that_are_too_short_to_look_back_are_refused():
    config = memory_b.get_config("demo")
    config.data.frames = 2
    with pytest.raises(UserError, match="data.frames is 2: expected 3 or more.*--config.data.frames=3"):
        task.check(config)
