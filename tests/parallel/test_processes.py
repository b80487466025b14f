"""Several processes on one machine (jax.distributed, gloo): they train, save, resume and evaluate as one does."""

import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from configs import upernet
from tests.conftest import SMALL
from vspw_jax import main
from vspw_jax.console.errors import UserError
from vspw_jax.evaluation import evaluate
from vspw_jax.inference import scores
from vspw_jax.models import segmenter
from vspw_jax.parallel import processes
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import loop, train_state, trained

PROGRAM = pathlib.Path(__file__).with_name("program.py")
SECONDS = 240
"""Within which all must have ended: a hang is a failure."""

FIELDS = SMALL | {
    "optimizer.clip_norm": 0.5,
    "train.steps": 4,
    "train.accumulate": 2,
    "sharding.fsdp": 2,
    "sharding.whole_below": 64,
    "evaluate.batch": 4,
    "run.picture_every": 3,
    "run.afterwards": ("evaluate", "predict"),
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def flags(generated_records):
    fields = {**FIELDS, "data.records": generated_records}
    return ["--config=configs/upernet.py:demo", *(f"--config.{name}={value}" for name, value in fields.items())]


@pytest.fixture(scope="module")
def start(compile_cache, request):
    """start(workdir, command, devices, **environment): a process, beside whose workdir is the session's cache."""

    def start(workdir, command, devices, **environment):
        if not (workdir.parent / "compile_cache").exists():
            (workdir.parent / "compile_cache").symlink_to(compile_cache)
        environment |= dict(PYTHONPATH=str(request.config.rootpath))
        environment["XLA_FLAGS"] = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        return subprocess.Popen(command, env=os.environ | environment, cwd=request.config.rootpath, **pipes)

    return start


def ended(started):
    """[(exit status, stdout, stderr)] of started, which and whose children are gone then."""
    try:
        outputs = [process.communicate(timeout=SECONDS) for process in started]
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return [(process.returncode, *output) for process, output in zip(started, outputs, strict=True)]


@pytest.fixture(scope="module")
def launch(start, flags):
    """launch(workdir, processes, each): what they say and how they end; `each` has more arguments for every one."""

    def launch(workdir, count, each, **environment):
        address = f"127.0.0.1:{free_port()}"
        started = []
        for number, arguments in enumerate(each):
            place = dict(JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES=str(count), JAX_PROCESS_ID=str(number))
            command = [sys.executable, PROGRAM, "--distributed", *flags, f"--workdir={workdir}", *arguments]
            started.append(start(workdir, command, 4 // count, **place, **environment))
        return ended(started)

    return launch


def masks_in(folder):
    """By video and frame the masks of a folder of predictions, as bytes."""
    found = {place.name: sorted((place / "masks").glob("*.png")) for place in folder.iterdir()}
    return {name: {path.name: path.read_bytes() for path in paths} for name, paths in found.items()}


def metrics(workdir):
    """The lines of metrics.jsonl, less what the clock decides."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name in ("step", "loss", "gradient_norm")} for line in lines
    ]


@pytest.fixture(scope="module")
def two_processes(start, flags, tmp_path_factory):
    """The workdir of a run on two processes of two devices, by the launcher for one machine, and what it said."""
    folder = tmp_path_factory.mktemp("processes")
    python = folder / "python"  # Takes the program with the small network for the real one.
    python.write_text(f'#!/bin/sh\nshift 2\nexec "{sys.executable}" "{PROGRAM}" "$@"\n')
    python.chmod(0o755)
    options = ["--processes=2", "--platform=cpu", f"--port={free_port()}", f"--python={python}"]
    command = ["launch/local.sh", *options, "--", *flags, f"--workdir={folder / 'two'}"]
    return folder / "two", *ended([start(folder / "two", command, devices=2)])


@pytest.fixture(scope="module")
def one_process(generated_records, program, tmp_path_factory):
    """The workdir of the same run in this process, on four devices."""
    workdir = tmp_path_factory.mktemp("process")
    config = upernet.get_config("demo")
    config.update_from_flattened_dict({**FIELDS, "data.records": str(generated_records)})
    four = functools.partial(make_mesh, devices=jax.devices()[:4])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(segmenter.ENCODERS, "beit", program.Encoder)
        patch.setitem(segmenter.DECODERS, "upernet", program.Decoder)
        for module in (train_state, trained):
            patch.setattr(module, "make_mesh", four)
        loop.train(config, workdir)
        evaluate.evaluate(config, trained.predictor(config, workdir), workdir)
    return workdir


def test_two_processes_train_as_one_does_and_one_of_them_speaks(two_processes, one_process):
    workdir, (status, stdout, stderr) = two_processes
    assert status == 0, stderr
    assert "A video is predicted by one process: 1 of them have none." in stdout
    ((folder, masks),) = masks_in(workdir / "predictions").items()
    assert len(masks) == 10 and folder in stdout and stdout.count("Predicted video: ") == 1
    assert "mIoU" in stdout and stdout.count("All scores: ") == 1
    opened = [line for line in stderr.splitlines() if "training:   0%" in line and "compiling" not in line]
    assert len(opened) == 1  # Later lines may come twice where the machine is slow.
    for left, right in zip(metrics(workdir), metrics(one_process), strict=True):
        assert left == pytest.approx(right, rel=1e-4)


def test_every_frame_is_evaluated_once(two_processes, one_process):
    """Thirty frames of three videos: one process has two of them, the other one."""
    left, right = (json.loads((folder / "evaluation.json").read_text()) for folder in (two_processes[0], one_process))
    assert left["counted"] == right["counted"] and "report.html" in os.listdir(two_processes[0])
    assert left["commonest_class"] == right["commonest_class"]
    for name in ("mIoU", "fwIoU", "pixel_accuracy", "TC"):
        assert left[name] == pytest.approx(right[name], abs=2e-3)


def test_four_processes_go_on_where_two_stopped(launch, two_processes, tmp_path):
    """The steps after the checkpoint are the same again, from parts that lay on other processes' devices.

    Of the three videos the last process has none to evaluate.
    """
    done, workdir = two_processes[0], tmp_path / "four"
    shutil.copytree(done, workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    shutil.rmtree(workdir / "predictions")  # They have no scores.
    four = launch(workdir, 4, [["--config.evaluate.save_scores=True"]] * 4)
    assert [status for status, _, _ in four] == [0] * 4, four[0][2]
    again, before = metrics(workdir), metrics(done)
    assert [line["step"] for line in again] == [1, 2, 3, 4]
    for left, right in zip(again, before, strict=True):
        assert left == pytest.approx(right, rel=1e-4)
    assert np.isfinite(again[-1]["loss"]) and (workdir / "checkpoints" / "4").is_dir()
    left, right = (json.loads((folder / "evaluation.json").read_text()) for folder in (workdir, done))
    assert left["counted"] == right["counted"] and left["TC"] == pytest.approx(right["TC"], abs=2e-3)
    reader = scores.Reader(workdir / "scores" / "val")
    predicted = workdir / "evaluated" / "val"
    assert list(reader.videos) == sorted(os.listdir(predicted)) and len(reader.videos) == 3
    for video, frames in reader.videos.items():
        for frame in frames:
            score_HWK = reader.frame(video, frame).values  # In half precision, where several are the best.
            label_HW1 = np.asarray(Image.open(predicted / video / f"{frame}.png"))[..., None].astype(int)
            best_HW1 = score_HWK.max(axis=-1, keepdims=True)
            np.testing.assert_array_equal(np.take_along_axis(score_HWK, label_HW1, axis=-1), best_HW1)


def test_all_stop_where_one_is_asked_to_and_go_on_as_if_they_had_not(launch, two_processes, tmp_path):
    stopped = launch(tmp_path / "two", 2, [["--stopped_status=75"]] * 2, STOPPED="training:1")
    assert [status for status, _, _ in stopped] == [75, 75], stopped[0][2]
    step = int(re.search(r"Stopped after step (\d) of 4, saved in .* To go on: ", stopped[0][1])[1])
    assert str(step) in os.listdir(tmp_path / "two" / "checkpoints") and 0 < step < 4
    assert [status for status, _, _ in launch(tmp_path / "two", 2, [[], []])] == [0, 0]
    assert metrics(tmp_path / "two") == metrics(two_processes[0])
    left, right = ((folder / "evaluation.json").read_text() for folder in (tmp_path / "two", two_processes[0]))
    assert left == right


def test_stopped_while_they_evaluate(launch, two_processes, tmp_path):
    shutil.copytree(two_processes[0], tmp_path / "two")
    stopped = launch(tmp_path / "two", 2, [[], []], STOPPED="evaluating:0,evaluating:1")
    assert [status for status, _, _ in stopped] == [0, 0], stopped[0][2]
    assert "Stopped in --mode=evaluate, all of training saved in" in stopped[0][1]


def test_one_process_that_fails_ends_the_others(launch, two_processes, tmp_path):
    """The second is given another seed than the workdir's, of which it says so; the first would wait for it."""
    shutil.copytree(two_processes[0], tmp_path / "two")
    (status, _, _), (status_of_second, _, stderr) = launch(tmp_path / "two", 2, [[], ["--config.seed=1"]])
    assert status_of_second == 2 and "another config" in stderr and "Traceback" not in stderr
    assert status not in (0, None)


def test_videos_are_shared_and_what_is_whole_outlives_a_death(launch, two_processes, generated_vspw, tmp_path):
    """Of three videos process 1 has one, and is killed in it; four processes go on with what both left.

    The network remembers: a video's masks are those of one process, whoever predicted it.
    """

    def predict(count, output, **environment):
        more = ["--mode=predict", f"--input={generated_vspw}/data/[5-7]_drawn-*", f"--output={tmp_path / output}"]
        return launch(two_processes[0], count, [more] * count, REMEMBERS="yes", **environment)

    assert [status for status, _, _ in predict(1, "one")] == [0]
    (status, _, _), (killed, _, _) = predict(2, "shared", STOPPED="predicting:1")
    assert killed == -signal.SIGKILL and status not in (0, None)
    whole, left = (masks_in(tmp_path / name) for name in ("one", "shared"))
    assert all(mask == whole[video][frame] for video, frames in left.items() for frame, mask in frames.items())
    assert [len(whole[video]) for video in sorted(whole)] == [10, 10, 10]
    assert sorted(map(len, left.values()))[1:] == [10, 10]
    (_, stdout, stderr), *others = predict(4, "shared")
    assert [status for status, _, _ in others] == [0] * 3, stderr
    assert masks_in(tmp_path / "shared") == whole and all(
        (tmp_path / "shared" / v / "overlay.mp4").exists() for v in whole
    )
    assert stdout.count("Predicted video: ") == 3 and stdout.count("every frame had been predicted before") == 2


def test_a_video_that_is_evaluated_keeps_its_memory_to_itself(launch, two_processes, tmp_path):
    """Masks and scores of a network that remembers are those of one process."""
    for count in (1, 2):
        shutil.copytree(two_processes[0], tmp_path / str(count))
        ended = launch(tmp_path / str(count), count, [["--mode=evaluate"]] * count, REMEMBERS="yes")
        assert [status for status, _, _ in ended] == [0] * count, ended[0][2]
    one, two, forgetful = (
        {path.relative_to(folder): path.read_bytes() for path in sorted((folder / "evaluated").rglob("*.png"))}
        for folder in (tmp_path / "1", tmp_path / "2", two_processes[0])
    )
    assert len(one) == 30 and one == two != forgetful
    left, right = ((tmp_path / name / "evaluation.json").read_text() for name in "12")
    assert left == right


def test_processes_that_see_different_videos_are_told(launch, two_processes, generated_vspw, tmp_path):
    videos = sorted(path for path in (generated_vspw / "data").iterdir())[:2]
    each = [["--mode=predict", f"--input={video}", f"--output={tmp_path / 'out'}"] for video in videos]
    for status, _, stderr in launch(two_processes[0], 2, each):
        assert status == 2 and "Traceback" not in stderr
        assert (
            f"Processes 0 and 1 see different videos in --input: {videos[0].name}, {videos[1].name}. Expected" in stderr
        )
    assert not (tmp_path / "out" / "masks").exists()


def test_outside_of_training_a_process_that_is_asked_to_end_ends(launch, two_processes, tmp_path):
    shutil.copytree(two_processes[0], tmp_path / "two")
    ended = launch(tmp_path / "two", 2, [["--mode=evaluate"]] * 2, STOPPED="evaluating:1")
    assert ended[1][0] == -signal.SIGTERM and ended[0][0] not in (0, None)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"JAX_COORDINATOR_ADDRESS": "localhost:1"},
            "found JAX_COORDINATOR_ADDRESS .* not JAX_NUM_PROCESSES, JAX_PROC",
        ),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "but not JAX_COORDINATOR_ADDRESS"),
        ({"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"}, "'two'"),
        ({}, "coordinator_address.*\nSLURM, Open MPI and TPU pods need nothing more. Elsewhere set JAX_COORDINATOR"),
    ],
)
def test_a_process_that_cannot_tell_who_it_is_says_what_is_missing(monkeypatch, variables, message):
    def initialize(**given):
        assert not given.keys() - {"initialization_timeout", "heartbeat_timeout_seconds"}
        raise ValueError("coordinator_address should be defined.")

    for name in processes.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match=message):
        processes.join(stops_together=True)


@pytest.mark.parametrize("mode", ["export", "inspect"])
def test_what_one_process_does_is_refused_to_several(mode):
    with pytest.raises(UserError, match=f"--mode={mode} .*without --distributed"):
        main.check_shared(mode)
