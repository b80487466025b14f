"""Copies of what is in a bucket: made once, kept as they are, made again where the objects are others."""

import glob
import re

import pytest

from benchmarks.buckets import servers
from vspw_jax.buckets import cache, fetched
from vspw_jax.buckets.answers import BucketError
from vspw_jax.buckets.remote_folder import RemoteFolder
from vspw_jax.console import places
from vspw_jax.console.errors import UserError


@pytest.fixture
def folder(address):
    """A folder of two videos of two frames."""
    remote = RemoteFolder(address)
    for name in ("a/1.jpg", "a/2.jpg", "b c/1.jpg", "b c/2.jpg"):
        remote.write(name, name.encode())
    return remote


def reads(line):
    """How many objects' bytes were asked for. gcsfs asks for listings too, and may not wait for their answers."""
    of_google, of_amazon = r"/download/storage/.*\?alt=media", rf"/{servers.BUCKET}/.*\.jpg"
    return sum(
        method == "GET" and bool(re.fullmatch(f"{of_google}|{of_amazon}", path)) for method, path in line.requests
    )


def test_a_path_of_a_disk_is_itself(tmp_path):
    assert fetched.path(tmp_path) == tmp_path and fetched.pattern(f"{tmp_path}/*.jpg") == f"{tmp_path}/*.jpg"


def test_a_folder_is_copied_once(folder, mended):
    path = fetched.path(folder.address)
    assert path.name == "runs" and (path / "b c" / "2.jpg").read_text() == "b c/2.jpg"
    first = reads(mended[1])
    fetched.copy_of.cache_clear()  # Another program.
    assert fetched.path(f"{folder.address}/") == path and first == 4 == reads(mended[1])


def test_a_run_reads_what_it_began_with_and_the_next_one_what_is_there(folder):
    path = fetched.path(folder.address)
    folder.write("a/1.jpg", b"overwritten")
    assert fetched.path(folder.address) == path and (path / "a" / "1.jpg").read_text() == "a/1.jpg"
    fetched.copy_of.cache_clear()
    assert (fetched.path(folder.address) / "a" / "1.jpg").read_text() == "overwritten"
    assert (path / "a" / "1.jpg").read_text() == "a/1.jpg"


def test_a_copy_that_was_stopped_goes_on(folder, mended):
    copy = fetched.copy_of(folder.address)
    copy.bring(["a/1.jpg", "a/2.jpg"])
    mended[1].requests.clear()
    copy.bring()
    assert {p.parent.name for p in copy.path.rglob("*.jpg")} == {"a", "b c"}
    assert reads(mended[1]) == 2 and not any("/a/" in path for _, path in mended[1].requests)


def test_one_file_is_copied_under_its_name(folder):
    path = fetched.path(f"{folder.address}/a/1.jpg")
    assert path.name == "1.jpg" and path.read_text() == "a/1.jpg"


def test_what_matches_a_pattern_is_copied(folder):
    found = fetched.pattern(f"{folder.address}/*/2.jpg")
    assert sorted(path.split("runs/")[1] for path in glob.glob(found)) == ["a/2.jpg", "b c/2.jpg"]
    assert sorted(path.split("runs/")[1] for path in glob.glob(fetched.pattern(f"{folder.address}/b*"))) == ["b c"]


def test_nothing_is_a_path_that_is_not_there(folder):
    path = fetched.path(f"{folder.address}/none.mp4")
    assert not path.exists() and places.shown(path) == f"{folder.address}/none.mp4"


def test_a_disk_without_room_is_told_before_the_copy(folder, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("", (), {"free": 3}))
    with pytest.raises(UserError, match=f"No room for a copy of .*{cache.VARIABLE}"):
        fetched.path(folder.address)


@pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg"])
def test_an_object_whose_name_leads_out_of_the_folder_is_refused(address, monkeypatch, name):
    remote = RemoteFolder(address)
    key = f"{remote._root}/{name}"
    monkeypatch.setattr(remote._files, "find", lambda *_, **__: {key: {"type": "file", "size": 1, "ETag": "1"}})
    with pytest.raises(BucketError, match="which no file can be called"):
        fetched.path(address)
