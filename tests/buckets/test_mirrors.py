"""Folders in buckets that a program works in."""

import pathlib

import pytest

from vspw_jax.buckets import cache, mirrors
from vspw_jax.buckets import mirror as mirror_module
from vspw_jax.buckets.answers import BucketError
from vspw_jax.buckets.remote_folder import RemoteFolder
from vspw_jax.console import ending, places
from vspw_jax.console.errors import UserError
from vspw_jax.files import ownership
from vspw_jax.files.writable import check_folder

FLAG = "--output=DIR"


@pytest.fixture
def remote(address):
    return RemoteFolder(address)


def names(remote):
    return {name for name in remote.objects() if ".owner/" not in name}


def write(folder, *files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1")


def test_what_was_made_or_changed_is_there_at_the_end_and_what_was_deleted_is_not(remote):
    remote.write("kept.txt", b"old")
    remote.write("gone.txt", b"old")
    mirror = mirrors.opened(remote.address)
    assert (mirror.folder / "kept.txt").read_text() == "old" and mirror.folder.name == "runs"
    with ownership.owned(mirror.folder, FLAG):
        (mirror.folder / "kept.txt").write_text("new")
        (mirror.folder / "gone.txt").unlink()
        write(mirror.folder, "a/b.json", "a/partial")
        (mirror.folder / "partial-x.png").write_text("half")
    assert names(remote) == {"kept.txt", "a/b.json", "a/partial"} and remote.read("kept.txt") == b"new"
    ending.reached()
    assert not mirror.folder.exists()


def test_what_was_not_asked_for_stays_there(remote):
    remote.write("big/x", b"1")
    mirror = mirrors.opened(remote.address, lambda name: "/" not in name)
    with ownership.owned(mirror.folder, FLAG):
        assert not (mirror.folder / "big").exists()
        mirrors.bring(mirror.folder / "big")
        assert (mirror.folder / "big" / "x").read_text() == "1"
    assert names(remote) == {"big/x"}


def test_the_whole_folder_is_brought_to_its_place(remote):
    remote.write("masks/1.png", b"1")
    mirror = mirrors.opened(remote.address, lambda name: False)
    mirrors.bring(mirror.folder)
    assert (mirror.folder / "masks" / "1.png").read_text() == "1"
    mirrors.bring(mirror.folder)


def test_json_files_which_say_what_others_hold_go_last(remote, mended):
    mirror = mirrors.opened(remote.address)
    with ownership.owned(mirror.folder, FLAG):
        write(mirror.folder, "a/1.png", "all.json", "z/2.png")
        mended[1].requests.clear()
    written = [path.split("runs/")[1] for method, path in mended[1].requests if method in ("PUT", "POST")]
    assert set(written[:2]) == {"a/1.png", "z/2.png"} and written[2] == "all.json"


def test_changes_are_sent_now_and_then(remote, monkeypatch):
    monkeypatch.setattr(mirror_module, "PUSH_SECONDS", 0.1)
    mirror = mirrors.opened(remote.address)
    with ownership.owned(mirror.folder, FLAG):
        (mirror.folder / "metrics.jsonl").write_text("1\n")
        while not remote.read("metrics.jsonl"):
            pass
        with (mirror.folder / "metrics.jsonl").open("a") as file:
            file.write("2\n")
        while remote.read("metrics.jsonl") != b"1\n2\n":
            pass


def test_an_error_within_sends_what_was_made(remote):
    mirror = mirrors.opened(remote.address)
    with pytest.raises(KeyboardInterrupt), ownership.owned(mirror.folder, FLAG):
        write(mirror.folder, "masks/1.png")
        raise KeyboardInterrupt
    assert names(remote) == {"masks/1.png"}


def test_a_folder_that_is_lost_is_not_written_to(remote):
    mirror = mirrors.opened(remote.address)
    with pytest.raises(UserError, match="is no longer this program's"), ownership.owned(mirror.folder, FLAG) as owned:
        RemoteFolder(f"{remote.address}/.owner").write("00000009.json", b"{}")
        owned._renewed = 0
        write(mirror.folder, "a.txt")
        mirror.push()
    ending.reached()
    assert names(remote) == set()


def test_a_right_that_is_lacking_is_found_before_the_work(remote, mended):
    mirror = mirrors.opened(remote.address)
    mended[1].refuse = lambda method, path: 403 if method == "DELETE" else 0
    with pytest.raises(BucketError, match="Deleting .* is refused"):
        check_folder(mirror.folder / "masks", FLAG)


def test_what_cannot_be_sent_is_kept_on_this_disk(remote, mended):
    mirror = mirrors.opened(remote.address)
    mirror.begin()
    write(mirror.folder, "masks/1.png")
    mended[1].refuse = lambda method, path: 403
    with pytest.raises(UserError, match="is refused[\\s\\S]*is kept on this disk: .*kept") as told:
        ending.reached()
    kept = pathlib.Path(str(told.value).split("is kept on this disk: ")[1])
    assert (kept / "runs" / "masks" / "1.png").read_text() == "1"


def test_deleting_a_folder_deletes_it_there_too(remote, tmp_path):
    remote.write("evaluated/val/1.png", b"1")
    remote.write("evaluated/value", b"1")
    mirror = mirrors.opened(remote.address, lambda name: False)
    mirrors.delete(mirror.folder / "evaluated" / "val")
    assert names(remote) == {"evaluated/value"}
    mirrors.delete(mirror.folder / "evaluated" / "value")
    assert names(remote) == set()
    (tmp_path / "a").mkdir()
    mirrors.delete(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_file_to_be_written_is_sent_at_the_end(remote):
    path = mirrors.place_of_file(f"{remote.address}/X.pth")
    path.write_text("1")
    assert places.shown(path) == f"{remote.address}/X.pth"
    ending.reached()
    assert names(remote) == {"X.pth"}


def test_what_a_killed_program_left_on_this_disk_is_deleted(remote, monkeypatch):
    mirror = mirrors.opened(remote.address)
    write(mirror.folder, "a.txt")
    for lock in cache._OURS:
        lock.release()  # As a kill does.
    monkeypatch.setattr(cache, "_OURS", [])
    other = mirrors.opened(remote.address)
    assert not mirror.folder.exists() and other.folder.parent.exists()
