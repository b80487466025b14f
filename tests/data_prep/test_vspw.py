"""Conversion of VSPW's layout with every kind of dirt that the real set has."""

import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep import vspw
from vspw_jax.data import records
from vspw_jax.errors import UserError


@pytest.fixture
def video(source):
    """The folder of the first training video."""
    return source / "data" / (source / "train.txt").read_text().split()[0]


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-200])


def colours(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)).save(path)


def other_size(path):
    Image.fromarray(np.ones((48, 60), np.uint8)).save(path)


DAMAGE = {
    "empty frame": ("origin/00000003.jpg", lambda path: path.write_bytes(b""), "is empty"),
    "empty mask": ("mask/00000003.png", lambda path: path.write_bytes(b""), "is empty"),
    "missing frame": ("origin/00000003.jpg", lambda path: path.unlink(), "is missing"),
    "missing mask": ("mask/00000003.png", lambda path: path.unlink(), "is missing"),
    "cut-off frame": ("origin/00000003.jpg", cut_off, "cut off"),
    "cut-off mask": ("mask/00000003.png", cut_off, "00000003.png"),
    "no picture": ("origin/00000003.jpg", lambda path: path.write_text("hello"), "cannot identify"),
    "mask in colours": ("mask/00000003.png", colours, "holds colours"),
    "mask of another size": ("mask/00000003.png", other_size, "is 60x48 pixels, its frame 64x48"),
}


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_bad_frame_stops_the_conversion_or_is_left_out(source, video, tmp_path, name, damage, message):
    damage(video / name)
    with pytest.raises(UserError, match=message) as caught:
        vspw.convert(source, tmp_path / "records")
    assert str(video / name) in str(caught.value)
    assert not records.exist(tmp_path / "records")

    (left_out,) = vspw.convert(source, tmp_path / "records", max_bad=1)
    assert name in left_out
    frames = records.Frames(tmp_path / "records", "train")
    kept = [frames[number]["frame"] for number in range(frames.videos[0].count)]
    assert kept == [f"{number:08d}" for number in range(1, 11) if number != 3]
    assert len(frames) == 49


def test_files_that_start_with_a_dot_are_passed_over(source, video, tmp_path):
    (video / "origin" / "._00000001.jpg").write_bytes(b"junk")
    (video / "mask" / "._00000001.png").write_bytes(b"junk")
    assert vspw.convert(source, tmp_path / "records") == []
    assert len(records.Frames(tmp_path / "records", "train")) == 50


def test_frame_numbers_may_start_anywhere_and_have_gaps(source, video, tmp_path):
    for kind, suffix in (("origin", "jpg"), ("mask", "png")):
        for number in range(1, 11):
            (video / kind / f"{number:08d}.{suffix}").rename(video / kind / f"{2058 + 3 * number:08d}.{suffix}")
    vspw.convert(source, tmp_path / "records")
    frames = records.Frames(tmp_path / "records", "train")
    assert [frames[number]["frame"] for number in range(10)] == [f"{2058 + 3 * n:08d}" for n in range(1, 11)]


def test_the_most_classes_of_a_frame_are_recorded(source, video, tmp_path):
    mask = np.arange(48 * 64).reshape(48, 64) % 30
    Image.fromarray(mask.astype(np.uint8)).save(video / "mask" / "00000001.png")
    vspw.convert(source, tmp_path / "records")
    assert records.Frames(tmp_path / "records", "train").max_classes == 29  # 30 ids, of which 0 is void.


def test_converting_again_changes_nothing(source, tmp_path):
    vspw.convert(source, tmp_path / "records")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "records").rglob("*")}
    assert vspw.convert(source, tmp_path / "records") == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "records").rglob("*")} == before


def test_other_data_at_the_output_is_refused(source, generated_records):
    (source / "train.txt").write_text("0_drawn-0\n")
    with pytest.raises(UserError, match="holds records of another source"):
        vspw.convert(source, generated_records)


def test_no_room_is_found_before_writing(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(UserError, match="No room"):
        vspw.convert(source, tmp_path / "records")
    assert not records.exist(tmp_path / "records")


def test_a_folder_that_is_not_vspw_says_what_was_expected(tmp_path):
    with pytest.raises(UserError, match="train.txt.*data/<video>/origin"):
        vspw.convert(tmp_path, tmp_path / "records")
    with pytest.raises(UserError, match="no such folder"):
        vspw.convert(tmp_path / "missing", tmp_path / "records")


def test_a_video_without_a_folder_is_named(source, tmp_path):
    with (source / "val.txt").open("a") as file:
        file.write("999_missing\n")
    with pytest.raises(UserError, match="999_missing"):
        vspw.convert(source, tmp_path / "records")


def test_command_line_prints_what_it_wrote(source, tmp_path, capsys):
    vspw.main([f"--source={source}", f"--output={tmp_path / 'records'}"])
    assert "train: 5 videos, 50 frames" in capsys.readouterr().out
