"""Pascal VOC with SBD: which images are whose, masks from MATLAB's files, borders of objects as void."""

import io

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from PIL import Image

from data_prep import pascal_voc
from data_prep.conversion import matlab_masks
from data_prep.verification import checks
from tests.inputs import frames
from vspw_jax.classes import published
from vspw_jax.console.errors import UserError
from vspw_jax.data import records

SIZE = (20, 16)
LISTS = {"train": ["2007_000002", "2007_000009"], "val": ["2007_000005"]}
SBD_LISTS = {"train": ["2008_000001", "2007_000005", "2007_000002"], "val": ["2008_000000"]}
"""SBD's train list has an image of VOC's val and one of its train."""


def label(value):
    values = np.zeros(SIZE[::-1], np.uint8)
    values[4:10, 4:12] = value
    return values


def voc_mask(value):
    """Palette indices with a border of 255."""
    values = label(value)
    values[3, 3:13] = 255
    image = Image.fromarray(values)
    image.putpalette(published.label_map("pascal_voc").classes.palette.tobytes())
    return image


def save_mat(path, values, struct="GTcls"):
    path.parent.mkdir(parents=True, exist_ok=True)
    boundaries = np.empty((20, 1), object)  # SBD has a sparse picture for each class there.
    boundaries[:, 0] = [scipy.sparse.csc_array(values == number + 1) for number in range(20)]
    content = {"Boundaries": boundaries, "Segmentation": values, "CategoriesPresent": np.array([[1], [2]], np.uint8)}
    scipy.io.savemat(path, {struct: content}, do_compression=True)


def write_lists(folder, lists):
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n")


@pytest.fixture
def voc(tmp_path):
    """VOC 2012 in the published layout; classes are told by the last digit of an image's number."""
    top = tmp_path / "VOCdevkit" / "VOC2012"
    names = sorted({name for lists in (LISTS, SBD_LISTS) for names in lists.values() for name in names})
    frames.write(top / "JPEGImages", [f"{name}.jpg" for name in names], size=SIZE)
    write_lists(top / "ImageSets" / "Segmentation", LISTS)
    (top / "SegmentationClass").mkdir()
    for name in (*LISTS["train"], *LISTS["val"]):
        voc_mask(int(name[-1])).save(top / "SegmentationClass" / f"{name}.png")
    return tmp_path / "VOCdevkit"


@pytest.fixture
def sbd(tmp_path):
    folder = tmp_path / "benchmark_RELEASE" / "dataset"
    write_lists(folder, SBD_LISTS)
    for name in {name for names in SBD_LISTS.values() for name in names}:
        save_mat(folder / "cls" / f"{name}.mat", label(20))
    return folder.parent


def names_of(path, split):
    return [video.name for video in records.Frames(path, split).videos]


def test_sbd_adds_what_is_in_neither_list_of_voc(voc, sbd, tmp_path, capsys):
    pascal_voc.main([f"--source={voc}", f"--sbd={sbd}", f"--output={tmp_path / 'records'}", "--workers=1"])
    assert "tvmonitor" in capsys.readouterr().out
    train, val = (records.Frames(tmp_path / "records", split) for split in ("train", "val"))
    assert names_of(train.path, "train") == ["2007_000002", "2007_000009", "2008_000000", "2008_000001"]
    assert names_of(train.path, "val") == LISTS["val"]
    assert len(train.classes) == 21 and train.classes.names[0] == "background"
    assert train.classes.file_colours[20] == (0, 64, 128)
    own = train.image_and_label(0)[1]
    assert (own[3, 3:13] == 255).all() and (own[5, 5], own[0, 0]) == (2, 0)  # VOC's mask, not SBD's.
    np.testing.assert_array_equal(train.image_and_label(3)[1], label(20))
    assert val.image_and_label(0)[1][5, 5] == 5
    findings = checks.verify(tmp_path / "records").findings
    assert not findings.problems and any("4 of 10,582 images" in note for note in findings.notes)


def test_plain_voc_with_the_test_list(voc, tmp_path):
    write_lists(voc / "VOC2012" / "ImageSets" / "Segmentation", {"test": ["2008_000001"]})
    pascal_voc.convert(voc / "VOC2012", tmp_path / "records")
    assert names_of(tmp_path / "records", "train") == LISTS["train"]
    assert not records.Frames(tmp_path / "records", "test").has_masks


def test_the_years_folder_may_have_any_name(voc, tmp_path):
    (voc / "VOC2012").rename(voc / "VOC2007")
    pascal_voc.convert(voc, tmp_path / "records")
    assert names_of(tmp_path / "records", "val") == LISTS["val"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda voc, sbd: (voc / "VOC2012" / "ImageSets" / "Segmentation" / "train.txt").unlink(),
            "expected one Image",
        ),
        (
            lambda voc, sbd: (voc / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").unlink(),
            "lacks ImageSets/.*val",
        ),
        (lambda voc, sbd: (sbd / "dataset" / "val.txt").unlink(), "does not look like SBD's benchmark_RELEASE"),
        (
            lambda voc, sbd: (sbd / "dataset" / "cls" / "2008_000000.mat").write_bytes(b"MATLAB"),
            "2008_000000.mat.*cannot be",
        ),
        (lambda voc, sbd: save_mat(sbd / "dataset" / "cls" / "2008_000000.mat", label(1), "GTinst"), "found none"),
        (lambda voc, sbd: save_mat(sbd / "dataset" / "cls" / "2008_000000.mat", label(30)), "does not have: 30"),
        (lambda voc, sbd: save_mat(sbd / "dataset" / "cls" / "2008_000000.mat", label(1)[1:]), "is 20x15 pixels, its"),
        (lambda voc, sbd: (sbd / "dataset" / "cls" / "2008_000000.mat").unlink(), "2008_000000.mat.* is missing"),
    ],
)
def test_what_is_wrong_is_said(change, message, voc, sbd, tmp_path):
    change(voc, sbd)
    with pytest.raises(UserError, match=message):
        pascal_voc.convert(voc, tmp_path / "records", sbd)
    assert not records.exist(tmp_path / "records")


def test_values_of_a_matlab_file_are_kept():
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"GTcls": {"Segmentation": label(7)}}, do_compression=True)
    png = matlab_masks.to_values(buffer.getvalue())
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), label(7))
