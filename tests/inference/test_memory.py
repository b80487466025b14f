"""The seam of time: a network that remembers, over windows, views, batches, videos and interrupted runs."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import upernet
from vspw_jax.console.errors import UserError
from vspw_jax.data import records, transforms
from vspw_jax.evaluation import predicted_videos
from vspw_jax.inference import augmentation, memory_file, predict, sliding_window
from vspw_jax.inference.predictor import Predictor
from vspw_jax.models import layers, segmenter
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import train_state

CROP, STRIDE = (32, 32), (24, 24)


@pytest.fixture
def config(small_network, program, monkeypatch):
    """The small network, its features averaged over time."""
    monkeypatch.setitem(segmenter.DECODERS, "upernet", program.Remembering)
    config = upernet.get_config("demo")
    config.model.image_size = CROP
    config.model.encoder.dim = config.model.decoder.dim = 16
    config.evaluate.update(stride=STRIDE, batch=3, windows=4, flip=True)
    return config


@pytest.fixture
def weights(config):
    """Drawn wide, so that frames differ in their classes."""
    rng = np.random.default_rng(0)
    _, params, model_state = train_state.describe(config)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)
    return {"params": params, "model_state": jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), model_state)}


def predictor_of(config, weights):
    graphdef, _, _ = train_state.describe(config)
    return Predictor(config, graphdef, make_mesh(devices=jax.devices()[:2]), weights, {"recipe": "remembering"})


def video(count, height=40, width=56, seed=1):
    return list(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8))


def labels_in_batches(predictor, frames, size):
    memory, labels = predictor.first_memory(*frames[0].shape[:2]), []
    for first in range(0, len(frames), size):
        result = predictor.start(frames[first : first + size], memory)
        memory = result.memory
        labels += list(result.labels())
    return np.stack(labels)


def labels_by_definition(config, weights, frames):
    """Every view's every window for itself, one frame after the other, its features remembered in a NumPy array."""
    graphdef, _, _ = train_state.describe(config)
    model = train_state.nnx.merge(graphdef, weights["params"], weights["model_state"])
    encode = jax.jit(lambda window: model.decoder.norm(model.encoder(window[None])[0], use_running_average=True)[0])
    classify = lambda features: np.asarray(jax.nn.softmax(model.decoder.classifier(features)))
    height, width = frames[0].shape[:2]
    remembered, labels = {}, []
    for frame in frames:
        image = (frame[None].astype(np.float32) - transforms.IMAGE_MEAN) / transforms.IMAGE_STD
        total = 0.0
        for view in augmentation.views(height, width, CROP, (1.0,), flip=True):
            seen = view.of(jnp.asarray(image), CROP)
            windows = np.asarray(sliding_window.cut(seen, CROP, STRIDE))[0]
            scores = []
            for number, window in enumerate(windows):
                new = np.asarray(encode(window))
                place = (view.mirrored, number)
                old = remembered.get(place)
                remembered[place] = new if old is None else old + model.decoder.SHARE * (new - old)
                scores.append(classify(remembered[place]))
            joined = sliding_window.join(jnp.asarray(np.stack(scores)), *seen.shape[1:3], CROP, STRIDE)
            total = total + np.asarray(layers.resize_bilinear(view.undo(joined)[None], height, width)[0])
        labels.append(total.argmax(axis=-1))
    return np.stack(labels)


def test_every_window_of_every_view_remembers_its_own_past(config, weights):
    """Ten windows in calls of four, the last call filled up; batches of three and of one, the last one filled up."""
    frames, predictor = video(7), predictor_of(config, weights)
    assert predictor.remembers and predictor.batch == 3
    expected = labels_by_definition(config, weights, frames)
    in_threes = labels_in_batches(predictor, frames, 3)
    assert (in_threes == expected).mean() > 0.999  # Ties within rounding.
    np.testing.assert_array_equal(labels_in_batches(predictor, frames, 1), in_threes)
    alone = np.concatenate([labels_in_batches(predictor, [frame], 1) for frame in frames])
    assert (alone[0] == in_threes[0]).all() and (alone[1:] != in_threes[1:]).mean() > 0.05


def test_weights_of_many_devices_and_frames_without_a_past(config, weights):
    """As training and evaluation give them: on all devices; pictures are of single frames."""
    frames, alone = video(2), predictor_of(config, weights)
    everywhere = jax.device_put(weights, placement.replicated(make_mesh()))
    predictor = predictor_of(config, everywhere)
    np.testing.assert_array_equal(labels_in_batches(predictor, frames, 2), labels_in_batches(alone, frames, 2))
    np.testing.assert_array_equal(predictor(frames[:1])[0], labels_in_batches(alone, frames[:1], 1)[0])


def test_what_is_remembered_does_not_grow(config, weights):
    predictor, frames = predictor_of(config, weights), video(6)
    memory = predictor.first_memory(40, 56)
    size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    for frame in frames:
        after = predictor.start([frame], memory).memory
        assert size(after) == size(memory)
        memory = after
    np.testing.assert_array_equal(memory["frames"], 6)


def test_an_evaluated_video_begins_anew(config, weights, generated_records):
    frames = records.Frames(generated_records, "val")
    predictor = predictor_of(config, weights)
    for name, predicted in predicted_videos.predict(predictor, frames, frames.videos[:2], 2):
        images, labels = [], []
        for _, image, _, label in predicted:
            images.append(image)
            labels.append(label)
        np.testing.assert_array_equal(labels, labels_in_batches(predictor, images, 3), err_msg=name)


def source_of(frames, stops_at=None):
    """A source of frames; one that is interrupted when this frame is asked for."""

    def read():
        for number, frame in enumerate(frames):
            if number == stops_at:
                raise KeyboardInterrupt
            yield f"{number:03d}", frame, number

    return types.SimpleNamespace(
        name="clip", fingerprint="3f", count=len(frames), rate=10, unit=None, complaints=[], frames=read
    )


def masks(folder, count):
    return [(folder / "masks" / f"{number:03d}.png").read_bytes() for number in range(count)]


@pytest.mark.parametrize("stops_at", [2, 5, 8])
def test_an_interrupted_prediction_goes_on_in_the_middle(config, weights, tmp_path, monkeypatch, stops_at):
    """The masks are those of the run that nothing stopped; only frames since what was kept are made again."""
    monkeypatch.setattr(predict, "FRAMES_BETWEEN_MEMORIES", 3)
    frames, predictor = video(11), predictor_of(config, weights)
    assert predict.predict_source(predictor, source_of(frames), tmp_path / "whole") == 11
    with pytest.raises(KeyboardInterrupt):
        predict.predict_source(predictor, source_of(frames, stops_at), tmp_path / "parts", overlap=False)
    kept = memory_file.load(tmp_path / "parts", predictor.first_memory)
    frames_kept = len(kept.names) if kept else 0
    assert frames_kept == stops_at // 3 * 3
    assert predict.predict_source(predictor, source_of(frames), tmp_path / "parts") == 11 - frames_kept
    assert masks(tmp_path / "parts", 11) == masks(tmp_path / "whole", 11)
    # What was remembered after a frame whose mask is gone does not help: that frame needs what came before it.
    (tmp_path / "parts" / "masks" / "001.png").unlink()
    assert predict.predict_source(predictor, source_of(frames), tmp_path / "parts") == 11
    assert masks(tmp_path / "parts", 11) == masks(tmp_path / "whole", 11)


def test_a_frame_of_another_size_begins_anew(config, weights, tmp_path):
    frames, predictor = [*video(3), *video(3, 48, 40, seed=2)], predictor_of(config, weights)
    source = source_of(frames)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(predict, "FILMS", {})  # A film has frames of one size.
        predict.predict_source(predictor, source, tmp_path)
    expected = labels_in_batches(predictor, frames[3:], 3)
    for number in range(3):
        with predict.Image.open(tmp_path / "masks" / f"{3 + number:03d}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), expected[number])


def test_a_kept_memory_that_does_not_fit_is_named(config, weights, tmp_path):
    predictor = predictor_of(config, weights)
    kept = memory_file.KeptMemory(("000", "001"), (40, 56, 3), {"features": np.zeros((2, 8, 8, 16), np.float32)})
    memory_file.save(tmp_path, kept)
    with pytest.raises(UserError, match="memory.npz does not fit this network: found .*Delete .*memory.npz"):
        memory_file.load(tmp_path, predictor.first_memory)
    path = tmp_path / memory_file.FILE
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="memory.npz is damaged.*Delete .*memory.npz"):
        memory_file.load(tmp_path, predictor.first_memory)
    path.unlink()
    assert memory_file.load(tmp_path, predictor.first_memory) is None
