"""The program's modes in a bucket leave what they leave on a disk, also where the server is away for a while."""

import json
import re
import time

import numpy as np
import pytest
from fsspec.registry import get_filesystem_class

from tests.conftest import SMALL
from tests.interop.conftest import drawn, tiny_upernet
from vspw_jax.buckets import answers, cache
from vspw_jax.buckets.remote_folder import RemoteFolder
from vspw_jax.interop import checkpoint_file, convert

FIELDS = SMALL | {
    "train.epochs": 0,
    "train.steps": 4,
    "evaluate.batch": 4,
    "run.picture_every": 2,
    "run.afterwards": ("evaluate", "predict"),
}
CLOCKED = ("images_per_second", "goodput", "compilations")
AWAY_SECONDS = 1.5


def flags(records, **more):
    fields = {**FIELDS, **more, "data.records": records}
    return ["--config=configs/upernet.py:demo", *(f"--config.{name}={value}" for name, value in fields.items())]


@pytest.fixture
def run(command_line, small_network, compile_cache, tmp_path):
    """run(status, arguments): what the program says, which must end with this status; compiled steps are shared."""

    def run(status, *arguments):
        (tmp_path / "cache").mkdir(exist_ok=True)
        if not (tmp_path / "cache" / "compile_cache").exists():
            (tmp_path / "cache" / "compile_cache").symlink_to(compile_cache)
        found, stdout, stderr = command_line(*arguments)
        assert found == status and "Traceback" not in stderr, stderr[-3000:]
        return stdout + stderr

    return run


def is_of_both(name):
    """Whether a file has the same name on a disk and in a bucket: leases and the parts of a checkpoint have not."""
    return ".owner" not in name and not name.startswith("checkpoints/")


def contents(folder):
    """The files of a folder of this disk by their names."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if is_of_both(name)}


def there(address):
    """The same of a folder in a bucket."""
    remote = RemoteFolder(address)
    return {name: remote.read(name) for name in remote.objects() if is_of_both(name)}


def masks(files):
    return {name: found for name, found in files.items() if name.endswith(".png") and "comparison" not in name}


def figures(files):
    """The figures of each step, less what the clock decides."""
    lines = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCKED} for line in lines]


def stems(files):
    """Names without what is of a time: TensorBoard's files."""
    return {re.sub(r"tfevents.*", "tfevents", name) for name in files}


def upload(folder, address):
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    RemoteFolder(address).upload_all(folder, names)


def away_once(line, part):
    """From the first write on of an object whose name holds `part` no request is answered for a while."""
    until = []

    def watch(method, path):
        if not until and method in ("PUT", "POST") and part in path:
            until.append(time.monotonic() + AWAY_SECONDS)
        line.is_cut = bool(until) and time.monotonic() < until[0]

    line.watch = watch
    return until


def test_all_modes_leave_what_they_leave_on_a_disk(run, mended, address, generated_records, generated_vspw, tmp_path):
    line, disk = mended[1], tmp_path / "disk"
    one_video = sorted((generated_vspw / "data").iterdir())[0]
    predict = ["--mode=predict", f"--input={one_video}", f"--output={disk / 'masks'}"]
    run(0, *flags(generated_records), f"--workdir={disk / 'run'}")
    run(0, *flags(generated_records), f"--workdir={disk / 'run'}", *predict)
    expected, of_video = contents(disk / "run"), contents(disk / "masks")

    upload(generated_records, f"{address}/the records")
    upload(one_video, f"{address}/videos/{one_video.name}")
    recipe = flags(f"{address}/the records")
    was_away = away_once(line, "evaluation.json")
    run(0, *recipe, f"--workdir={address}/run")
    found = there(f"{address}/run")
    assert was_away and stems(found) == stems(expected)
    assert {"evaluation.json", "report.html", "comparison.png"} < found.keys() and any("tfevents" in n for n in found)
    assert masks(found) == masks(expected) and figures(found) == figures(expected)
    assert json.loads(found["evaluation.json"])["counted"] == json.loads(expected["evaluation.json"])["counted"]

    line.mend()
    was_away = away_once(line, "masks/")
    said = run(
        0,
        *recipe,
        f"--workdir={address}/run",
        "--mode=predict",
        f"--input={address}/videos/{one_video.name[:1]}*",
        f"--output={address}/predicted",
    )
    predicted = there(f"{address}/predicted")
    assert was_away and f"{address}/predicted/overlay.mp4" in said and "overlay.mp4" in predicted
    assert masks(predicted) == masks(of_video) and len(masks(of_video)) == 10


def test_weights_are_read_from_a_bucket_and_given_back_to_it(command_line, mended, address, tmp_path):
    convert.save_torch(drawn(tiny_upernet()), tmp_path / "A.pth")
    remote = RemoteFolder(f"{address}/released")
    remote.upload_all(tmp_path, ["A.pth"])
    flags = ["--mode=export", f"--workdir={address}/run", f"--config.init_from={address}/released/A.pth"]
    status, _, stderr = command_line(*flags, f"--output={address}/released/B.safetensors")
    assert status == 0, stderr
    (tmp_path / "B.safetensors").write_bytes(remote.read("B.safetensors"))
    before, after = (checkpoint_file.read(tmp_path / name).tensors for name in ("A.pth", "B.safetensors"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(tensor.read(), after[name].read(), err_msg=name)


@pytest.fixture
def once(mended, monkeypatch):
    """The libraries ask once, so that a server that stays away is found to be so sooner."""
    if mended[0] == "gs":
        pytest.skip("what both kinds share is tried with one")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    kind = get_filesystem_class("s3")
    monkeypatch.setattr(kind, "retries", 1)
    monkeypatch.setattr(answers, "PATIENCE_SECONDS", 1.0)
    kind.clear_instance_cache()
    yield
    kind.clear_instance_cache()


def test_what_could_not_be_sent_is_kept_and_the_same_command_goes_on(run, once, mended, address, generated_records):
    line = mended[1]
    command = [*flags(generated_records, **{"run.afterwards": ()}), f"--workdir={address}"]

    def gone(method, path):
        line.is_cut |= "checkpoints/4/" in path

    line.watch = gone
    said = run(2, *command)
    line.mend()
    (kept,) = (cache.folder() / "kept").glob("*/*")
    assert "has had no answer for 1 s" in said and f"kept on this disk: {kept.parent}" in said
    assert (kept / "checkpoints" / "4" / "manifest.json").is_file()
    steps = [line["step"] for line in figures(there(address))]
    assert steps in ([1, 2], [1, 2, 3, 4]) and "checkpoints/2/manifest.json" in RemoteFolder(address).objects()
    remote = RemoteFolder(address)  # The lease of a process that is still alive: this one.
    remote.remove([name for name in remote.objects() if ".owner/" in name])
    run(0, *command)
    assert [line["step"] for line in figures(there(address))] == [1, 2, 3, 4]
    assert "checkpoints/4/manifest.json" in RemoteFolder(address).objects()
