"""One program owns a folder in a bucket."""

import dataclasses
import json
import subprocess
import sys
import threading

import pytest

from vspw_jax.buckets import lease
from vspw_jax.buckets.lease import BucketLease
from vspw_jax.buckets.remote_folder import RemoteFolder
from vspw_jax.console.errors import UserError
from vspw_jax.files import owner


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.5)
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.3)


def taken(address):
    return BucketLease(address, "--workdir=DIR")


def left_by(address, **fields):
    """A lease that another program has left."""
    someone = dataclasses.replace(owner.this_program("1f"), **fields)
    note = {"owner": dataclasses.asdict(someone), "renewed": 1, "ended": False}
    RemoteFolder(f"{address}/.owner").write("00000003.json", json.dumps(note).encode())


def test_a_folder_has_one_owner_until_it_ends(address):
    first = taken(address)
    with pytest.raises(UserError, match=r"is in use by process \d+ on host .*\n.*\n.*another --workdir=DIR"):
        taken(address)
    first.check()
    first.end()
    second = taken(address)
    assert list(RemoteFolder(f"{address}/.owner").objects()) == ["00000002.json"]
    second.end()


def test_of_two_that_take_it_at_once_one_has_it(address):
    held, refused, ready = [], [], threading.Barrier(4)

    def take():
        ready.wait()
        try:
            held.append(taken(address))
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1 and len(refused) == 3
    held[0].end()


def test_a_killed_program_of_this_machine_owns_nothing(address, capsys):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    left_by(address, pid=process.pid)
    taken(address).end()
    assert "is in use" not in capsys.readouterr().err


def test_a_lease_from_elsewhere_that_is_not_renewed_is_taken_over(address, capsys):
    left_by(address, machine="elsewhere", host="elsewhere")
    taken(address).end()
    assert "is in use by process" in capsys.readouterr().err


def test_a_lease_from_elsewhere_that_is_renewed_is_kept(address, monkeypatch):
    monkeypatch.setattr(owner, "machine", lambda: "here")
    first = taken(address)
    monkeypatch.setattr(owner, "machine", lambda: "there")
    with pytest.raises(UserError, match="is in use by process"):
        taken(address)
    first.end()


def test_a_damaged_note_is_waited_for_and_taken_over(address):
    RemoteFolder(f"{address}/.owner").write("00000001.json", b"{")
    taken(address).end()


def test_who_stood_still_for_too_long_has_lost_it(address, monkeypatch):
    first = taken(address)
    first._ended.set()  # It stands still: nothing is renewed.
    monkeypatch.setattr(owner, "machine", lambda: "there")
    monkeypatch.setattr(first, "_owner", dataclasses.replace(first._owner, machine="here"))
    second = taken(address)
    first._ended.clear()
    with pytest.raises(UserError, match="is no longer this program's"):
        for _ in range(100):
            first._renew()
            first.check()
    second.check()
    first.end()
    second.check()
    second.end()
