"""Several processes, each with a disk of its own, train, evaluate and predict in one workdir in a bucket."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.conftest import PROGRAM, REPOSITORY, SMALL
from vspw_jax.buckets import cache
from vspw_jax.buckets.remote_folder import RemoteFolder

FIELDS = SMALL | {
    "train.epochs": 0,
    "train.steps": 4,
    "sharding.fsdp": 2,
    "sharding.whole_below": 64,
    "evaluate.batch": 4,
    "run.picture_every": 100,
}
SECONDS = 300
CLOCKED = ("images_per_second", "goodput", "compilations")


def started_twice(workdir, records, tmp_path, *more, **variables):
    """[(status, what it said)] of two processes, each with a cache of its own."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{listener.getsockname()[1]}"
    chosen = {**FIELDS, "data.records": records}
    fields = [f"--config.{name}={value}" for name, value in chosen.items()]
    command = [sys.executable, PROGRAM, "--distributed", "--config=configs/upernet.py:demo", *fields]
    started = []
    for number in range(2):
        environment = (
            os.environ
            | variables
            | {
                "JAX_COORDINATOR_ADDRESS": place,
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(number),
                "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
                "PYTHONPATH": str(REPOSITORY),
                cache.VARIABLE: str(tmp_path / f"cache {number}"),
            }
        )
        options = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY)
        started.append(subprocess.Popen([*command, f"--workdir={workdir}", *more], env=environment, **options))
    try:
        said = [process.communicate(timeout=SECONDS)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


def both_end(ended):
    assert [status for status, _ in ended] == [0, 0], "\n".join(said for _, said in ended)[-4000:]


def figures(remote):
    """The figures of each step of a run, less what the clock decides."""
    lines = [json.loads(line) for line in remote.read("metrics.jsonl").splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCKED} for line in lines]


def masks(remote):
    """The bytes of predicted masks by name."""
    return {name: remote.read(name) for name in remote.objects() if "/masks/" in name and name.endswith(".png")}


def test_two_processes_train_go_on_evaluate_and_predict(address, mended, generated_records, generated_vspw, tmp_path):
    """Of the predicted videos each process sends its own, and what is whole outlives a death."""
    if mended[0] == "gs":
        pytest.skip("what both kinds share is tried with one")
    remote = RemoteFolder(address)
    both_end(started_twice(address, generated_records, tmp_path, "--config.run.afterwards=()"))
    first = figures(remote)
    assert [line["step"] for line in first] == [1, 2, 3, 4]
    remote.remove(["checkpoints/4/manifest.json"])  # As if both had been killed before it was there.
    both_end(started_twice(address, generated_records, tmp_path, "--config.run.afterwards=('evaluate',)"))
    assert figures(remote) == first and "mIoU" in json.loads(remote.read("evaluation.json"))
    assert all(b"steps 3 to 4" in remote.read(f"logs/process_{number}.log") for number in range(2))

    videos, predicted = f"--input={generated_vspw}/data/[5-7]_drawn-*", RemoteFolder(f"{address} predicted")
    predict = ["--mode=predict", videos, f"--output={predicted.address}"]
    _, (status, _) = started_twice(address, generated_records, tmp_path, *predict, STOPPED="predicting:1")
    assert status == -signal.SIGKILL
    left = masks(predicted)
    both_end(started_twice(address, generated_records, tmp_path, *predict))
    whole = masks(predicted)
    assert left and len(whole) == 30 and left.items() < whole.items()
    assert sum("overlay.mp4" in name for name in predicted.objects()) == 3
