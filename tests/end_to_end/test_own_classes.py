"""A data set of the user's own, from its files to a predicted video: its classes go with it all the way."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep import folder

NAMES = ("field", "hedge", "gate")


@pytest.fixture
def own(tmp_path):
    """Records of three classes, whose masks hold 10, 20 and 30; where a pixel is bright there is hedge, say."""
    rng, source = np.random.default_rng(0), tmp_path / "mine"
    for split, videos in (("train", 8), ("val", 2)):
        for video in range(videos):
            for number in range(3):
                kinds = rng.integers(0, 3, (8, 8)).repeat(8, 0).repeat(8, 1)
                for kind, values in (("images", 100 * kinds), ("masks", 10 + 10 * kinds)):
                    path = source / kind / split / f"{split}{video}" / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    image = Image.fromarray(values.astype(np.uint8))
                    (image.convert("RGB") if kind == "images" else image).save(path)
    (tmp_path / "classes.json").write_text(json.dumps({10: "field", 20: "hedge", 30: "gate"}))
    folder.convert(source, tmp_path / "classes.json", tmp_path / "records")
    return tmp_path / "records"


def test_the_classes_go_with_the_data(own, small_network, small_flags, command_line, generated_records, tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    flags = [*small_flags, workdir, "--config.train.steps=2", f"--config.data.records={own}"]
    status, _, err = command_line(*flags, "--config.run.afterwards=('evaluate',)")
    assert status == 0, err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model.num_classes"] == 3
    scores = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert set(scores["IoU"]) == set(NAMES) and scores["commonest_class"]["class"] in NAMES
    assert all(f'"name":"{name}"' in (tmp_path / "run" / "report.html").read_text() for name in NAMES)

    status, _, err = command_line(*small_flags, workdir, "--config.train.steps=2", "--mode=evaluate")
    assert status == 2 and "The network tells apart 3 classes (field, hedge, gate)" in err
    status, _, err = command_line(*flags, "--mode=evaluate", "--config.model.num_classes=124")
    assert status == 2 and "has 3 classes: field, hedge, gate. Leave the flag out." in err

    status, _, err = command_line(*small_flags, workdir, "--config.train.steps=2")
    assert status == 2 and "has a run that tells apart 3 classes (field, hedge, gate)" in err
    status, _, err = command_line(*flags, "--config.train.steps=2")
    assert status == 0, err

    shutil.rmtree(own)
    video = tmp_path / "mine" / "images" / "val" / "val0"
    status, _, err = command_line(*flags, "--mode=predict", f"--input={video}", f"--output={tmp_path / 'out'}")
    assert status == 0, err
    with (tmp_path / "out" / "palette.csv").open(newline="") as file:
        assert tuple(row["name"] for row in csv.DictReader(file)) == NAMES
    with Image.open(tmp_path / "out" / "masks" / "0.png") as mask:
        assert set(np.unique(mask)) <= {0, 1, 2}
