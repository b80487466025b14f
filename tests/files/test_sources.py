"""Archives are read file by file and never extracted; one that could do harm is refused before anything is read."""

import io
import pickle
import tarfile
import zipfile

import pytest

from vspw_jax.console.errors import UserError
from vspw_jax.files import sources


def make_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def make_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


MAKE = pytest.mark.parametrize("make", [make_zip, make_tar])
GOOD = [("VSPW/train.txt", b"0_a\n"), ("VSPW/.DS_Store", b"junk"), ("VSPW/data/0_a/origin/1.jpg", b"jpeg")]


@MAKE
def test_members_are_read_and_hidden_ones_passed_over(tmp_path, make):
    source = sources.open_source(make(tmp_path / "archive", GOOD))
    assert source.sizes == {"VSPW/train.txt": 4, "VSPW/data/0_a/origin/1.jpg": 4}
    part = pickle.loads(pickle.dumps(source.only(["VSPW/data/0_a/origin/1.jpg"])))
    assert list(part.sizes) == ["VSPW/data/0_a/origin/1.jpg"] and part.read("VSPW/data/0_a/origin/1.jpg") == b"jpeg"
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


BAD_NAMES = ["/etc/passwd", "../outside", "VSPW/../../outside", "VSPW/a\\..\\b", "C:/windows", "VSPW//a"]


@MAKE
@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lead_out_are_refused(tmp_path, make, name):
    with pytest.raises(UserError, match="leads out of the archive"):
        sources.open_source(make(tmp_path / "archive", [*GOOD, (name, b"x")]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@MAKE
@pytest.mark.parametrize("name", ["VSPW/train.txt", "./VSPW/train.txt"])
def test_a_name_twice_is_refused(tmp_path, make, name):
    with pytest.raises(UserError, match="in the archive twice"):
        sources.open_source(make(tmp_path / "archive", [*GOOD, (name, b"other")]))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("VSPW/data")
        member.type, member.linkname = kind, "/etc"
        archive.addfile(member)
    with pytest.raises(UserError, match="link or device"):
        sources.open_source(tmp_path / "a.tar")


def test_a_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("VSPW/data")
    link.external_attr = 0o120777 << 16
    with pytest.raises(UserError, match="is a link"):
        sources.open_source(make_zip(tmp_path / "a.zip", [(link, b"/etc")]))


def test_size_bombs_are_refused(tmp_path, monkeypatch):
    bomb = make_zip(tmp_path / "a.zip", [("a.png", bytes(10_000_000))], zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="would grow from .* to 10000000 bytes"):
        sources.open_source(bomb)
    monkeypatch.setattr(sources, "MAX_BYTES", 1000)
    for make in (make_zip, make_tar):
        with pytest.raises(UserError, match="1001 bytes, more than any image"):
            sources.open_source(make(tmp_path / make.__name__, [("a.png", bytes(1001))]))


def test_a_member_that_lies_about_its_size_is_not_read_beyond_it(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("a.png", b"x" * 5000)], zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    path.write_bytes(data.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    source = sources.open_source(path)
    with pytest.raises(UserError, match="cannot be unpacked"):
        source.read("a.png")


def test_what_cannot_be_read_file_by_file_is_refused(tmp_path):
    packed = make_tar(tmp_path / "a.tar.gz", GOOD, "w:gz")
    with pytest.raises(UserError, match="compressed as a whole.*gunzip"):
        sources.open_source(packed)
    whole = make_tar(tmp_path / "a.tar", [("a.jpg", b"x" * 5000)]).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:3000])
    with pytest.raises(UserError, match="cut off or damaged|nor a whole tar"):
        sources.open_source(tmp_path / "cut.tar")
    archive = make_zip(tmp_path / "a.zip", GOOD)
    (tmp_path / "cut.zip").write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"cut.zip"):
        sources.open_source(tmp_path / "cut.zip")
    with pytest.raises(UserError, match="no such folder or archive"):
        sources.open_source(tmp_path / "nowhere")


def test_a_link_to_a_folder_above_does_not_go_round(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").write_bytes(b"x")
    (tmp_path / "data" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert sources.open_source(tmp_path).sizes["data/a.jpg"] == 1
