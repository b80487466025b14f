"""An output that cannot be written ends a command with status 2 before it reads a weight or a frame."""

import types

import pytest

from data_prep import verify
from tests.inputs import workdirs
from vspw_jax import ensemble, submission
from vspw_jax.files import ownership
from vspw_jax.metrics import __main__ as metrics
from vspw_jax.training import trained


@pytest.fixture
def nothing_computed(monkeypatch):
    for name in ("weights", "predictor"):
        monkeypatch.setattr(trained, name, lambda *_: pytest.fail("weights were read"))


@pytest.fixture
def flags(tiny_flags, tmp_path):
    """Of the recipe, with a workdir."""
    return [*tiny_flags, f"--workdir={tmp_path / 'run'}"]


@pytest.mark.parametrize("output", ["file", "file/below"])
def test_an_output_that_is_a_file(refused, flags, nothing_computed, tmp_path, output):
    (tmp_path / "file").write_text("mine")
    output = tmp_path / output
    refused(
        [f"{output} cannot be written", "Not a directory", "--output=DIR"],
        *flags,
        "--mode=predict",
        f"--output={output}",
    )
    assert (tmp_path / "file").read_text() == "mine"


def test_an_export_that_has_no_place(refused, flags, nothing_computed, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "X.pth").mkdir()
    for output, parts in {
        "file/X.pth": ["file cannot be written", "Not a directory"],
        "X.pth": ["X.pth is a folder", "--output="],
        "X.onnx": ["ends in .pth"],
    }.items():
        refused(parts, *flags, "--mode=export", f"--output={tmp_path / output}")


@pytest.mark.parametrize("mode", ["train", "evaluate", "predict"])
def test_a_workdir_that_is_a_file(refused, tiny_flags, nothing_computed, tmp_path, mode):
    (tmp_path / "file").touch()
    refused(
        ["cannot be written", "Not a directory", "DIR"], *tiny_flags, f"--mode={mode}", f"--workdir={tmp_path / 'file'}"
    )


@pytest.mark.parametrize("mode", ["evaluate", "predict"])
def test_a_workdir_on_a_full_disk(refused, tiny_flags, nothing_computed, small_disk, mode):
    (small_disk / "filler").write_bytes(bytes(60 * 1024))
    refused(
        ["cannot be written", "No space left", "DIR"], *tiny_flags, f"--mode={mode}", f"--workdir={small_disk / 'run'}"
    )


@pytest.mark.parametrize("mode", ["train", "evaluate", "predict"])
def test_a_read_only_workdir(refused, tiny_flags, nothing_computed, small_disk, mode):
    workdirs.make_read_only(small_disk)
    refused(["cannot be written", "Read-only", "DIR"], *tiny_flags, f"--mode={mode}", f"--workdir={small_disk / 'run'}")


READERS = {
    "ensemble": (ensemble.main, ["--scores=missing", "--scores=missing"], "--output", "DIR"),
    "verify": (verify.main, ["--records=missing"], "--output", "DIR"),
    "metrics": (metrics.main, ["--predictions=missing", "--data={data}"], "--output", "X.json"),
    "report": (metrics.main, ["--predictions=missing", "--data={data}"], "--report", "X.html"),
    "submission": (submission.main, ["--predictions=missing", "--data={data}"], "--output", "X.zip"),
}
"""Commands that read much before they write: with what, and which flag names a folder or a file to write."""


@pytest.mark.parametrize(("main", "options", "flag", "kind"), READERS.values(), ids=READERS.keys())
def test_a_place_of_another_kind(program_refused, generated_records, tmp_path, main, options, flag, kind):
    """Nothing has been read: what is missing has not been missed."""
    output = tmp_path / kind
    if kind == "DIR":
        output.write_text("mine")
        parts = [f"{output} cannot be written", "Not a directory", "--output=DIR"]
    else:
        output.mkdir()
        parts = [f"{output} is a folder: name a file in it, such as {flag}={output / kind}."]
    options = [option.format(data=generated_records) for option in options]
    program_refused(parts, main, [*options, f"{flag}={output}"])
    assert output.is_dir() or output.read_text() == "mine"


@pytest.mark.parametrize(("main", "options", "flag", "kind"), READERS.values(), ids=READERS.keys())
def test_a_read_only_place(program_refused, generated_records, small_disk, main, options, flag, kind):
    workdirs.make_read_only(small_disk)
    options = [option.format(data=generated_records) for option in options]
    parts = ["cannot be written", "Read-only", f"{flag}={kind}"]
    program_refused(parts, main, [*options, f"{flag}={small_disk / kind}"])


def test_a_second_run_on_a_workdir_is_refused_and_changes_nothing(refused, flags, tmp_path):
    workdir = tmp_path / "run"
    with workdirs.owned_by_a_process(workdir) as process:
        before = {path.name: path.read_bytes() for path in workdir.iterdir()}
        refused([f"{workdir} is in use by process {process.pid} on host", "another --workdir=DIR"], *flags)
        assert before == {path.name: path.read_bytes() for path in workdir.iterdir()}
        assert before.keys() == {ownership.LOCK, ownership.NOTE}


@pytest.mark.parametrize(("mode", "folder"), [("evaluate", "run/evaluated"), ("predict", "out")])
def test_what_another_program_writes_now(refused, flags, tmp_path, monkeypatch, mode, folder):
    """A second evaluation of a workdir, or prediction into a folder, before it predicts a frame."""
    predictor = types.SimpleNamespace(origin={"step": None}, weights={})
    monkeypatch.setattr(trained, "predictor", lambda *_: predictor)
    arguments = [f"--mode={mode}"] + [f"--output={tmp_path / folder}"] * (mode == "predict")
    with workdirs.owned_by_a_process(tmp_path / folder) as process:
        refused([f"{tmp_path / folder} is in use by process {process.pid}", "Wait until it ends"], *flags, *arguments)
        assert {path.name for path in (tmp_path / folder).iterdir()} == {ownership.LOCK, ownership.NOTE}
