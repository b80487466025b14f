"""Ctrl-C and a closed pipe, in programs of their own: one line or none, and the status that shells have for it."""

import importlib
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

from vspw_jax.console import starting

REPOSITORY = str(pathlib.Path(__file__).parents[2])

PROGRAM = """
import sys, time
from vspw_jax.console.errors import UserError, run_program

def waits():
    print("waiting", flush=True)
    time.sleep(60)

def prints(lines):
    print("first", flush=True)
    sys.stdin.readline()  # Until the reader is gone.
    print("line\\n" * lines)

def fails():
    prints(1)
    raise UserError("no such data")

run_program(lambda: {call})
"""


PAUSE = """
import os, sys, time

def pause(event, arguments):
    if event == {event!r} and str(arguments[0]).endswith({name!r}):
        os.write(1, b"paused\\n")
        time.sleep(60)

sys.addaudithook(pause)
"""
"""Python runs it before all else: the program stands still where it imports a module, or opens a file."""


def started(folder, text, *arguments):
    path = folder / "program.py"
    path.write_text(text)
    return popen([sys.executable, path, *arguments], folder)


def popen(command, folder):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = {**os.environ, "PYTHONUNBUFFERED": "", "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


@pytest.fixture(autouse=True)
def interruptible():
    """A test run in the background of a script ignores Ctrl-C, and what it starts would too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(process):
    """(status, stderr) after Ctrl-C, once the program has printed a line."""
    with process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
    return process.returncode, errors


def test_ctrl_c_is_one_line_and_status_130(tmp_path):
    assert interrupted(started(tmp_path, PROGRAM.format(call="waits()"))) == (130, "\nInterrupted.\n")


def test_ctrl_c_while_a_command_is_imported(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("from vspw_jax.console import starting\nstarting.begun()\n")
    (package / "__main__.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = popen([sys.executable, "-m", "package"], tmp_path)
    assert interrupted(process) == (130, "\nInterrupted.\n")


COMMANDS = {
    "metrics": (["vspw_jax.metrics", "--predictions=none", "--data={vspw}"], "val.txt"),
    "verify": (["data_prep.verify", "--records={records}"], "metadata.json"),
    "inspect": (["vspw_jax.main", "--config=configs/nce.py:demo", "--mode=inspect"], "configs/nce.py"),
    "evaluate": (
        ["vspw_jax.main", "--config=configs/nce.py:demo", "--config.data.records={records}", "--mode=evaluate"]
        + ["--workdir={folder}/run"],
        "metadata.json",
    ),
}
"""With their options, and a file that each opens when all is imported."""


@pytest.mark.parametrize(("command", "file"), COMMANDS.values(), ids=COMMANDS.keys())
@pytest.mark.parametrize("moment", ["importing", "reading"])
def test_ctrl_c_early_in_a_command(tmp_path, monkeypatch, generated_vspw, generated_records, command, file, moment):
    monkeypatch.chdir(REPOSITORY)
    event, name = ("import", "numpy") if moment == "importing" else ("open", file)
    (tmp_path / "sitecustomize.py").write_text(PAUSE.format(event=event, name=name))
    options = [option.format(vspw=generated_vspw, records=generated_records, folder=tmp_path) for option in command]
    assert interrupted(popen([sys.executable, "-m", *options], tmp_path)) == (130, "\nInterrupted.\n")


@pytest.mark.parametrize("package", ["vspw_jax", "data_prep", "benchmarks"])
def test_every_package_of_commands_begins_so(package, monkeypatch):
    loaded = importlib.reload(importlib.import_module(package))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "imported, not started"
    monkeypatch.setattr(sys, "argv", ["-m"])
    importlib.reload(loaded)
    assert signal.getsignal(signal.SIGINT) is starting._leave
    starting.over()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    importlib.reload(loaded)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize(
    ("call", "status", "said"),
    [("prints(1)", 141, ""), ("prints(10**6)", 141, ""), ("fails()", 2, "Error: no such data\n")],
    ids=["at the end", "in the middle", "beside an error"],
)
def test_a_pipe_that_nothing_reads_any_more(tmp_path, call, status, said):
    with started(tmp_path, PROGRAM.format(call=call)) as process:
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr.read() == said and process.wait(timeout=30) == status


def test_help_that_nothing_reads():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "vspw_jax.main", "--help"]
    ended = subprocess.run(command, cwd=REPOSITORY, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_another_broken_pipe_is_no_quiet_end(tmp_path):
    text = PROGRAM.format(call="broken()").replace(
        "run_program(",
        textwrap.dedent("""
        def broken():
            raise BrokenPipeError("of a worker")

        run_program("""),
    )
    with started(tmp_path, text) as process:
        _, errors = process.communicate(timeout=30)
    assert "of a worker" in errors and process.returncode == 1
