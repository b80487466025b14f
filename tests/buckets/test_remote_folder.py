"""Objects of a bucket, and what its server refuses."""

import pytest

from vspw_jax.buckets.answers import BucketError, Changed
from vspw_jax.buckets.remote_folder import RemoteFolder

NAMES = ["plain.txt", "a b/ü.json", "deep/er/#1?.bin", "[1]*.txt", "100%25.txt"]


@pytest.fixture
def folder(address):
    return RemoteFolder(address)


def test_files_go_there_and_come_back(folder, tmp_path):
    for name in NAMES:
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_bytes(name.encode() * 1000)
    folder.upload_all(tmp_path / "here", NAMES)
    found = folder.objects()
    assert found.keys() == set(NAMES)
    folder.download_all(tmp_path / "back", found)
    assert all((tmp_path / "back" / name).read_bytes() == name.encode() * 1000 for name in NAMES)
    folder.remove([*NAMES, "never there"])
    assert folder.objects() == {}


def test_an_object_is_made_once(folder):
    assert folder.create("lease", b"mine") and not folder.create("lease", b"another's")
    assert folder.read("lease") == b"mine" and folder.read("none") is None


def test_a_folder_beside_of_a_longer_name_is_not_listed(folder):
    RemoteFolder(f"{folder.address}-2").write("x", b"1")
    assert folder.objects() == {}


def test_the_address_of_an_object_lists_it_alone(folder):
    folder.write("a/x.pth", b"1234")
    found = RemoteFolder(f"{folder.address}/a/x.pth").objects()
    assert list(found) == [""] and found[""].size == 4


def test_an_object_that_is_overwritten_is_another(folder, tmp_path):
    folder.write("x", b"old")
    before = folder.objects()
    folder.write("x", b"new")
    assert folder.objects() != before
    with pytest.raises(Changed, match="was overwritten or deleted while it was copied"):
        folder.download_all(tmp_path, before)
    assert list(tmp_path.glob("*x*")) == []


def test_an_object_that_was_deleted_is_told(folder, tmp_path):
    folder.write("x", b"old")
    before = folder.objects()
    folder.remove(["x"])
    with pytest.raises(Changed, match="was overwritten or deleted"):
        folder.download_all(tmp_path, before)


def test_a_bucket_that_is_not_there_is_named(mended):
    folder = RemoteFolder(f"{mended[0]}://no-such-bucket/run")
    for ask in (folder.objects, lambda: folder.write("x", b"1")):
        with pytest.raises(BucketError, match="there is no bucket no-such-bucket"):
            ask()


@pytest.mark.parametrize("status", [401, 403])
def test_a_right_that_is_lacking_is_told_at_once(folder, mended, status):
    mended[1].refuse = lambda method, path: status if method in ("PUT", "POST") else 0
    with pytest.raises(BucketError, match="is refused: .*\n.*credentials"):
        folder.write("x", b"1")
    assert folder.objects() == {}


def test_missing_credentials_are_told(folder, mended, monkeypatch, tmp_path):
    kind, line = mended
    if kind == "gs":  # The emulator asks for none: only the real server tells an anonymous caller.
        line.refuse = lambda method, path: 401
    else:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        type(folder._files).clear_instance_cache()
    with pytest.raises(BucketError, match="credentials"):
        RemoteFolder(folder.address).objects()
    type(folder._files).clear_instance_cache()


def test_a_server_that_comes_back_is_asked_again(folder, mended):
    answers = iter([503, 503])
    mended[1].refuse = lambda method, path: next(answers, 0)
    folder.write("x", b"1")
    assert folder.read("x") == b"1"


def test_a_server_that_stays_away_is_told(folder, mended, capsys):
    if mended[0] == "gs":
        pytest.skip("gcsfs asks for half a minute before it gives up")
    mended[1].is_cut = True
    with pytest.raises(BucketError, match="has had no answer for 5 s"):
        folder.objects()
    assert "has no answer yet" in capsys.readouterr().err
