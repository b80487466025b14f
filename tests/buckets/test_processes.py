"""Several processes, each with a disk of its own, train and evaluate in one workdir in a bucket."""

import json
import os
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


def trained(workdir, records, tmp_path, afterwards):
    """Two processes train there, each with a cache of its own."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{listener.getsockname()[1]}"
    chosen = {**FIELDS, "data.records": records, "run.afterwards": afterwards}
    fields = [f"--config.{name}={value}" for name, value in chosen.items()]
    command = [sys.executable, PROGRAM, "--distributed", "--config=configs/upernet.py:demo", *fields]
    started = []
    for number in range(2):
        environment = os.environ | {
            "JAX_COORDINATOR_ADDRESS": place,
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(number),
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
            "PYTHONPATH": str(REPOSITORY),
            cache.VARIABLE: str(tmp_path / f"cache {number}"),
        }
        options = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY)
        started.append(subprocess.Popen([*command, f"--workdir={workdir}"], env=environment, **options))
    try:
        said = [process.communicate(timeout=SECONDS)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)[-4000:]


def figures(remote):
    """The figures of each step of a run, less what the clock decides."""
    lines = [json.loads(line) for line in remote.read("metrics.jsonl").splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCKED} for line in lines]


def test_two_processes_train_go_on_and_evaluate(address, mended, generated_records, tmp_path):
    if mended[0] == "gs":
        pytest.skip("what both kinds share is tried with one")
    remote = RemoteFolder(address)
    trained(address, generated_records, tmp_path, afterwards=())
    first = figures(remote)
    assert [line["step"] for line in first] == [1, 2, 3, 4]
    remote.remove(["checkpoints/4/manifest.json"])  # As if both had been killed before it was there.
    trained(address, generated_records, tmp_path, afterwards=("evaluate",))
    assert figures(remote) == first and "mIoU" in json.loads(remote.read("evaluation.json"))
    assert all(b"steps 3 to 4" in remote.read(f"logs/process_{number}.log") for number in range(2))
