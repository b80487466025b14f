"""Stages of evaluation: which masks a stage reads, what is kept of it, and what happens where masks are missing."""

import json
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import memory_a, upernet
from tests.inference import test_memory_decoders
from vspw_jax.console.errors import UserError
from vspw_jax.data import records, transforms
from vspw_jax.evaluation import evaluate, predicted_videos, stages
from vspw_jax.inference import augmentation, overlay
from vspw_jax.inference.predictor import Predictor as NetworkPredictor
from vspw_jax.metrics import predictions
from vspw_jax.models.decoders import reads_memory
from vspw_jax.parallel.mesh import make_mesh

VOID = 255


class Predictor:
    """Answers class 0, and one more than the masks that it is given; notes what it was given."""

    batch, remembers, num_classes, are_known = 4, True, 124, False
    options = ConfigDict(dict(save_scores=False, flow_weight=0.0))

    def __init__(self, name="A"):
        self.name, self.given = name, []

    def identity(self):
        return {"weights": self.name, "scales": (1.0,)}

    def first_memory(self, height, width):
        return ()

    def __call__(self, frames):
        return np.zeros((len(frames), *frames[0].shape[:2]), np.uint8)

    def start(self, frames, memory=(), masks=None):
        self.given.append(None if masks is None else int(masks[0].max()))
        labels = self(frames) if masks is None else np.stack(masks) + np.uint8(1)
        return types.SimpleNamespace(labels=lambda: labels, memory=())


@pytest.fixture
def config(tiny_config):
    tiny_config.evaluate.stages = 2
    return tiny_config


def shown(folder, name):
    with Image.open(next((folder / name).glob("*/*.png"))) as mask:
        return set(np.unique(mask))


def test_each_stage_reads_the_masks_of_the_one_before(config, tmp_path):
    predictor = Predictor()
    result = evaluate.evaluate(config, predictor, tmp_path)
    calls = len(predictor.given) // 3
    assert predictor.given == [None] * calls + [0] * calls + [1] * calls
    assert [shown(tmp_path, name) for name in ("stages/val/0", "stages/val/1", "evaluated/val")] == [{0}, {1}, {2}]
    assert len(result["stages"]) == 3 and result["stages"][2]["mIoU"] == result["mIoU"]
    assert result["stages"][0] != result["stages"][1]
    assert json.loads((tmp_path / "evaluation.json").read_text())["stages"] == result["stages"]


def test_stages_that_are_done_are_not_made_again(config, tmp_path):
    whole = evaluate.evaluate(config, Predictor(), tmp_path)
    again = Predictor()
    assert evaluate.evaluate(config, again, tmp_path)["stages"] == whole["stages"]
    assert set(again.given) == {1}
    # Of other weights nothing is kept; where a mask is gone, its stage and those after it are made anew.
    other = Predictor("B")
    evaluate.evaluate(config, other, tmp_path)
    assert set(other.given) == {None, 0, 1}
    calls = len(other.given) // 3
    next((tmp_path / "stages/val/1").glob("*/*.png")).unlink()
    again = Predictor("B")
    evaluate.evaluate(config, again, tmp_path)
    assert 1 <= again.given.count(0) < calls and again.given.count(1) == calls
    # Nor of the same weights in another network.
    config.model.image_size, again = (64, 64), Predictor("B")
    evaluate.evaluate(config, again, tmp_path)
    assert set(again.given) == {None, 0, 1}


def test_a_stage_that_was_stopped_goes_on_with_the_next_video(config, tmp_path):
    """And ends with the scores and the masks of one that was not."""

    class Stopped(Predictor):
        def start(self, *given):
            if len(self.given) == calls + calls // 2:
                raise KeyboardInterrupt
            return super().start(*given)

    undisturbed = Predictor()
    whole = evaluate.evaluate(config, undisturbed, tmp_path / "whole")
    calls = len(undisturbed.given) // 3
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(config, Stopped(), tmp_path / "parts")
    done = {path.stem for path in (tmp_path / "parts/stages/val/1").glob("*.json")}
    videos = records.Frames(config.data.records, "val").videos
    assert 1 <= len(done) < len(videos)
    again = Predictor()
    assert evaluate.evaluate(config, again, tmp_path / "parts")["stages"] == whole["stages"]
    assert None not in again.given and 1 <= again.given.count(0) < calls and again.given.count(1) == calls
    for stage in (0, 1):
        masks = {
            path.relative_to(tmp_path / "parts"): path.read_bytes()
            for path in (tmp_path / "parts" / f"stages/val/{stage}").rglob("*.png")
        }
        assert masks == {path: (tmp_path / "whole" / path).read_bytes() for path in masks} and len(masks) == 30


class StopsAt(Predictor):
    """Stops before a batch."""

    def __init__(self, batch):
        super().__init__()
        self.last = batch

    def start(self, *given):
        if len(self.given) == self.last:
            raise KeyboardInterrupt
        return super().start(*given)


@pytest.mark.parametrize("number", [0, 2])
def test_an_evaluation_that_was_stopped_goes_on_and_one_that_was_whole_begins_anew(config, tmp_path, number):
    """With the weights that it had; of others nothing is kept."""
    config.evaluate.stages = number
    whole = evaluate.evaluate(config, undisturbed := Predictor(), tmp_path / "whole")
    calls = len(undisturbed.given) // (number + 1)
    for name, taken_up in (("A", True), ("B", False)):
        folder = tmp_path / f"stopped, then {name}"
        with pytest.raises(KeyboardInterrupt):
            evaluate.evaluate(config, StopsAt(number * calls + calls // 2), folder)
        assert any((folder / "stages/val/last").glob("*.json"))
        assert evaluate.evaluate(config, again := Predictor(name), folder)["mIoU"] == whole["mIoU"]
        if taken_up:
            assert 1 <= len(again.given) < calls
        else:
            assert len(again.given) == len(undisturbed.given)
        masks = {path.relative_to(folder): path.read_bytes() for path in (folder / "evaluated").rglob("*.png")}
        assert len(masks) == 30 and masks == {path: (tmp_path / "whole" / path).read_bytes() for path in masks}
        assert not (folder / "stages/val/last").exists()
        evaluate.evaluate(config, once_more := Predictor(name), folder)
        assert len(once_more.given) == calls


def test_a_stopped_evaluation_begins_anew_where_the_labels_mean_other_classes(config, tmp_path, monkeypatch):
    """As the counts of the videos before are of the old ones."""
    config.evaluate.stages = 0
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(config, StopsAt(5), tmp_path)
    predicted, frames = [], records.Frames(config.data.records, "val")
    predict = lambda folder, masks, left, done: predicted.extend(left) or []
    run = lambda: stages.run(config, Predictor(), frames, tmp_path, tmp_path / "evaluated/val", predict)
    run()
    assert 1 <= len(predicted) < len(frames.videos)
    predicted.clear()
    monkeypatch.setattr(frames, "lookup", np.roll(frames.lookup, 1))
    run()
    assert predicted == [video.name for video in frames.videos]


def test_where_scores_are_saved_a_stopped_evaluation_begins_anew(config, tmp_path):
    """As the scores of the videos before would be missing."""
    config.evaluate.stages = 0
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(config, StopsAt(5), tmp_path)
    notes, predicted = tmp_path / "stages/val/last", []
    assert any(notes.glob("*.json"))
    predictor, frames = Predictor(), records.Frames(config.data.records, "val")
    predictor.options = ConfigDict(dict(save_scores=True))
    predict = lambda folder, masks, left, done: predicted.extend(left) or []
    stages.run(config, predictor, frames, tmp_path, tmp_path / "evaluated/val", predict)
    assert predicted == [video.name for video in frames.videos] and not notes.exists()


@pytest.mark.parametrize("counts", [None, "{}", 3])
def test_a_video_whose_record_is_damaged_is_made_again(config, tmp_path, counts):
    evaluate.evaluate(config, Predictor(), tmp_path)
    path = min((tmp_path / "stages/val/0").glob("*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"counts": counts}))
    again = Predictor()
    evaluate.evaluate(config, again, tmp_path)
    assert again.given.count(None) > 0 and 0 not in again.given


def test_what_a_stage_that_was_stopped_left_is_nobodys(config, tmp_path):
    """Its masks may be all there, but they are not those of the evaluation before."""

    class Stopped(Predictor):
        def start(self, *_):
            raise KeyboardInterrupt

    evaluate.evaluate(config, Predictor(), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(config, Stopped("B"), tmp_path)
    again = Predictor()
    evaluate.evaluate(config, again, tmp_path)
    assert None in again.given


def test_the_picture_shows_what_was_scored(config, tmp_path, monkeypatch):
    shown = []
    comparison = lambda _, image, label, prediction: shown.append(set(np.unique(prediction))) or image
    monkeypatch.setattr(overlay.Painter, "comparison", comparison)
    evaluate.evaluate(config, Predictor(), tmp_path)
    assert shown and all(labels == {2} for labels in shown)


def test_a_stage_whose_masks_are_missing_is_refused(config, tmp_path):
    frames = records.Frames(config.data.records, "val")
    with pytest.raises(UserError, match="no such folder"):
        stages.masks_of(tmp_path / "0", frames)
    evaluate.evaluate(config, Predictor(), tmp_path)
    folder = tmp_path / "stages/val/0"
    next(folder.glob("*/*.png")).unlink()
    with pytest.raises(UserError, match="lacks 1 of 30 frames"):
        stages.masks_of(folder, frames)
    masks = predictions.Folder(folder)
    predicted = predicted_videos.predict(Predictor(), frames, frames.videos, 2, masks)
    with pytest.raises(UserError, match=r"stages/val/0/.*\.png"):
        for _, video in predicted:
            list(video)


def test_a_network_that_reads_no_masks_has_one_stage():
    config = upernet.get_config("demo")
    config.evaluate.stages = 2
    with pytest.raises(UserError, match="evaluate.stages is 2, but the decoder upernet reads no masks.*memory_a"):
        stages.check(config)
    config.evaluate.stages = 0
    stages.check(config)
    config = memory_a.get_config("demo")
    config.evaluate.stages = 3
    stages.check(config)


def test_masks_are_cut_mirrored_and_padded_as_their_frames_are():
    """A window's mask is that part of the whole mask, for every window of every view; void where a view is padded."""
    options = augmentation.Options(stride=(24, 24), flip=True, scales=(0.5, 1.0))
    windows = augmentation.Windows(40, 56, (32, 32), options)
    mask = np.random.default_rng(0).integers(0, 9, (40, 56), np.uint8)
    cut = np.asarray(windows.cut_mask(mask))
    image = np.repeat(mask[None, ..., None], 3, axis=-1).astype(np.float32)
    assert cut.shape == windows.cut(image)[0, ..., 0].shape and cut.dtype == np.uint8
    sizes = [view.size for view in augmentation.views(40, 56, (32, 32), (0.5, 1.0), True)]
    assert (cut[0, min(sizes[0][0], 32) :] == VOID).all() and set(np.unique(cut)) <= {*range(9), VOID}
    whole = augmentation.Windows(32, 32, (32, 32), augmentation.Options(stride=(32, 32), flip=True))
    plain, mirrored = whole.cut_mask(mask[:32, :32])
    np.testing.assert_array_equal(plain, mask[:32, :32])
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])


@pytest.fixture(scope="module")
def known():
    with pytest.MonkeyPatch.context() as monkeypatch:
        test_memory_decoders.small_network.register(monkeypatch)
        yield


def test_decoder_a_reads_the_masks_in_place_of_what_it_remembers(known):
    config = test_memory_decoders.recipe("memory_a")
    config.evaluate.stride = (32, 32)
    weights = test_memory_decoders.weights_of(config)
    predictor = test_memory_decoders.predictor_of(config, weights)
    frames = test_memory_decoders.video(2, 32, 32)
    graphdef, _, _ = test_memory_decoders.train_state.describe(config)
    model = test_memory_decoders.train_state.nnx.merge(graphdef, weights["params"], weights["model_state"])
    given = [np.full((32, 32), label, np.uint8) for label in (1, VOID)]
    found = predictor.start(frames, predictor.first_memory(32, 32), given).labels()
    image = (np.stack(frames).astype(np.float32) - transforms.IMAGE_MEAN) / transforms.IMAGE_STD
    memory = {"mask": np.asarray(reads_memory.mask_of_labels(np.stack(given), 8, 8))}
    outputs, _ = jax.jit(model.look)(image, memory)
    scores = jax.nn.softmax(outputs["logits_BTHWC"][:, 0], axis=-1)
    expected = jax.image.resize(scores, (2, 32, 32, 5), "bilinear", antialias=False).argmax(axis=-1)
    assert (found == expected).mean() > 0.99
    usual = predictor.start(frames, predictor.first_memory(32, 32)).labels()
    assert (found[0] != usual[0]).any()


def test_masks_of_some_of_the_classes_reach_the_network_in_its_own_numbers(known, monkeypatch):
    """A union's part is predicted in the part's numbers, and the network knows the union's."""
    config = test_memory_decoders.recipe("memory_a")
    graphdef, _, _ = test_memory_decoders.train_state.describe(config)
    mesh, nothing = make_mesh(devices=jax.devices()[:1]), {"params": {}, "model_state": {}}
    of_part = NetworkPredictor(config, graphdef, mesh, nothing, outputs=np.array([3, 4]))
    read = []
    monkeypatch.setattr(of_part, "_predict_by_masks", lambda *inputs: read.append(inputs[-1]) or ({}, ()))
    mask = np.array([[0, 1], [VOID, 1]], np.uint8)
    of_part.start(test_memory_decoders.video(1, 2, 2), (), [mask])
    np.testing.assert_array_equal(read[0][0], [[3, 4], [VOID, 4]])
