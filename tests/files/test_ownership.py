"""A folder has one owner: a second program is told who it is, and one that is gone holds nobody up."""

import os
import re
import threading

import pytest

from tests.inputs import workdirs
from vspw_jax.console.errors import UserError
from vspw_jax.files import ownership


def take(folder, **options):
    with ownership.owned(folder, "--workdir=DIR", **options) as ownership_of_folder:
        return ownership_of_folder


def assert_is_free(folder):
    assert not (folder / ownership.LOCK).exists() and not (folder / ownership.NOTE).exists()


def test_an_owner_leaves_nothing_behind(tmp_path):
    with ownership.owned(tmp_path / "run", "--workdir=DIR") as owned:
        assert (tmp_path / "run" / ownership.LOCK).exists()
        owned.check()
    assert_is_free(tmp_path / "run")


def test_a_second_program_is_told_who_the_first_is_and_harms_it_not(tmp_path):
    with workdirs.owned_by_a_process(tmp_path) as process:
        before = (tmp_path / ownership.LOCK).read_bytes(), (tmp_path / ownership.NOTE).read_bytes()
        for _ in range(2):
            with pytest.raises(UserError) as refused:
                take(tmp_path)
        assert re.match(rf"{tmp_path} is in use by process {process.pid} on host \S+, since 20", str(refused.value))
        assert "python" in str(refused.value).splitlines()[1] and "another --workdir=DIR" in str(refused.value)
        assert before == ((tmp_path / ownership.LOCK).read_bytes(), (tmp_path / ownership.NOTE).read_bytes())
        assert process.poll() is None
        process.communicate(b"")
        assert process.returncode == 0
    assert_is_free(tmp_path)


@pytest.mark.parametrize("end", ["done", "killed"])
def test_a_second_program_that_waits_says_so_once_and_follows_the_first(tmp_path, monkeypatch, capfd, end):
    monkeypatch.setattr(ownership, "POLL_SECONDS", 0.05)
    with workdirs.owned_by_a_process(tmp_path) as process:
        second = threading.Thread(target=take, args=[tmp_path], kwargs={"waits": True})
        second.start()
        second.join(0.5)
        assert second.is_alive() and process.poll() is None
        process.communicate(b"") if end == "done" else process.kill()
        second.join(30)
    assert not second.is_alive()
    assert_is_free(tmp_path)
    said = capfd.readouterr().err
    assert said.count(f"in use by process {process.pid}") == 1 and said.endswith("Waiting until it ends.\n")


def test_a_killed_owner_holds_nobody_up(tmp_path, capfd):
    workdirs.left_by_a_killed_process(tmp_path)
    assert (tmp_path / ownership.LOCK).exists()
    take(tmp_path)
    assert_is_free(tmp_path)
    assert capfd.readouterr().err == ""


def test_a_killed_owner_that_its_parent_has_not_asked_for(tmp_path):
    """As a notebook leaves it: the process number still exists."""
    with workdirs.owned_by_a_process(tmp_path) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        take(tmp_path)
    assert_is_free(tmp_path)


@pytest.fixture
def short_lease(monkeypatch):
    monkeypatch.setattr(ownership, "LEASE_SECONDS", 1.5)
    monkeypatch.setattr(ownership, "BEAT_SECONDS", 0.5)


def test_an_owner_on_another_host_that_renews_its_lease_is_left_alone(tmp_path, short_lease, capfd):
    lock = workdirs.owned_from_another_host(tmp_path)
    renewal = threading.Timer(0.5, os.utime, [lock])
    renewal.start()
    with pytest.raises(UserError, match="in use by process 7 on host elsewhere, since 2026-11-25 10:00:00"):
        take(tmp_path)
    assert "Looking for up to 2 s whether it still runs" in capfd.readouterr().err
    assert "host=elsewhere" in lock.read_text()


def test_an_owner_on_another_host_that_is_silent_is_followed(tmp_path, short_lease):
    workdirs.owned_from_another_host(tmp_path)
    take(tmp_path)
    assert_is_free(tmp_path)


@pytest.mark.parametrize("content", ["", "\0" * 100], ids=["nothing", "zeros"])
def test_what_a_power_cut_left_of_a_lease(tmp_path, short_lease, content):
    (tmp_path / ownership.LOCK).write_text(content)
    take(tmp_path)
    assert_is_free(tmp_path)


def test_an_owner_that_stood_still_for_too_long_writes_no_more(tmp_path, short_lease):
    with ownership.owned(tmp_path, "--workdir=DIR") as owned:
        (tmp_path / ownership.LOCK).unlink()
        lock, note = workdirs.owned_from_another_host(tmp_path), (tmp_path / ownership.NOTE).read_bytes()
        stop = threading.Event()
        while not owned._lease.compromise and not stop.wait(0.1):
            pass
        with pytest.raises(UserError, match="no longer this program's"):
            owned.check()
    assert "host=elsewhere" in lock.read_text() and (tmp_path / ownership.NOTE).read_bytes() == note


def test_a_folder_that_cannot_be_one(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/run cannot be written: .*Not a directory.*--workdir=DIR"):
        take(tmp_path / "file" / "run")
