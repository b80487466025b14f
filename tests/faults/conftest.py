"""What the fault tests share: programs run in this process, a disk that fills up."""

import shutil
import subprocess

import pytest

from vspw_jax.console.errors import run_program


def assert_one_message(status, output, *parts):
    """Exit status 2 and one message on stderr, without traceback, that holds `parts`."""
    assert status == 2, output
    assert output.count("Error: ") == 1 and "Traceback" not in output, output
    for part in parts:
        assert part in output, f"{part!r} is not in: {output}"


@pytest.fixture
def refused(command_line):
    """refused(parts, *arguments): the program ends with one message that holds the parts, and prints no result."""

    def run(parts, *arguments):
        status, output, errors = command_line(*arguments)
        assert_one_message(status, errors, *parts)
        assert output.strip() == ""

    return run


@pytest.fixture
def program_refused(capfd):
    """program_refused(parts, main, *arguments): the same for a program of data_prep, or any function."""

    def run(parts, main, *arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_program(lambda: main(*arguments))
        assert_one_message(ended.value.code, capfd.readouterr().err, *parts)

    return run


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB, where one may be mounted."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
