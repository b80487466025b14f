"""A user's own images and videos with their own classes: layouts, lists of classes, masks of ids and of colours."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from data_prep import folder
from data_prep.conversion import class_files
from data_prep.verification import checks
from vspw_jax.console.errors import UserError
from vspw_jax.data import mixture, records

ROAD, CAR, SKY = (90, 60, 90), (0, 0, 200), (120, 205, 255)
ROWS = ({"name": "road", "id": 7, "colour": "#5a3c5a"}, {"name": "car", "id": 26, "colour": "#0000c8"})
LABEL = np.zeros((12, 16), np.uint8)
LABEL[:4], LABEL[4:8, 8:] = 255, 1
"""Void above, road, and a car to the right."""


def id_mask(values=(7, 26), void=0):
    return Image.fromarray(np.choose(LABEL.clip(max=2), (*values, void)).astype(np.uint8))


def colour_mask(void=(0, 0, 0)):
    return Image.fromarray(np.array([ROAD, CAR, void], np.uint8)[LABEL.clip(max=2)])


def palette_mask():
    """Indices 0 to 2, as a drawing program writes them: the colours tell the class."""
    image = Image.fromarray(LABEL.clip(max=2).astype(np.uint8))
    image.putpalette(bytes((*ROAD, *CAR, 0, 0, 0)))
    return image


def write(source, layout, mask):
    """Files of a layout: names below images/, whose masks are the same below masks/."""
    for number, name in enumerate(layout):
        for kind, image in (("images", Image.new("RGB", (16, 12), (number, 0, 0))), ("masks", mask)):
            path = source / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path.with_suffix(".jpg" if kind == "images" else ".png"))
    return source


def class_list(path, rows=ROWS):
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)
    return path


@pytest.fixture
def classes(tmp_path):
    return class_list(tmp_path / "classes.csv")


SPLIT = ("train/drive/2", "train/drive/10", "train/a", "val/b")


@pytest.mark.parametrize(
    ("mask", "void", "said"),
    [
        (id_mask(), ("0",), "Masks hold ids."),
        (colour_mask(), ("#000000",), "Masks hold colours."),
        (palette_mask(), ("#000000",), "Masks hold colours, in a palette."),
    ],
    ids=["ids", "colours", "palette"],
)
def test_videos_and_images_get_the_labels_of_their_masks(tmp_path, classes, capsys, mask, void, said):
    source, output = write(tmp_path / "mine", SPLIT, mask), tmp_path / "records"
    folder.convert(source, classes, output, void=void)
    assert said in capsys.readouterr().out.splitlines()
    frames = records.Frames(output, "train")
    assert [(video.name, video.count) for video in frames.videos] == [("a", 1), ("drive", 2)]
    assert [frames[number]["frame"] for number in range(3)] == ["a", "2", "10"]
    np.testing.assert_array_equal(frames.image_and_label(1)[1], LABEL)
    assert frames.classes.names == ("road", "car") and frames.classes.colours == (ROAD, CAR)
    assert (frames.max_classes, frames.highest_class) == (2, 1)
    assert checks.verify(output).findings.problems == []


def test_vspws_layout_is_taken_with_other_classes(tmp_path, classes):
    for split, video in (("train", "one"), ("val", "two")):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{split}.txt").write_text(video)
        for kind, image in (("origin", Image.new("RGB", (16, 12))), ("mask", id_mask())):
            path = tmp_path / "mine" / "data" / video / kind / "1"
            path.parent.mkdir(parents=True)
            image.save(path.with_suffix(".jpg" if kind == "origin" else ".png"))
    folder.convert(tmp_path / "mine", classes, tmp_path / "records", void=["0"])
    frames = records.Frames(tmp_path / "records", "val")
    np.testing.assert_array_equal(frames.image_and_label(0)[1], LABEL)


def names(splits):
    return {split: sorted({frame.video for frame in frames}) for split, frames in splits.items()}


def test_lists_say_the_splits_and_a_drawing_where_there_are_none(tmp_path):
    source = write(tmp_path / "mine", [f"v{number}/1" for number in range(6)] + ["single"], id_mask())
    drawn = names(folder.read_splits(folder.open_source(source), val_share=0.3))
    assert len(drawn["val"]) == 2 and sorted(drawn["val"] + drawn["train"]) == ["single", *(f"v{n}" for n in range(6))]
    assert names(folder.read_splits(folder.open_source(source), val_share=0.3)) == drawn
    assert names(folder.read_splits(folder.open_source(source), val_share=0.3, seed=1)) != drawn
    (source / "train.txt").write_text("v0\nv5\n")
    (source / "val.txt").write_text("single.jpg\n")
    listed = folder.read_splits(folder.open_source(source))
    assert names(listed) == {"train": ["v0", "v5"], "val": ["single"]}
    assert all(frame.mask for frames in listed.values() for frame in frames)
    (source / "val.txt").write_text("nothing\n")
    with pytest.raises(UserError, match=r"val.txt names nothing, which images/ does not hold"):
        folder.read_splits(folder.open_source(source))


def test_files_of_a_folder_may_be_single_images(tmp_path):
    source = write(tmp_path / "mine", ("train/city/a", "train/city/b", "val/town/a"), id_mask())
    splits = folder.read_splits(folder.open_source(source), single_images=True)
    assert names(splits) == {"train": ["city-a", "city-b"], "val": ["town-a"]}


def test_masks_may_have_a_suffix_and_test_frames_none(tmp_path):
    source = write(tmp_path / "mine", ("train/a", "val/b"), id_mask())
    for path in source.glob("masks/*/*.png"):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    (source / "images" / "test").mkdir()
    Image.new("RGB", (16, 12)).save(source / "images" / "test" / "c.jpg")
    splits = folder.read_splits(folder.open_source(source), mask_suffix="_mask")
    found = {split: [frame.mask for frame in frames] for split, frames in splits.items()}
    assert found == {"train": ["masks/train/a_mask.png"], "val": ["masks/val/b_mask.png"], "test": [None]}


@pytest.mark.parametrize(
    ("mask", "void", "message"),
    [
        (id_mask(void=3), (), "holds labels that the list of classes does not have: 3"),
        (colour_mask((1, 2, 3)), (), "holds 1 colours that the list of classes does not have: #010203"),
    ],
    ids=["ids", "colours"],
)
def test_what_the_list_lacks_stops_the_conversion(tmp_path, mask, void, message):
    rows = ROWS if mask.mode == "RGB" else [{"name": row["name"], "id": row["id"]} for row in ROWS]
    source = write(tmp_path / "mine", ("train/a", "val/b"), mask)
    with pytest.raises(UserError, match=message):
        folder.convert(source, class_list(tmp_path / "classes.csv", rows), tmp_path / "records", void=void)
    assert not records.exist(tmp_path / "records")


def test_colours_without_colours_in_the_list_are_said(tmp_path):
    source = write(tmp_path / "mine", ("train/a", "val/b"), colour_mask())
    listed = class_list(tmp_path / "c.csv", [{"name": "road", "id": 7}])
    with pytest.raises(UserError, match="hold colours, and the list of classes has none. Add a column colour"):
        folder.convert(source, listed, tmp_path / "records")


def test_no_images_no_masks_and_too_few_to_draw_from(tmp_path):
    for made, message in (
        ((), "has no folder of images: expected images/"),
        (("images",), "has no masks: expected masks/"),
        (("images", "masks"), "two or more, and a share between 0 and 1"),
    ):
        source = tmp_path / f"of{len(made)}"
        for name in ("other", *made):
            (source / name).mkdir(parents=True)
            Image.new("L", (4, 4)).save(source / name / "a.png")
        if len(made) == 1:
            Image.new("L", (4, 4)).save(source / "images" / "b.png")
        with pytest.raises(UserError, match=message):
            folder.read_splits(folder.open_source(source))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name\nroad\ncar\n", [("road", 0, None), ("car", 1, None)]),
        ("id,name,r,g,b\n3, a road ,1,2,3\n", [("a road", 3, (1, 2, 3))]),
        ("\ufeffName,ID,Color\nroad,3,#010203\n\n", [("road", 3, (1, 2, 3))]),
        ('["road", "car"]', [("road", 0, None), ("car", 1, None)]),
        ('{"4": "road", "2": "car"}', [("road", 4, None), ("car", 2, None)]),
        ('{"classes": [{"name": "road", "id": 0, "color": [1, 2, 3]}]}', [("road", 0, (1, 2, 3))]),
    ],
)
def test_lists_of_classes(tmp_path, text, found):
    (tmp_path / "classes").write_text(text, encoding="utf-8")
    assert [(row.name, row.id, row.colour) for row in class_files.read(tmp_path / "classes")] == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("road,car\n", "in which there is no column 'name'"),
        ("name\n", "lists no class"),
        ("id,name\n1,road\n2,\n", "class 1 has no name"),
        ("id,name\n1,road\n1,car\n", "the id 1 stands twice, for road and car"),
        ("name\nroad\nroad\n", "the name road stands twice"),
        ("name,colour\nroad,#010203\ncar,1 2 3\n", r"the colour \(1, 2, 3\) stands twice, for road and car"),
        ("name,colour\nroad,red\n", "expected #rrggbb|is no colour|invalid literal"),
        ("id,name\n256,road\n", "'road' has the id 256: ids are 0 to 255"),
        ("id,name\none,road\n", "invalid literal"),
        ("[1, 2", "Expecting"),
    ],
)
def test_bad_lists_of_classes(tmp_path, text, message):
    if text is not None:
        (tmp_path / "classes").write_text(text)
    with pytest.raises(UserError, match=message):
        class_files.read(tmp_path / "classes")


def test_void_is_no_class_and_more_than_a_byte_has_no_place(tmp_path):
    rows = class_files.read(class_list(tmp_path / "classes.csv"))
    for void, message in ((["7"], "what the list of classes calls 'road'"), (["-1"], "ids from 0 to 255")):
        with pytest.raises(UserError, match=message):
            class_files.of_ids("folder", rows, void)
    with pytest.raises(UserError, match="what the list of classes calls 'car'"):
        class_files.of_colours("folder", rows, ["#0000c8"])
    many = json.dumps([f"class {number}" for number in range(256)])
    (tmp_path / "many").write_text(many)
    with pytest.raises(UserError, match="There are 256 classes: expected 1 to 255"):
        class_files.class_list(class_files.read(tmp_path / "many"))


def test_colours_that_the_list_lacks_are_chosen_far_from_each_other():
    rows = [class_files.Row("sky", 0, None), class_files.Row("car", 1, CAR), class_files.Row("kerb", 2, None)]
    colours = class_files.class_list(rows).colours
    assert colours[:2] == (SKY, CAR)
    assert min(np.abs(np.subtract(colours[2], other)).max() for other in colours[:2]) > 60


def test_data_sets_of_other_classes_do_not_mix(tmp_path, classes, generated_records):
    source, output = write(tmp_path / "mine", ("train/a", "val/b"), id_mask()), tmp_path / "records"
    folder.convert(source, classes, output, void=["0"])
    opened = [records.Frames(path, "train") for path in (output, generated_records)]
    members = [mixture.Member(str(n), frames, None, 1, 1.0) for n, frames in enumerate(opened)]
    with pytest.raises(UserError, match=r"has 2 classes \(road, car\), .* 124 others"):
        mixture.check_classes(members, 124)
    with pytest.raises(UserError, match=r"holds class 1, 'car', .*Set --config.model.num_classes=2"):
        mixture.check_classes(members[:1], 1)
