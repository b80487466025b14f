"""Decoders that look at frames before on video: in one go, frame by frame, stopped between, and of a single frame."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.inference.test_memory import labels_in_batches, masks, predictor_of, source_of, video
from tests.models import small_network
from vspw_jax.inference import predict
from vspw_jax.parallel import placement
from vspw_jax.training import train_state

RECIPES = ("memory_a", "memory_b", "tmanet", "ssltm")
"""Of decoders that remember."""
OF_UPERNET = dict(memory_dim=8, level=0, pool_scales=(1, 2))
FIELDS = {
    "memory_a": OF_UPERNET,
    "memory_b": OF_UPERNET,
    "tmanet": {},
    "ssltm": dict(key_dim=4, heads=2, short_term=3, window=(3, 5, 5), reference="distance", distance=2),
    "mcibi": dict(dilations=(1, 2)),
}
"""Of decoders, beside those that all of them have."""


@pytest.fixture(scope="module", autouse=True)
def known():
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_network.register(monkeypatch)
        yield


def recipe(name):
    """The decoder behind the smallest encoder, which has one map."""
    config = importlib.import_module(f"configs.{name}").get_config("demo")
    config.model.update(image_size=(32, 32), num_classes=5)
    config.model.encoder = small_network.config().encoder
    config.model.decoder.update(dim=8, auxiliary_dim=4, auxiliary_level=0, **FIELDS[name])
    config.evaluate.update(stride=(24, 24), batch=3, windows=4)
    if name == "ssltm":
        config.data.frames = config.model.decoder.short_term + 1
    return config


def weights_of(config):
    """Drawn wide, so that frames differ in their classes; all classes but the last are in the memory."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path.endswith("valid_K"):
            return jnp.arange(5) < 4
        drawn = rng.normal(size=leaf.shape)
        return jnp.asarray(np.abs(drawn) + 0.5 if path.endswith("var") else drawn, leaf.dtype)

    _, params, model_state = train_state.describe(config)
    return placement.map_with_path(draw, {"params": params, "model_state": model_state})


@pytest.fixture(scope="module", params=RECIPES)
def predictor(request, known):
    config = recipe(request.param)
    return predictor_of(config, weights_of(config))


def test_a_video_in_one_go_and_frame_by_frame(predictor):
    """Frames depend on their past: each by itself gives other masks, but for the first."""
    frames = video(5)
    in_threes = labels_in_batches(predictor, frames, 3)
    np.testing.assert_array_equal(labels_in_batches(predictor, frames, 1), in_threes)
    alone = np.concatenate([labels_in_batches(predictor, [frame], 1) for frame in frames])
    np.testing.assert_array_equal(alone[0], in_threes[0])
    assert (alone[1:] != in_threes[1:]).mean() > 0.001


def test_a_video_that_was_stopped_between(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "FRAMES_BETWEEN_MEMORIES", 3)
    frames = video(7)
    assert predict.predict_source(predictor, source_of(frames), tmp_path / "whole") == 7
    with pytest.raises(KeyboardInterrupt):
        predict.predict_source(predictor, source_of(frames, stops_at=5), tmp_path / "parts", overlap=False)
    assert predict.predict_source(predictor, source_of(frames), tmp_path / "parts") == 4
    assert masks(tmp_path / "parts", 7) == masks(tmp_path / "whole", 7)


def test_a_video_of_one_frame(predictor, tmp_path):
    frames = video(1)
    assert predict.predict_source(predictor, source_of(frames), tmp_path) == 1
    with predict.Image.open(tmp_path / "masks" / "000.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), labels_in_batches(predictor, frames, 1)[0])


def test_what_is_remembered_stays_as_large_and_in_float32(predictor):
    """In files bfloat16 has no name."""
    memory = predictor.first_memory(40, 56)
    after = predictor.start(video(1), memory).memory
    describe = lambda tree: [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]
    assert describe(after) == describe(memory)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(memory)} <= {"float32", "uint8", "bool"}
