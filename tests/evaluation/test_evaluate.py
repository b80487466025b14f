"""What evaluation leaves in the workdir, with predictors that need no network."""

import json
import shutil
import types

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from data_prep import vspw
from vspw_jax import submission
from vspw_jax.console.errors import UserError
from vspw_jax.data import records
from vspw_jax.evaluation import evaluate
from vspw_jax.inference import overlay
from vspw_jax.metrics import __main__ as program


class Predictor:
    """Answers a class by the brightness of a pixel."""

    batch, remembers, num_classes, are_known = 4, False, 124, False
    options = ConfigDict(dict(save_scores=False, flow_weight=0.0))

    def identity(self):
        return {"predictor": type(self).__name__}

    def __call__(self, frames):
        return np.stack([(frame.mean(axis=2) // 32).astype(np.uint8) for frame in frames])

    def start(self, frames):
        return types.SimpleNamespace(labels=lambda: self(frames))


class Constant(Predictor):
    """Answers one class."""

    batch = 3

    def __call__(self, frames):
        return np.zeros((len(frames), *frames[0].shape[:2]), np.uint8)


def test_the_predictions_left_behind_give_the_same_scores(tiny_config, tmp_path):
    result = evaluate.evaluate(tiny_config, Predictor(), tmp_path, "python")
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written == result
    folder, output = tmp_path / "evaluated" / "val", tmp_path / "again.json"
    program.main([f"--predictions={folder}", f"--data={tiny_config.data.records}", f"--output={output}"])
    assert json.loads(output.read_text()) == {"predictions": str(folder), **written}
    assert '"command":"python"' in (tmp_path / "report.html").read_text()


def test_what_an_older_evaluation_predicted_goes(tiny_config, tmp_path):
    stale = tmp_path / "evaluated" / "val" / "stale" / "00000001.png"
    stale.parent.mkdir(parents=True)
    stale.touch()
    result = evaluate.evaluate(tiny_config, Constant(), tmp_path)
    assert not stale.exists()
    assert result["warnings"][0].startswith("Every pixel is predicted to be 'wall'")
    assert result["commonest_class"]["VC8"] == result["VC8"] == 1.0


def test_a_split_without_masks_is_predicted_for_an_entry(tiny_config, tmp_path, capsys):
    tiny_config.data.eval_split = "test"
    assert evaluate.evaluate(tiny_config, Predictor(), tmp_path) is None
    assert not (tmp_path / "evaluation.json").exists()
    entry = evaluate.predictions_folder(tiny_config, tmp_path)
    submission.main([f"--check={entry}", f"--data={tiny_config.data.records}", "--split=test"])
    assert "is whole: 1 video, 10 frames" in capsys.readouterr().out


def test_weights_of_unfinished_training_and_what_they_began_without(tiny_config, tmp_path, monkeypatch):
    with tiny_config.unlocked():
        tiny_config.init_from = str(tmp_path / "X.pth")
    assert evaluate.unfinished(tiny_config, None, {}) == evaluate.unfinished(tiny_config, 6, {}) == []
    (plain,) = evaluate.unfinished(tiny_config, 2, {})
    assert plain == "These are the weights of step 2 of 6: training has not ended."
    (tmp_path / "X.pth").touch()
    plan = types.SimpleNamespace(unsettled=lambda: ["decoder/cls_embed/kernel", "decoder/cls_embed/bias"])
    monkeypatch.setattr(evaluate.convert, "plan", lambda *_: plan)
    (said,) = evaluate.unfinished(tiny_config, 2, {})
    assert (
        "2 of the variables" in said and "X.pth lacks them: decoder/cls_embed/kernel, decoder/cls_embed/bias." in said
    )
    result = evaluate.evaluate(tiny_config, Constant(), tmp_path, warnings=[said])
    assert result["warnings"][0] == said


def test_masks_of_void_alone_are_said_before_anything_is_predicted(tiny_config, generated_vspw, tmp_path):
    source = shutil.copytree(generated_vspw, tmp_path / "source")
    for video in (source / "val.txt").read_text().split():
        for path in (source / "data" / video / "mask").iterdir():
            Image.fromarray(np.full((48, 64), 255, np.uint8)).save(path)
    vspw.convert(source, tmp_path / "records")
    tiny_config.data.records = str(tmp_path / "records")
    with pytest.raises(UserError, match="All masks of split 'val' of .* are void: there is nothing to score"):
        evaluate.evaluate(tiny_config, Predictor(), tmp_path, "python")
    assert not (tmp_path / "evaluated").exists()


def test_pictures_have_the_opacity_that_is_asked_for(generated_records):
    frames = records.Frames(generated_records, "val")
    predicted = lambda _, image: np.zeros(image.shape[:2], np.uint8)
    alone, hidden = (next(evaluate.comparisons(frames, predicted, opacity)) for opacity in (0.0, 1.0))
    width = (alone.shape[1] - overlay.LEGEND_WIDTH) // 3
    np.testing.assert_array_equal(alone[:, :width], alone[:, width : 2 * width])
    assert (hidden[:, :width] != hidden[:, width : 2 * width]).any()
