"""Cityscapes: its layout as folders and as archives, ids to classes, and sequences around the labelled frames."""

import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep import cityscapes
from data_prep.verification import checks
from tests.inputs import frames
from vspw_jax.console.errors import UserError
from vspw_jax.data import records

SIZE = (32, 16)
STEMS = {"train": ["aachen_000000_000019", "bochum_000000_000313"], "val": ["lindau_000001_000019"]}
STEMS["test"] = ["berlin_000000_000019"]
EVERY_ID = np.arange(34, dtype=np.uint8)


def mask(path, values=EVERY_ID):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.resize(np.array(values, np.uint8), SIZE[::-1])).save(path)


@pytest.fixture
def source(tmp_path):
    """Images with fine labels, and other files that are published beside these."""
    for split, stems in STEMS.items():
        for stem in stems:
            city = stem.split("_")[0]
            path = tmp_path / "c" / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            frames.picture(sum(map(ord, city)) % 150, SIZE).save(path)
            folder = tmp_path / "c" / "gtFine" / split / city
            mask(folder / f"{stem}_gtFine_labelIds.png", EVERY_ID if split != "test" else [1])
            mask(folder / f"{stem}_gtFine_instanceIds.png")
            (folder / f"{stem}_gtFine_polygons.json").write_text("{}")
    return tmp_path / "c"


def add_sequences(source, splits=("train",)):
    """Frames from -21 to +12 of each labelled one, each of its own brightness: more than are taken."""
    for split in splits:
        for stem in STEMS[split]:
            city, _, number = stem.split("_")
            folder = source / "leftImg8bit_sequence" / split / city
            folder.mkdir(parents=True, exist_ok=True)
            for frame in range(max(int(number) - 21, 0), int(number) + 13):
                Image.new("RGB", SIZE, (frame % 256, len(city), len(split))).save(
                    folder / f"{stem[:-6]}{frame:06d}_leftImg8bit.png"
                )


def test_ids_become_the_19_classes(source, tmp_path):
    assert cityscapes.convert(source, tmp_path / "records") == []
    train = records.Frames(tmp_path / "records", "train")
    assert [video.name for video in train.videos] == STEMS["train"]
    assert (train.classes.names[0], train.classes.names[18], len(train.classes)) == ("road", "bicycle", 19)
    assert train.classes.file_colours[13] == (0, 0, 142)
    _, label = train.image_and_label(0)
    ids = np.full(34, 255)
    ids[[7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]] = np.arange(19)
    np.testing.assert_array_equal(label, np.resize(ids, SIZE[::-1]))
    assert not records.Frames(tmp_path / "records", "test").has_masks
    findings = checks.verify(tmp_path / "records").findings
    assert not findings.problems and any("2 of 2,975 images" in note for note in findings.notes)


def test_archives_of_their_own_give_the_same_records(source, tmp_path, capsys):
    cityscapes.convert(source, tmp_path / "folder")
    for name, folder in (("images", "leftImg8bit"), ("labels", "gtFine")):
        shutil.copytree(source / folder, tmp_path / name / folder)
        shutil.make_archive(str(tmp_path / name), "zip", tmp_path / name)
    argv = [f"--source={tmp_path / 'images.zip'}", f"--annotations={tmp_path / 'labels.zip'}", "--workers=1"]
    cityscapes.main([*argv, f"--output={tmp_path / 'zips'}"])
    assert "train: 2 videos and single images, 2 frames" in capsys.readouterr().out
    fingerprints = [records.read_metadata(tmp_path / name)["fingerprint"] for name in ("folder", "zips")]
    assert fingerprints[0] == fingerprints[1]


def test_clips_are_around_the_labelled_frame_whatever_its_number(source, tmp_path, capsys):
    add_sequences(source, ("train", "val"))
    shutil.rmtree(source / "gtFine" / "test")
    shutil.rmtree(source / "gtFine" / "val")
    cityscapes.convert(source, tmp_path / "records", clips=True)
    said = "Images are left out, as they belong to no clip of a label in gtFine: 6 of train, 32 of val."
    assert said in capsys.readouterr().err  # Of train 2 after either label's clip, and 2 before that of bochum.
    train = records.Frames(tmp_path / "records", "train")
    assert [(video.name, video.count) for video in train.videos] == [(stem, 30) for stem in STEMS["train"]]
    for video, first in zip(train.videos, (0, 294), strict=True):
        found = [train[video.start + number] for number in range(30)]
        assert [record["frame"] for record in found] == [f"{number:06d}" for number in range(first, first + 30)]
        assert [bool(record["mask_png"]) for record in found] == [number == 19 for number in range(30)]
    label = train.image_and_label(train.videos[1].start + 3)[1]
    assert (label == 255).all() and label.shape == SIZE[::-1]
    assert not checks.verify(tmp_path / "records").findings.problems


def test_images_of_test_need_no_labels_and_of_another_split_are_left_out_with_a_word(source, tmp_path, capsys):
    cityscapes.convert(source, tmp_path / "whole")
    assert "left out" not in capsys.readouterr().err
    for split in ("test", "val"):
        shutil.rmtree(source / "gtFine" / split)
    cityscapes.convert(source, tmp_path / "records")
    assert "are left out, as their splits have no labels in gtFine: 1 of val.\n" in capsys.readouterr().err
    assert set(records.read_metadata(tmp_path / "records")["videos"]) == {"train", "test"}
    assert [video.name for video in records.Frames(tmp_path / "records", "test").videos] == STEMS["test"]


def test_coarse_labels_have_splits_of_their_own(source, tmp_path):
    stem = "nuernberg_000000_000001"
    frames.write(source / "leftImg8bit" / "train_extra" / "nuernberg", [f"{stem}_leftImg8bit.png"], "PNG", SIZE)
    mask(source / "gtCoarse" / "train_extra" / "nuernberg" / f"{stem}_gtCoarse_labelIds.png", [7, 0])
    cityscapes.convert(source, tmp_path / "records", labels="coarse")
    extra = records.Frames(tmp_path / "records", "train_extra")
    assert set(np.unique(extra.image_and_label(0)[1])) == {0, 255}


def test_what_is_wrong_is_said(source, tmp_path):
    add_sequences(source)
    (source / "leftImg8bit_sequence" / "train" / "bochum" / "bochum_000000_000300_leftImg8bit.png").unlink()
    shutil.rmtree(source / "gtFine" / "val")
    shutil.rmtree(source / "gtFine" / "test")
    with pytest.raises(UserError, match=r"bochum_000000_000300_leftImg8bit.png .* is missing"):
        cityscapes.convert(source, tmp_path / "records", clips=True)
    with pytest.raises(
        UserError, match="expected gtCoarse/<split>/<city>/.*, found gtFine, leftImg8bit, .*--annotations"
    ):
        cityscapes.convert(source, tmp_path / "records", labels="coarse")
    with pytest.raises(UserError, match="expected leftImg8bit/<split>/<city>/.*, found train"):
        cityscapes.convert(source / "gtFine", tmp_path / "records", source)
    (source / "gtFine" / "train" / "bochum" / "bochum_000000_000313_gtFine_labelIds.png").unlink()
    with pytest.raises(UserError, match=r"bochum_000000_000313_gtFine_labelIds.png .* is missing"):
        cityscapes.convert(source, tmp_path / "records")
    mask(source / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_labelIds.png", [7, 40])
    with pytest.raises(UserError, match="holds labels that the list of classes does not have: 40"):
        cityscapes.convert(source, tmp_path / "records")
    assert not records.exist(tmp_path / "records")
