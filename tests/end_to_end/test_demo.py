"""The whole way by the command line: draw, convert, train, evaluate, predict; then every mode on what it left."""

import json
import os
import shutil
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from vspw_jax import submission
from vspw_jax.checkpoints import checkpoint
from vspw_jax.inference import sources, video
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import optimizers, train_state

pytestmark = pytest.mark.unrolled  # As in the demo's own process, whose compiled functions are used again.
SMALL_DATA = {"train": 8, "val": 2, "frames": 18, "height": 48, "width": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture
def demo_flags(tiny_flags, folder):
    """The demo at its smallest, under `folder`."""
    flags = [flag for flag in tiny_flags if not flag.startswith("--config.data.records")]
    flags += [f"--config.data.generate.{name}={value}" for name, value in SMALL_DATA.items()]
    flags += [f"--config.data.generate.{name}={folder / 'data' / name}" for name in ("source", "records")]
    return [*flags, f"--config.data.records={folder / 'data' / 'records'}", f"--workdir={folder / 'runs' / 'demo'}"]


@pytest.fixture(scope="module")
def outputs():
    """What the demo printed, once it was run."""
    return {}


@pytest.fixture
def demo(demo_flags, folder, outputs, compile_cache, request):
    """(stdout, stderr) of the demo, in a process of its own and a folder with nothing in it."""
    if not outputs:
        (folder / "runs").mkdir()
        (folder / "runs" / "compile_cache").symlink_to(compile_cache)
        environment = {**os.environ, "PYTHONPATH": str(request.config.rootpath)}
        command = [sys.executable, "-m", "vspw_jax.main", *demo_flags]
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        outputs["demo"] = ended.stdout, ended.stderr
    return outputs["demo"]


@pytest.fixture
def workdir(demo, folder):
    return folder / "runs" / "demo"


def check_predictions(output, frames, size):
    """Masks are palette images of train ids, overlays and the video show every frame."""
    masks, overlays = sorted((output / "masks").iterdir()), sorted((output / "overlays").iterdir())
    assert [path.stem for path in masks] == [path.stem for path in overlays] and len(masks) == frames
    for path in masks:
        with Image.open(path) as mask:
            assert mask.mode == "P" and mask.size == size
            assert np.asarray(mask).max() < 124
    (film,) = sources.find(output / "overlay.mp4")
    assert film.count == frames == len(list(film.frames())) and not film.complaints
    assert cv2.imread(str(overlays[0])).shape[0] >= 480 // size[1] * size[1]
    assert not list(output.rglob("partial-*"))


def test_the_demo_says_what_it_did(demo, folder):
    output, progress = demo
    for name in ("mIoU", "fwIoU", "pixel accuracy", "VC8", "VC16", "this model", "always"):
        assert name in output
    for name in ("evaluation.json", "comparison.png", "overlay.mp4", "tensorboard"):
        assert name in output
    for stage in ("drawing train", "converting vspw", "training", "evaluating", "predicting"):
        assert stage in progress
    assert "Traceback" not in progress and "Warning" not in progress
    assert sorted(path.name for path in folder.iterdir()) == ["data", "runs"]


def test_the_log_of_training(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        assert line.keys() >= {"loss", "cls", "mask", "dice", "nce", "learning_rate", "images_per_second"}
        assert all(np.isfinite(value) for value in line.values())
    assert list((workdir / "tensorboard").glob("events*"))
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "4", "6"]


def test_the_scores(workdir):
    scores = json.loads((workdir / "evaluation.json").read_text())
    for part in (scores, scores["commonest_class"]):
        for name in ("mIoU", "fwIoU", "pixel_accuracy", "VC8", "VC16"):
            assert 0 <= part[name] <= 1
    assert scores["IoU"] and all(0 <= value <= 1 for value in scores["IoU"].values())
    assert scores["mIoU"] == pytest.approx(np.mean(list(scores["IoU"].values())))
    assert cv2.imread(str(workdir / "comparison.png")).ndim == 3
    assert "VC16_correct" in scores and "TC" in scores and scores["intervals"]["mIoU"][0] <= scores["mIoU"]


def test_the_report_and_the_predictions_that_it_shows(demo_flags, workdir, folder, capsys):
    page = (workdir / "report.html").read_text()
    assert '"name":"demo"' in page and '"command":"python -m vspw_jax.main --config=' in page
    entry, data = workdir / "evaluated" / "val", folder / "data" / "records"
    submission.main([f"--check={entry}", f"--data={data}", "--split=val"])
    assert "is whole" in capsys.readouterr().out


def test_the_first_video_is_predicted(workdir):
    (output,) = (workdir / "predictions").iterdir()
    check_predictions(output, SMALL_DATA["frames"], (64, 48))


def test_the_same_command_again_trains_no_more(command_line, demo_flags, workdir):
    before = {path: path.stat().st_mtime_ns for path in (workdir / "checkpoints").rglob("*")}
    log = (workdir / "metrics.jsonl").read_text()
    scores = json.loads((workdir / "evaluation.json").read_text())
    status, _, errors = command_line(*demo_flags, "--config.run.afterwards=('evaluate',)")
    assert status == 0, errors
    assert {path: path.stat().st_mtime_ns for path in (workdir / "checkpoints").rglob("*")} == before
    assert (workdir / "metrics.jsonl").read_text() == log
    assert json.loads((workdir / "evaluation.json").read_text()) == scores


def logged(workdir):
    """The lines of metrics.jsonl, less what the clock and the process decide."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    of_process = ("images_per_second", "goodput", "compilations")
    return [{name: value for name, value in line.items() if name not in of_process} for line in lines]


def saved_state(config, workdir):
    """All of the newest checkpoint, and its step."""
    optimizer = optimizers.build(config, train_state.describe(config)[1])
    checkpoints = checkpoint.Checkpoints(workdir, keep=3)
    return train_state.restore_state(config, optimizer, checkpoints, make_mesh()), checkpoints.latest_step()


def test_the_same_command_goes_on_where_a_run_ended_too_early(command_line, demo_flags, workdir, tiny_config):
    """Steps 5 and 6 again: what they log and leave is the same, bit for bit."""
    again = workdir.with_name("again")
    shutil.copytree(workdir, again)
    shutil.rmtree(again / "checkpoints" / "6")
    options = ["--config.run.afterwards=()", "--config.run.picture_every=1000"]
    status, _, errors = command_line(*demo_flags, f"--workdir={again}", *options)
    assert status == 0, errors
    assert logged(again) == logged(workdir)
    (left, step), (right, _) = (saved_state(tiny_config, folder) for folder in (again, workdir))
    assert step == left["step"] == 6
    for pair in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(*pair)


def test_evaluating_another_split(command_line, demo_flags, workdir):
    kept = (workdir / "evaluation.json").read_text()
    status, output, errors = command_line(*demo_flags, "--mode=evaluate", "--config.data.eval_split=train")
    assert status == 0, errors
    assert "Split train" in output and "VC16" in output
    assert json.loads((workdir / "evaluation.json").read_text()) != json.loads(kept)


def test_predicting_a_folder_and_a_video_file(command_line, demo_flags, workdir, folder):
    source = next((folder / "data" / "source" / "data").glob("*")) / "origin"
    frames = folder / "some_frames"
    frames.mkdir()
    for path in sorted(source.iterdir())[:5]:
        shutil.copy(path, frames)
    status, output, errors = command_line(*demo_flags, "--mode=predict", f"--input={frames}")
    assert status == 0, errors
    assert str(workdir / "predictions" / "some_frames-6") in output
    check_predictions(workdir / "predictions" / "some_frames-6", 5, (64, 48))

    with video.video_writer(folder / "clip.mp4", 10) as append:
        for path in sorted(frames.iterdir()):
            append(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))
    elsewhere = folder / "elsewhere"
    status, output, errors = command_line(
        *demo_flags, "--mode=predict", f"--input={folder / 'clip.mp4'}", f"--output={elsewhere}"
    )
    assert status == 0, errors
    assert str(elsewhere) in output
    check_predictions(elsewhere, 5, (64, 48))


def test_predicting_with_another_config_is_refused(command_line, demo_flags, workdir):
    status, _, errors = command_line(*demo_flags, "--mode=predict", "--config.model.num_classes=7")
    assert status == 2 and "model.num_classes: 124 there, 7 now" in errors
