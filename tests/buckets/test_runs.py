"""Whole runs in a bucket: killed in the middle of a save, refused for a while; and commands that are refused."""

import os
import re
import subprocess
import sys

import pytest

from benchmarks.buckets import servers
from benchmarks.buckets.runs import Runs
from vspw_jax.buckets import cache
from vspw_jax.buckets.remote_folder import RemoteFolder
from vspw_jax.console import ending


@pytest.fixture(scope="module")
def runs(line, tmp_path_factory):
    kind, found = line
    before = dict(os.environ)
    found.mend()
    yield Runs(kind, found, tmp_path_factory.mktemp("runs"))
    found.mend()
    ending.reached()
    os.environ.clear()
    os.environ.update(before)


def test_a_run_killed_in_the_middle_of_a_save_goes_on_elsewhere_and_ends_with_the_same_weights(runs):
    workdir = f"{runs.bucket}/a run"
    status, _ = runs.start(workdir, kill_before=8, what="checkpoints/15/")
    assert status == -9, runs.output.read_text()[-2000:]
    assert runs.steps(workdir) == ([5, 10], [15])
    figures = RemoteFolder(workdir).read("metrics.jsonl").decode()
    assert '"step": 10' in figures  # What a run shows is there before the checkpoint of that step.
    runs.forget_copies()

    writes = []

    def away_for_a_while(method, path):
        writes.extend(["checkpoints/25/" in path] * ("checkpoints/25/" in path))
        return 503 if len(writes) in (3, 4, 5) else 0

    runs.line.refuse = away_for_a_while
    status, _ = runs.start(workdir)
    assert status == 0, runs.output.read_text()[-2000:]
    assert "Traceback" not in runs.output.read_text()
    assert runs.weights(workdir) == runs.reference and runs.steps(workdir) == ([35, 40], [])
    steps = re.findall(r'"step": (\d+)', RemoteFolder(workdir).read("metrics.jsonl").decode())
    assert list(map(int, steps)) == list(range(1, 41))


def refused(*arguments, cwd, module="vspw_jax.main", **variables):
    """What a command says that ends with status 2, and makes no file."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), cache.VARIABLE: str(cwd / "cache"), **variables}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert {path.name for path in cwd.iterdir()} <= {"cache"}
    return done.stderr


RECIPE = f"--config={os.getcwd()}/configs/upernet.py:demo"


def test_a_bucket_that_is_not_there_ends_a_command_with_status_2(mended, tmp_path):
    address = f"{mended[0]}://no-such-bucket/a run"
    said = refused(RECIPE, f"--workdir={address}", cwd=tmp_path)
    assert f"Listing {address} fails: there is no bucket no-such-bucket" in said


@pytest.mark.parametrize("right", ["read", "write"])
def test_a_right_that_is_lacking_ends_a_command_with_status_2(right, mended, address, tmp_path):
    """Before anything is drawn or compiled."""
    methods = {"read": ("GET", "HEAD"), "write": ("PUT", "POST")}[right]
    mended[1].refuse = lambda method, path: 403 * (method in methods)
    said = refused(RECIPE, f"--workdir={address}", cwd=tmp_path)
    doing = {"read": "Listing", "write": "Writing"}[right]
    assert f"{doing} {address}" in said and "is refused: " in said
    assert "The credentials are not valid, or lack the right to do that" in said


def test_credentials_that_are_missing_end_a_command_with_status_2(mended, address, tmp_path):
    if mended[0] == "gs":
        pytest.skip("Google's emulator asks for none")
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    said = refused(RECIPE, f"--workdir={address}", cwd=tmp_path, **none)
    assert "There are no valid credentials for S3. Set AWS_ACCESS_KEY_ID" in said


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ((RECIPE, "--workdir=az://container/run"), "az://container/run begins with az://: expected a path on a disk"),
        ((RECIPE, "--workdir=gs:/bucket/run"), "is no address in a bucket: expected gs://BUCKET/PATH"),
        ((RECIPE, "--config.data.generate.records=gs://bb/x"), "config.data.generate.records is gs://bb/x: expected a"),
    ],
)
def test_an_address_that_cannot_be_used_is_no_folder_of_that_name(arguments, expected, tmp_path):
    assert expected in refused(*arguments, cwd=tmp_path)


def test_a_command_that_knows_no_buckets_says_so(tmp_path):
    said = refused("--records=gs://bucket/x", cwd=tmp_path, module="benchmarks.input")
    assert "--records=gs://bucket/x: this command takes paths on a disk alone" in said


def test_without_the_package_it_is_named(monkeypatch):
    from vspw_jax.buckets import remote_folder

    monkeypatch.setitem(remote_folder.MODULES, "gs", "no_such_package")
    with pytest.raises(remote_folder.BucketError, match="need no_such_package.* pip install -r\nrequirements|need no_"):
        RemoteFolder("gs://bucket/run")


def test_the_servers_that_tests_need_are_named_where_they_are_missing(monkeypatch):
    monkeypatch.setattr(servers, "PACKAGES", {"s3": ("no_such_package", "json")})
    assert servers.missing("s3") == ["no_such_package"]
