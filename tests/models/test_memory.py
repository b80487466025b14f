"""A memory over training steps: the same whatever devices share the batch, kept with the state, in PyTorch's files."""

import jax
import numpy as np
import pytest
from flax import nnx

from configs import upernet
from configs.parts import training
from tests.models import small_network
from vspw_jax.checkpoints.checkpoint import Checkpoints
from vspw_jax.interop import checkpoint_file, convert
from vspw_jax.models import memory, segmenter
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import optimizers, train_state, train_step, weight_average

NAMES = ("sums_KC", "pixels_K")


def recipe():
    config = upernet.get_config("demo")
    config.model = small_network.config()
    config.optimizer = training.sgd(learning_rate=0.5)  # Adam's first update would be the sign of rounding errors.
    config.schedule.warmup_steps = 0
    config.sharding.whole_below = 0
    config.train.batch = 8
    return config


def batches():
    """Of two steps. Clips differ in brightness, so that devices see different features."""
    rng = np.random.default_rng(0)
    for _ in range(2):
        image = rng.normal(size=(8, 1, 32, 32, 3)) + np.arange(8).reshape(8, 1, 1, 1, 1)
        label = rng.choice([0, 1, 2, 3, 4, 255], (8, 1, 32, 32))
        yield {
            "image_BTHWC": image.astype(np.float32),
            "label_BTHW": label.astype(np.int32),
            "is_clip_B": np.ones(8, bool),
        }


def mesh_of(num_devices):
    """One device; or eight in two rows, the four devices of each dividing the state."""
    return make_mesh(8, 0, jax.devices()[:num_devices], fsdp=min(num_devices, 4))


def transformation(config):
    return optimizers.build(config, train_state.describe(config)[1])


@pytest.fixture(scope="module", autouse=True)
def known():
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_network.register(monkeypatch)
        yield


def test_an_average_of_the_weights_has_a_copy_of_memories():
    """They are averages already. Averaged once more, rows would lie between what they are and their zeros at first."""
    found = memory.paths(segmenter.build(recipe().model, jax.random.key(0)))
    assert found == {"decoder/sums_KC", "decoder/pixels_K"}
    before, after = ({"decoder": {"sums_KC": np.full(2, x), "mean": np.full(2, x)}} for x in (0.0, 1.0))
    ema, options = {"params": {}, "model_state": before}, training.ema(0.75)
    average = weight_average.updated(options, ema, {}, after, None, np.int32(9), found)["model_state"]["decoder"]
    np.testing.assert_array_equal(average["sums_KC"], 1.0)
    np.testing.assert_array_equal(average["mean"], 0.25)


@pytest.fixture(scope="module")
def trained(known):
    """{number of devices: (state before, after one and after two steps, as NumPy arrays; the last as it lies)}."""

    def run(num_devices):
        config, mesh = recipe(), mesh_of(num_devices)
        optimizer = transformation(config)
        state = train_state.new_state(config, optimizer, mesh)
        step = train_step.make_train_step(config, train_state.describe(config)[0], optimizer, mesh)
        history = [jax.tree.map(np.array, state)]
        for batch in batches():
            state, _ = step(state, placement.to_global(mesh, batch), train_step.seed_of(config))
            history.append(jax.tree.map(np.array, state))
        return history, state

    return {num_devices: run(num_devices) for num_devices in (1, 8)}


def features_and_shares(params, image_BTHWC):
    """The decoder's features and classes' probabilities of all pixels, in float64."""
    cells = image_BTHWC.astype(np.float64).reshape(8, 8, 4, 8, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 48)
    apply = lambda layer, x: x @ layer["kernel"].reshape(x.shape[1], -1).astype(np.float64) + layer["bias"]
    features = apply(params["decoder"]["project"], apply(params["encoder"]["patches"], cells))
    exponentials = np.exp(apply(params["decoder"]["classifier"], features))
    return features, exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("num_devices", [1, 8])
def test_it_is_the_sum_over_all_clips_and_steps(trained, num_devices):
    history, _ = trained[num_devices]
    sums, pixels = np.zeros((5, 6)), np.zeros(5)
    for before, after, batch in zip(history, history[1:], batches(), strict=False):
        features, shares = features_and_shares(before["params"], batch["image_BTHWC"])
        sums, pixels = sums + shares.T @ features, pixels + shares.sum(axis=0)
        memory = after["model_state"]["decoder"]
        np.testing.assert_allclose(memory["sums_KC"], sums, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(memory["pixels_K"], pixels, rtol=1e-5)
    assert pixels.sum() == pytest.approx(2 * 8 * 64)


def test_eight_devices_remember_what_one_does(trained):
    (one, _), (eight, _) = trained[1], trained[8]
    for name in NAMES:
        memories = [history[2]["model_state"]["decoder"][name] for history in (one, eight)]
        np.testing.assert_allclose(*memories, rtol=1e-5, atol=1e-4)
    kernels = [history[2]["params"]["decoder"]["classifier"]["kernel"] for history in (one, eight)]
    np.testing.assert_allclose(*kernels, rtol=1e-5, atol=1e-6)
    assert np.abs(kernels[0] - one[0]["params"]["decoder"]["classifier"]["kernel"]).max() > 1e-3


def test_it_is_kept_beside_the_weights_and_the_optimizer_knows_nothing_of_it(trained):
    history, _ = trained[8]
    paths = {part: convert.leaves_by_path(history[0][part]) for part in ("params", "model_state")}
    assert paths["model_state"].keys() == {f"decoder/{name}" for name in NAMES}
    assert not paths["params"].keys() & paths["model_state"].keys()
    optimized = [jax.tree_util.keystr(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(history[0]["opt_state"])]
    assert optimized and not [path for path in optimized if any(name in path for name in NAMES)]


def test_a_checkpoint_has_it_for_any_number_of_devices(trained, tmp_path):
    config, (history, state) = recipe(), trained[8]
    checkpoints = Checkpoints(tmp_path, 1, in_background=False)
    checkpoints.save(2, state)
    for num_devices in (8, 1):
        restored = train_state.restore_state(config, transformation(config), checkpoints, mesh_of(num_devices))
        for name in NAMES:
            wanted = history[2]["model_state"]["decoder"][name]
            np.testing.assert_array_equal(restored["model_state"]["decoder"][name], wanted)
    checkpoints.close()


def test_it_goes_to_a_pytorch_file_and_back(trained, tmp_path):
    state = trained[1][0][2]
    convert.save_weights(recipe().model, [state["params"], state["model_state"]], tmp_path / "A.safetensors")
    tensors = checkpoint_file.read(tmp_path / "A.safetensors").tensors
    for name, theirs in zip(NAMES, ("sums", "pixels"), strict=True):
        wanted = state["model_state"]["decoder"][name]
        np.testing.assert_array_equal(tensors[f"decode_head.memory.{theirs}"].read(), wanted)
    fresh = segmenter.build(recipe().model, jax.random.key(1))
    filled = nnx.to_pure_dict(nnx.state(convert.load_torch(fresh, tmp_path / "A.safetensors")))
    weights = convert.leaves_by_path(state["params"], state["model_state"])
    for path, array in convert.leaves_by_path(filled).items():
        np.testing.assert_array_equal(array, weights[path], err_msg=path)
