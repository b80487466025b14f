"""A disk without room ends with status 2, before anything is written or in the middle of it; what is whole stays."""

import contextlib
import errno
import logging
import pathlib
import subprocess
import types

import jax.numpy as jnp
import numpy as np
import pytest

from data_prep import generate, vspw
from data_prep.conversion import builder, frames
from vspw_jax.checkpoints import checkpoint
from vspw_jax.classes import vspw as vspw_classes
from vspw_jax.data import records
from vspw_jax.evaluation import evaluate
from vspw_jax.files import mask_png
from vspw_jax.inference import prediction_folder, video
from vspw_jax.inference.overlay import Painter
from vspw_jax.observe.observer import Observer

CLASSES = vspw_classes.classes()

FULL = ["no room left on the disk", "Free some space"]


def convert(source, output):
    vspw.main([f"--source={source}", f"--output={output}"])


def test_conversion_looks_for_room_first(program_refused, generated_vspw, tmp_path, fill_up):
    fill_up(1000)
    program_refused(["No room at", "GiB are free"], convert, generated_vspw, tmp_path / "records")
    assert not list(tmp_path.rglob("*array_record*"))


def test_the_disk_fills_up_in_conversion(program_refused, generated_vspw, small_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "check_room", lambda *_: None)
    program_refused(FULL, convert, generated_vspw, small_disk / "records")
    assert not records.exist(small_disk / "records")
    assert not list(small_disk.rglob("*.array_record-00000-of-00001"))


def test_a_write_fails_in_conversion(program_refused, generated_vspw, tmp_path, monkeypatch):
    """The same where no disk can be mounted: the last split's frames cannot be written."""
    read = frames.read_frame

    def fail(source, frame, form):
        if frame.mask is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return read(source, frame, form)

    with monkeypatch.context() as patch:
        patch.setattr(frames, "read_frame", fail)
        program_refused(FULL, convert, generated_vspw, tmp_path / "records")
    assert not records.exist(tmp_path / "records")
    vspw.convert(generated_vspw, tmp_path / "records")
    assert len(records.Frames(tmp_path / "records", "train")) == 50


def test_the_disk_fills_up_in_generation(program_refused, small_disk):
    program_refused(FULL, generate.main, [f"--output={small_disk / 'drawn'}", "--train=9", "--val=1", "--frames=9"])
    assert not (small_disk / "drawn").exists()


def make_state(step):
    weights = jnp.asarray(np.random.default_rng(step).normal(size=(64, 100)), jnp.float32)  # 25 KiB, twice is too much.
    counts = {"step": jnp.asarray(step), "bad_steps": jnp.asarray(0)}
    return {"params": {"a": weights}, "model_state": {}, "opt_state": {}, **counts}


def save_twice(workdir):
    checkpoints = checkpoint.Checkpoints(workdir, keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, make_state(step))
    checkpoints.close()


def test_the_disk_fills_up_in_a_save(program_refused, small_disk, monkeypatch):
    monkeypatch.setattr(checkpoint.Checkpoints, "check_room", lambda *_: None)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler()])  # Programs have one to stderr.
    program_refused(FULL, save_twice, small_disk)
    steps = checkpoint.Checkpoints(small_disk, keep=3)
    newest = steps.latest_step()
    assert newest in (None, 1, 2)
    if newest:
        np.testing.assert_array_equal(steps.restore(make_state(0))["params"]["a"], make_state(newest)["params"]["a"])


def test_a_save_looks_for_room_first(program_refused, tmp_path, fill_up):
    fill_up(20_000)
    program_refused(["No room for checkpoints", "--workdir=DIR"], save_twice, tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_the_disk_fills_up_under_the_curves(program_refused, small_disk):
    """Without waiting for ever."""

    def show():
        with contextlib.closing(Observer(small_disk, 0, 100, 4)) as observer:
            for step in range(1, 100):
                observer.picture(step, "noise", np.random.default_rng(step).integers(0, 256, (64, 64, 3), np.uint8))

    program_refused(FULL, show)


def test_a_disk_that_refuses_writing_is_found_before_the_first_step(program_refused, small_disk):
    (small_disk / "checkpoints").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    program_refused(
        ["checkpoints: Read-only file system", "--workdir=DIR"], checkpoint.Checkpoints, small_disk, 3, True
    )


def test_what_a_disk_refuses_is_a_message(program_refused):
    def refuse():
        raise ValueError("save failed") from PermissionError(errno.EACCES, "Permission denied", "runs/a/metrics.jsonl")

    program_refused(["cannot be used"], refuse)


@pytest.fixture
def writes_fail(monkeypatch):
    """writes_fail(): from here on files are opened, but their names are never reached."""

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    return lambda: monkeypatch.setattr(pathlib.Path, "replace", fail)


class Constant:
    """A predictor of one class."""

    batch, num_classes, top_classes, remembers, classes, are_known = 4, 124, 124, False, CLASSES, True
    options = types.SimpleNamespace(save_scores=False, flow_weight=0.0)

    def identity(self):
        return {}

    def start(self, frames):
        return types.SimpleNamespace(labels=lambda: np.zeros((len(frames), *frames[0].shape[:2]), np.uint8))


def test_scores_are_written_whole_or_not_at_all(program_refused, tiny_config, tmp_path, writes_fail):
    (tmp_path / "evaluation.json").write_text("older\n")
    writes_fail()
    program_refused(FULL, evaluate.evaluate, tiny_config, Constant(), tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["evaluation.json"]
    assert (tmp_path / "evaluation.json").read_text() == "older\n"


def test_predictions_are_written_whole_or_not_at_all(program_refused, tmp_path, writes_fail):
    writes_fail()
    program_refused(FULL, prediction_folder.PredictionFolder, tmp_path / "out", {}, Painter(CLASSES))
    program_refused(FULL, mask_png.save, np.zeros((16, 16), np.uint8), tmp_path / "a.png", CLASSES)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_video_is_written_whole_or_not_at_all(program_refused, small_disk):
    def write():
        with video.video_writer(small_disk / "a.mp4", 15) as append:
            for number in range(60):
                append(np.random.default_rng(number).integers(0, 256, (128, 128, 3), np.uint8))

    program_refused(FULL, write)
    assert list(small_disk.iterdir()) == []
