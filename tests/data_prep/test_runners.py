"""Runners of Beam: a pool of workers as Flink and Spark start them, and the options of those that are not here."""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("apache_beam")

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.runner import create_runner

from data_prep import vspw
from data_prep.conversion import runners

SECONDS = 60
SHARD_BYTES = 4000
POOL = ["--environment_type=EXTERNAL", "--environment_config=localhost:50000"]
OPTIONS = {
    "FlinkRunner": ["--flink_master=HOST:8081", "--flink_job_server_jar=server.jar", *POOL],
    "SparkRunner": ["--spark_master_url=spark://HOST:7077", "--spark_job_server_jar=server.jar", *POOL],
    "DataflowRunner": [
        *["--project=project-1", "--region=us-west1", "--temp_location=gs://bucket/temp"],
        *["--staging_location=gs://bucket/staging", "--sdk_container_image=image", "--sdk_location=container"],
    ],
}


def complaints(runner, options):
    return PipelineOptionsValidator(PipelineOptions([f"--runner={runner}", *options]), create_runner(runner)).validate()


@pytest.mark.parametrize("runner", OPTIONS)
def test_beam_takes_the_options_that_the_documents_name(runner):
    assert runners.unknown_to_beam([*OPTIONS[runner], "--artifacts_dir=/shared/beam"]) == []
    if runner != "DataflowRunner":  # Of which Beam asks Google's servers about the buckets.
        assert complaints(runner, OPTIONS[runner]) == []


def test_beam_says_what_dataflow_lacks():
    said = " ".join(complaints("DataflowRunner", ["--region=us-west1"]))
    assert all(name in said for name in ("project", "temp_location", "staging_location"))


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def listening(module, option, *more):
    """The port on which a program of Beam's listens within the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    command = [sys.executable, "-m", module, f"{option}={port}", *more]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.getcwd()}, **quiet)
    try:
        until = time.monotonic() + SECONDS
        while not answers(port):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_a_pool_of_workers_leaves_the_same_bytes(generated_vspw, tmp_path):
    vspw.convert(generated_vspw, tmp_path / "own", shard_bytes=SHARD_BYTES)
    with (
        listening("apache_beam.runners.portability.local_job_service_main", "--port") as server,
        listening("apache_beam.runners.worker.worker_pool_main", "--service_port") as pool,
    ):
        options = ["--runner=PortableRunner", f"--job_endpoint=localhost:{server}", "--environment_type=EXTERNAL"]
        beam = runners.pipeline_options([*options, f"--environment_config=localhost:{pool}"])
        vspw.convert(generated_vspw, tmp_path / "pool", beam=beam, shard_bytes=SHARD_BYTES)
    assert digests(tmp_path / "pool") == digests(tmp_path / "own")
