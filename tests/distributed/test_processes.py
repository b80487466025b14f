"""Several processes on one machine (jax.distributed, gloo): they train, save, resume and evaluate as one does."""

import functools
import importlib.util
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import upernet
from vspw_jax import evaluate, main, sharding, train
from vspw_jax.models import segmenter

PROGRAM = pathlib.Path(__file__).with_name("program.py")
SECONDS = 240
"""Within which all must have ended: a hang is a failure."""

LIGHT = "--xla_backend_optimization_level=0"

FIELDS = {
    "model.image_size": (32, 32),
    "model.encoder.dim": 16,
    "model.decoder.dim": 16,
    "optimizer.warmup_steps": 0,
    "optimizer.clip_norm": 0.5,
    "train.batch": 8,
    "train.steps": 4,
    "train.accumulate": 2,
    "sharding.fsdp": 2,
    "sharding.whole_below": 64,
    "data.augment.base_size": (64, 48),
    "evaluate.stride": (16, 16),
    "evaluate.batch": 4,
    "run.log_every": 1,
    "run.save_every": 2,
    "run.picture_every": 3,
    "run.afterwards": ("evaluate",),
}


@pytest.fixture(scope="module")
def program():
    """The module that the processes run."""
    spec = importlib.util.spec_from_file_location("program", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:  # It puts its network in the others' place.
        for table in (segmenter.ENCODERS, segmenter.DECODERS):
            for name, value in table.items():
                patch.setitem(table, name, value)
        spec.loader.exec_module(module)
    return module


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def launch(generated_records, compile_cache, request):
    """launch(workdir, processes, *arguments): [(exit status, stdout, stderr)], the devices four in all."""
    fields = {**FIELDS, "data.records": generated_records}
    flags = ["--config=configs/upernet.py:demo", *(f"--config.{name}={value}" for name, value in fields.items())]

    def start(workdir, number, count, port, arguments):
        environment = {**os.environ, "PYTHONPATH": str(request.config.rootpath)}
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={4 // count} {LIGHT}"
        environment |= dict(JAX_NUM_PROCESSES=str(count), JAX_PROCESS_ID=str(number))
        environment["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{port}"
        command = [sys.executable, PROGRAM, "--distributed", *flags, f"--workdir={workdir}", *arguments]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return subprocess.Popen(command, env=environment, cwd=request.config.rootpath, **pipes)

    def launch(workdir, count, *arguments, each=((),) * 4):
        if not (workdir.parent / "compile_cache").exists():
            (workdir.parent / "compile_cache").symlink_to(compile_cache)
        port = free_port()
        processes = [start(workdir, number, count, port, [*arguments, *each[number]]) for number in range(count)]
        try:
            outputs = [process.communicate(timeout=SECONDS) for process in processes]
        finally:
            for process in processes:
                process.kill()
        return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]

    return launch


def metrics(workdir):
    """The lines of metrics.jsonl, less what the clock decides."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name in ("step", "loss", "gradient_norm")} for line in lines
    ]


@pytest.fixture(scope="module")
def two_processes(launch, tmp_path_factory):
    """The workdir of a run on two processes of two devices, and what they said."""
    workdir = tmp_path_factory.mktemp("processes") / "two"
    return workdir, launch(workdir, 2)


@pytest.fixture(scope="module")
def one_process(generated_records, program, tmp_path_factory):
    """The workdir of the same run in this process, on four devices."""
    workdir = tmp_path_factory.mktemp("process")
    config = upernet.get_config("demo")
    config.update_from_flattened_dict({**FIELDS, "data.records": str(generated_records)})
    four = functools.partial(sharding.make_mesh, devices=jax.devices()[:4])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(segmenter.ENCODERS, "beit", program.Encoder)
        patch.setitem(segmenter.DECODERS, "upernet", program.Decoder)
        patch.setattr(sharding, "make_mesh", four)
        train.train(config, workdir)
        evaluate.evaluate(config, main.trained_predictor(config, workdir), workdir)
    return workdir


def test_two_processes_train_as_one_does_and_one_of_them_speaks(two_processes, one_process):
    workdir, ((status, stdout, stderr), (status_of_second, stdout_of_second, stderr_of_second)) = two_processes
    assert status == 0, stderr
    assert status_of_second == 0, stderr_of_second
    assert "mIoU" in stdout and "training" in stderr
    spoken = [line for line in stdout_of_second.splitlines() if not line.startswith("[Gloo]")]
    assert not spoken and "training" not in stderr_of_second
    for left, right in zip(metrics(workdir), metrics(one_process), strict=True):
        assert left == pytest.approx(right, rel=1e-4)


def test_every_frame_is_evaluated_once(two_processes, one_process):
    """Thirty frames of three videos in batches of four, the last of a video of two."""
    left, right = (json.loads((folder / "evaluation.json").read_text()) for folder in (two_processes[0], one_process))
    assert left["commonest_class"] == right["commonest_class"]
    for name in ("mIoU", "fwIoU", "pixel_accuracy"):
        assert left[name] == pytest.approx(right[name], abs=2e-3)


def test_four_processes_go_on_where_two_stopped(launch, two_processes, tmp_path):
    """The steps after the checkpoint are the same again, from parts that lay on other processes' devices."""
    done, workdir = two_processes[0], tmp_path / "four"
    shutil.copytree(done, workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    ended = launch(workdir, 4, "--config.run.afterwards=()")
    assert [status for status, _, _ in ended] == [0] * 4, ended[0][2]
    again, before = metrics(workdir), metrics(done)
    assert [line["step"] for line in again] == [1, 2, 3, 4]
    for left, right in zip(again, before, strict=True):
        assert left == pytest.approx(right, rel=1e-4)
    assert np.isfinite(again[-1]["loss"]) and (workdir / "checkpoints" / "4").is_dir()


def test_one_process_that_fails_ends_the_others(launch, two_processes, tmp_path):
    """The second is given another seed than the workdir's, of which it says so; the first would wait for it."""
    shutil.copytree(two_processes[0], tmp_path / "two")
    (status, _, _), (status_of_second, _, stderr) = launch(tmp_path / "two", 2, each=[[], ["--config.seed=1"]])
    assert status_of_second == 2 and "another config" in stderr and "Traceback" not in stderr
    assert status not in (0, None)
