"""Challenge entries: made the same every time, and checked without unpacking."""

import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.inputs import archives, masks
from vspw_jax import submission
from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError
from vspw_jax.files import mask_png
from vspw_jax.metrics import predictions
from vspw_jax.metrics.truth import open_truth


@pytest.fixture
def predicted(generated_vspw, tmp_path):
    """Predictions of the test split, whose frames have no masks."""
    for video in open_truth(generated_vspw, "test").videos:
        for number, frame in enumerate(video.frames):
            mask_png.save(
                np.full((48, 64), number, np.uint8),
                predictions.path_of(tmp_path / "own", video.name, frame),
                vspw.classes(),
            )
    return tmp_path / "own"


def make(predicted, data, output, *options):
    submission.main([f"--predictions={predicted}", f"--data={data}", f"--output={output}", *options])
    return output


def check(path, data):
    submission.main([f"--check={path}", f"--data={data}"])


def test_a_zip_is_the_same_every_time_and_whole(predicted, generated_vspw, tmp_path, capsys):
    first = make(predicted, generated_vspw, tmp_path / "a.zip").read_bytes()
    shutil.move(predicted, tmp_path / "moved")
    (tmp_path / "moved" / "another_video").mkdir()
    (tmp_path / "moved" / ".DS_Store").touch()
    assert make(tmp_path / "moved", generated_vspw, tmp_path / "b.zip").read_bytes() == first
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        (video,) = open_truth(generated_vspw, "test").videos
        assert archive.namelist() == [f"{video.name}/{frame}.png" for frame in video.frames]
    check(tmp_path / "a.zip", generated_vspw)
    assert "is whole: 1 video, 10 frames" in capsys.readouterr().out


def test_a_folder_is_an_entry_too(predicted, generated_vspw, tmp_path, capsys):
    make(predicted, generated_vspw, tmp_path / "entry")
    check(tmp_path / "entry", generated_vspw)
    shutil.make_archive(tmp_path / "within", "zip", tmp_path, "entry")
    check(tmp_path / "within.zip", generated_vspw)
    assert "in the folder entry/ of it" in capsys.readouterr().out
    with pytest.raises(UserError, match="exists"):
        make(predicted, generated_vspw, tmp_path / "entry")


def test_raw_ids_become_train_ids(predicted, generated_vspw, tmp_path):
    expected = make(predicted, generated_vspw, tmp_path / "a.zip")
    for path in predicted.rglob("*.png"):
        Image.fromarray(vspw.to_raw(np.asarray(Image.open(path)))).save(path)
    found = make(predicted, generated_vspw, tmp_path / "b.zip", "--masks-are=raw_ids")
    ids = [
        [mask_png.decode(archive.read(name)) for name in archive.namelist()]
        for archive in map(zipfile.ZipFile, (expected, found))
    ]
    np.testing.assert_array_equal(*ids)


def test_everything_that_is_wrong_is_listed_at_once(predicted, generated_vspw, tmp_path):
    files = sorted(predicted.rglob("*.png"))
    files[0].unlink()
    Image.open(files[1]).convert("RGB").save(files[1])
    Image.fromarray(np.full((48, 64), 124, np.uint8)).save(files[2])
    Image.fromarray(np.full((40, 64), 1, np.uint8)).save(files[3])
    files[4].write_bytes(b"no picture")
    (predicted / "notes.txt").write_text("hello")
    wanted = (
        f"{files[0].name}: is missing",
        f"{files[1].name}: holds colours",
        f"{files[2].name}: holds 124: expected class ids 0..123. If these are the raw ids",
        f"{files[3].name}: is 64x40 pixels, its frame 64x48",
        f"{files[4].name}: cannot be read as a PNG",
        "notes.txt: is no frame of this split",
    )
    shutil.make_archive(tmp_path / "entry", "zip", predicted)
    for path in (predicted, tmp_path / "entry.zip"):
        with pytest.raises(UserError) as caught:
            check(path, generated_vspw)
        for part in wanted:
            assert part in str(caught.value)
    with pytest.raises(UserError, match="lacks 1 of 10 frames"):
        make(predicted, generated_vspw, tmp_path / "never.zip")
    assert not (tmp_path / "never.zip").exists()


def test_a_zip_with_a_changed_byte_is_named(predicted, generated_vspw, tmp_path):
    path = make(predicted, generated_vspw, tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"00000001\.png: cannot be unpacked"):
        check(path, generated_vspw)


def test_whole_videos_that_are_missing_take_one_line(generated_vspw, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="the whole video is missing, 10 frames"):
        check(tmp_path / "empty", generated_vspw)


def test_a_write_that_fails_leaves_nothing(predicted, generated_vspw, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr(submission.zipfile.ZipFile, "writestr", fail)
    with pytest.raises(OSError):
        make(predicted, generated_vspw, tmp_path / "a.zip")
    monkeypatch.setattr(submission.pathlib.Path, "rename", fail)
    with pytest.raises(OSError):
        make(predicted, generated_vspw, tmp_path / "entry")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--predictions=x"], "go together"),
        (["--check=x", "--output=y"], "go together"),
        (["--check=x", "--masks-are=raw_ids"], "holds train ids"),
        (["--predictions=x", "--output=none/y.zip"], "does not exist"),
        (["--predictions=x", "--output=y.zip"], "no such folder"),
        (["--check=x"], "no such folder or archive"),
    ],
)
def test_wrong_options(generated_vspw, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        submission.main([f"--data={generated_vspw}", *options])


def members(folder, inside=""):
    return [
        (f"{inside}{path.relative_to(folder).as_posix()}", path.read_bytes()) for path in sorted(folder.rglob("*.png"))
    ]


@pytest.mark.parametrize("inside", ["", "entry/"])
def test_a_zip_of_windows_is_read(predicted, generated_vspw, tmp_path, capsys, inside):
    check(archives.windows_zip(tmp_path / "a.zip", members(predicted, inside)), generated_vspw)
    assert "is whole: 1 video, 10 frames" in capsys.readouterr().out
    with pytest.raises(UserError, match="leads out of the archive"):
        check(archives.windows_zip(tmp_path / "b.zip", [*members(predicted), ("../out.png", b"x")]), generated_vspw)


def test_pixels_of_few_bits_are_packed_with_eight(predicted, generated_vspw, tmp_path):
    expected = make(predicted, generated_vspw, tmp_path / "a.zip").read_bytes()
    path = min(predicted.rglob("*.png"))
    path.write_bytes(masks.png(np.zeros((48, 64)), bits=4))
    assert make(predicted, generated_vspw, tmp_path / "b.zip").read_bytes() == expected
    with pytest.raises(
        UserError, match=rf"{path.name}: is not grey of 8 bits or a palette: the devkit would read other"
    ):
        check(predicted, generated_vspw)


def test_a_link_to_nowhere_is_listed(predicted, generated_vspw):
    path = min(predicted.rglob("*.png"))
    path.unlink()
    path.symlink_to("gone.png")
    with pytest.raises(UserError, match=rf"{path.name}: is a link to a file that is not there"):
        check(predicted, generated_vspw)
