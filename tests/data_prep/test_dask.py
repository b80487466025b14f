"""Conversions on a Dask cluster of worker processes, one of which is killed in the middle."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from data_prep import vspw
from data_prep.conversion import runners
from vspw_jax.console.errors import UserError

distributed = pytest.importorskip("distributed")
DRAWN_SHARD_BYTES, CAMVID_SHARD_BYTES = 4000, 1 << 20
SECONDS = 60


def wait_until(happened):
    until = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.01)


@contextlib.contextmanager
def program(*arguments):
    command = [sys.executable, "-m", *map(str, arguments)]
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.getcwd()}, **quiet)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def scheduler(tmp_path):
    """The address of a scheduler without workers, on a port that it chooses."""
    file = tmp_path / "scheduler.json"
    own = ["--host=127.0.0.1", "--port=0", "--no-dashboard", f"--scheduler-file={file}"]
    with program("distributed.cli.dask_scheduler", *own):
        wait_until(lambda: file.exists() and file.read_text().endswith("}"))
        yield file


@pytest.fixture
def workers(scheduler, tmp_path):
    """Two processes, which nothing starts again."""
    own = [f"--scheduler-file={scheduler}", "--nthreads=1", "--no-nanny", "--no-dashboard"]
    with contextlib.ExitStack() as stack:
        name = "distributed.cli.dask_worker"
        found = [stack.enter_context(program(name, *own, f"--local-directory={tmp_path / str(n)}")) for n in range(2)]
        with distributed.Client(scheduler_file=str(scheduler)) as client:
            client.wait_for_workers(2, timeout=SECONDS)
        yield found


@pytest.fixture
def options(scheduler):
    return ["--runner=DaskRunner", f"--dask_scheduler_file={scheduler}"]


def digests(folder):
    """Of all files, by their path within the folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("source", ["generated_vspw", "camvid"])
def test_a_worker_that_is_killed_changes_no_byte(source, workers, options, tmp_path, request):
    source = request.getfixturevalue(source)
    size = CAMVID_SHARD_BYTES if source.name.startswith("camvid") else DRAWN_SHARD_BYTES
    vspw.convert(source, tmp_path / "own", shard_bytes=size)
    left = []

    def kill():
        results = lambda: list((tmp_path / "dask").glob("*/incomplete.*/*.json"))
        wait_until(lambda: len(results()) >= 2)
        workers[1].kill()
        left.append(len(results()))

    thread = threading.Thread(target=kill)
    thread.start()
    vspw.convert(source, tmp_path / "dask", beam=runners.pipeline_options(options), shard_bytes=size)
    thread.join()
    assert digests(tmp_path / "dask") == digests(tmp_path / "own")
    assert left[0] < len(list((tmp_path / "own").rglob("*.array_record*"))) and workers[1].poll() is not None


def test_a_bad_frame_is_told_and_the_same_command_goes_on(workers, options, generated_vspw, tmp_path):
    source = shutil.copytree(generated_vspw, tmp_path / "source")
    bad = next(source.glob("data/*/mask/*.png"))
    whole = bad.read_bytes()
    bad.write_bytes(b"junk")
    flags = [f"--source={source}", f"--output={tmp_path / 'out'}", *options]
    with pytest.raises(UserError, match=f"1 bad frame, 0 allowed:\n.*{bad.name}.*cannot be read as a PNG"):
        vspw.main(flags)
    bad.write_bytes(whole)
    vspw.main(flags)
    vspw.convert(source, tmp_path / "own")
    assert digests(tmp_path / "out") == digests(tmp_path / "own")


def test_a_cluster_that_is_not_there_is_told_before_anything_is_written(scheduler, options, generated_vspw, tmp_path):
    flags = [f"--source={generated_vspw}", f"--output={tmp_path / 'out'}", "--runner=DaskRunner"]
    for more, message in (
        (
            ["--dask_client_address=tcp://127.0.0.1:1", "--dask_connection_timeout=1"],
            "no scheduler .*tcp://127.0.0.1:1",
        ),
        (["--dask_client_address=here"], "no scheduler .missing port number.* at here. Start one with dask scheduler"),
        ([f"--dask_scheduler_file={tmp_path / 'none.json'}"], "no scheduler .* at .*none.json"),
        (options[1:], f"no worker at {scheduler}"),
        (["--dask_adress=tcp://127.0.0.1:1"], "Neither the converter nor Beam knows --dask_adress"),
    ):
        with pytest.raises(UserError, match=message):
            vspw.main([*flags, *more])
    assert not (tmp_path / "out").exists()
