"""A run on the classes of three data sets together, more than a byte tells apart: each is scored by its own."""

import json

import jax
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from data_prep import folder
from vspw_jax import main
from vspw_jax.checkpoints import run_classes
from vspw_jax.classes.class_list import HOLE
from vspw_jax.console.errors import UserError
from vspw_jax.evaluation import evaluate
from vspw_jax.models import segmenter
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import checks, loop, trained

MEMBER = dict(split="train", weight=1.0, epoch="frame", frame_gap=1, fits=("exact",), min_mapped=0.0, denominator="all")
SIZES = {"main": 12, "renamed": 124, "vspw": 124}


def renamed(generated_vspw, folder_, count):
    """The drawn videos as a user's own data: ids from 1 on have new names."""
    classes = folder_.with_suffix(".json")
    classes.write_text(json.dumps({number + 1: f"{folder_.name} {number}" for number in range(count)}))
    void = [str(value) for value in (0, *range(count + 1, 125))]
    folder.convert(generated_vspw, classes, folder_, void=void, hold="ids")
    return folder_


@pytest.fixture
def config(small_config, generated_vspw, generated_records, tmp_path):
    """Half of the drawn classes and two others under further names, all of VSPW's, and these renamed."""
    fields = {"data.classes": "union", "train.steps": 2, "run.picture_every": 2, "evaluate.save_scores": True}
    small_config.update_from_flattened_dict(fields)
    small_config.data.records = str(renamed(generated_vspw, tmp_path / "main", SIZES["main"]))
    places = {"vspw": generated_records, "renamed": renamed(generated_vspw, tmp_path / "renamed", SIZES["renamed"])}
    for name, path in places.items():
        small_config.data.mixture[name] = ConfigDict({**MEMBER, "records": str(path)})
    return small_config


def adopted(config, workdir):
    known = run_classes.of_run(config.lock(), workdir, trains=True)
    run_classes.adopt(config, known, is_stated=False)
    return known.classes


def test_each_data_set_is_scored_by_its_own_classes(config, tmp_path, generated_records, capsys):
    workdir = tmp_path / "run"
    classes = adopted(config, workdir)
    assert len(classes) == config.model.num_classes == sum(SIZES.values()) + 1 and classes.names[255] == HOLE
    assert {part.name: len(part.classes) for part in classes.parts} == {"main": 12, "renamed": 124, "vspw": 124}
    loop.train(config, workdir)
    assert run_classes.of_run(config, workdir).classes == classes == adopted(config, workdir)

    frame = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    whole = trained.weights(config, workdir, make_mesh(devices=jax.devices()[:1]))
    model, scores = nnx.merge(whole.graphdef, *whole.weights.values()), None
    for place, part in ((config.data.records, classes.parts[0]), (str(generated_records), classes.parts[2])):
        with config.unlocked():
            config.data.records = place
        predictor = trained.predictor(config, workdir, "union", run_classes.of_records(config))
        if scores is None:
            image = predictor._normalised(frame)[None, None]
            scores = jax.image.resize(segmenter.class_scores(model(image))[0, 0], (32, 32, len(classes)), "bilinear")
        np.testing.assert_array_equal(predictor([frame])[0], np.asarray(scores)[..., part.numbers].argmax(-1))
        result = evaluate.evaluate(config, predictor, workdir)
        assert set(result["IoU"]) <= set(part.classes.names) and predictor.classes == part.classes

    assert trained.predictor(config, workdir).classes == classes.parts[0].classes  # Of a video, which is of no set.
    assert "Of 261 classes, more than masks can hold, those of main are predicted (12)." in capsys.readouterr().out


def test_what_cannot_tell_so_many_classes_apart_is_refused(config, tmp_path):
    adopted(config, tmp_path / "run")
    with config.unlocked():
        config.data.classes = "main"
    with pytest.raises(
        UserError, match="num_classes is 261: expected 1 to 255, as 255 is void. Only several data sets"
    ):
        checks.check_recipe(config)
    with pytest.raises(UserError, match="others .* To learn the classes of all: --config.data.classes=union"):
        checks.mixture.check_classes(checks.mixture.members(config.data), 255)
    with config.unlocked():
        config.data.classes = "both"
    with pytest.raises(UserError, match="data.classes is 'both': expected one of main, union"):
        main.run_classes.of_run(config, tmp_path / "run")


def test_losses_and_memories_that_count_in_bytes_are_refused(tiny_config):
    tiny_config.model.num_classes, tiny_config.data.classes = 300, "union"
    with pytest.raises(UserError, match="300 classes together, and loss.nce can tell apart 255. Leave"):
        checks.check_many_classes(tiny_config)
    tiny_config.loss.nce.weight = 0.0
    checks.check_many_classes(tiny_config)
    tiny_config.model.decoder.name = "memory_a"
    with pytest.raises(UserError, match="and the decoder memory_a can tell apart 255"):
        checks.check_many_classes(tiny_config)
