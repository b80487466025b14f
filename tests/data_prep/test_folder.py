"""A user's own images and videos with their own classes: layouts, lists of classes, masks of ids and of colours."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep import folder
from data_prep.conversion import class_files, command_line, labelled_folders
from data_prep.verification import checks
from tests.inputs import masks
from vspw_jax.console.errors import UserError
from vspw_jax.data import mixture, records
from vspw_jax.files.sources import open_source

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
        (id_mask(), ("0",), "Masks hold ids: so do 4 of 4 that were looked at."),
        (colour_mask(), ("#000000",), "Masks hold colours: so do 4 of 4 that were looked at."),
        (palette_mask(), ("#000000",), "Masks hold colours: so do 4 of 4 that were looked at."),
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


def test_masks_of_black_and_white_that_may_be_either_are_asked_about(tmp_path, capsys):
    """255 is void among ids and white among colours."""
    listed = class_list(tmp_path / "c", [{"name": "back", "colour": "#000000"}, {"name": "front", "colour": "#ffffff"}])
    mask = Image.fromarray(np.where(LABEL == 1, 255, 0).astype(np.uint8))
    source = write(tmp_path / "mine", ("train/a", "val/b"), mask)
    with pytest.raises(UserError, match=r"read as ids and as colours .* Say which it is with --masks-hold=ids or"):
        folder.convert(source, listed, tmp_path / "records")
    folder.convert(source, listed, tmp_path / "records", hold="colours")
    command_line.report(tmp_path / "records", ())
    assert "  83.33 %  back" in capsys.readouterr().out
    label = records.Frames(tmp_path / "records", "train").image_and_label(0)[1]
    np.testing.assert_array_equal(label, LABEL == 1)


def test_a_palette_in_another_order_than_the_list_is_asked_about(tmp_path):
    listed = class_list(tmp_path / "c", [{"name": row["name"], "colour": row["colour"]} for row in ROWS[::-1]])
    source = write(tmp_path / "mine", ("train/a", "val/b"), palette_mask())
    with pytest.raises(UserError, match="which mean different classes"):
        folder.convert(source, listed, tmp_path / "records", void=["2", "#000000"])


def test_one_damaged_mask_does_not_decide(tmp_path, classes, capsys):
    source = write(tmp_path / "mine", ("train/a", "train/b", "val/c"), id_mask())
    path = source / "masks" / "train" / "a.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match="train/a.png"):
        folder.convert(source, classes, tmp_path / "records", void=["0"])
    assert "Masks hold ids: so do 2 of 2" in capsys.readouterr().out


def test_a_colour_mask_without_its_last_rows_is_refused(tmp_path, classes):
    """Pillow would fill them with black, which is void here."""
    source = write(tmp_path / "mine", ("train/a", "train/b", "val/c"), colour_mask())
    path = source / "masks" / "train" / "a.png"
    path.write_bytes(masks.png(np.zeros((12, 16)), masks.RGB, share=0.5))
    with pytest.raises(UserError, match="train/a.png.*is cut off: it has"):
        folder.convert(source, classes, tmp_path / "records", void=["#000000"])


@pytest.mark.parametrize(
    ("png", "message"),
    [
        (masks.png(np.zeros((12, 16)), masks.RGB, 16), "has 16 bits in each of its channels: expected colours of 8"),
        (masks.png(np.zeros((12, 16)), masks.GREY, 16), "has 16 bits in each of its channels: expected colours of 8"),
        (masks.animation(), "holds 2 pictures, expected one"),
    ],
    ids=["RGB of 16 bits", "grey of 16 bits", "animation"],
)
def test_what_holds_no_colours_of_8_bits_is_refused(tmp_path, classes, png, message):
    source = write(tmp_path / "mine", ("train/a", "train/b", "val/c"), colour_mask())
    (source / "masks" / "train" / "a.png").write_bytes(png)
    with pytest.raises(UserError, match=f"train/a.png.*{message}"):
        folder.convert(source, classes, tmp_path / "records", void=["#000000"])


def test_a_class_that_no_mask_has_is_said(tmp_path, capsys):
    rows = [{"name": row["name"], "id": row["id"]} for row in (*ROWS, {"name": "tree", "id": 3})]
    folder.convert(
        write(tmp_path / "mine", ("train/a", "val/b"), id_mask()),
        class_list(tmp_path / "c", rows),
        tmp_path / "records",
        void=["0"],
    )
    command_line.report(tmp_path / "records", ())
    assert "No mask of split train has tree." in capsys.readouterr().err


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


def splits_of(source, **options):
    return folder.read_splits(open_source(source), labelled_folders.Options(**options))


def test_lists_say_the_splits_and_a_drawing_where_there_are_none(tmp_path, capsys):
    source = write(tmp_path / "mine", [f"v{number}/1" for number in range(6)] + ["single"], id_mask())
    drawn = names(splits_of(source, val_share=0.3))
    assert "of 7 videos and single images 2 were drawn for val" in capsys.readouterr().out
    assert sorted(drawn["val"] + drawn["train"]) == ["single", *(f"v{number}" for number in range(6))]
    assert names(splits_of(source, val_share=0.3)) == drawn != names(splits_of(source, val_share=0.3, seed=1))
    (source / "train.txt").write_text("v0\nv5\n", encoding="utf-16")
    (source / "val.txt").write_text("single.jpg\n")
    listed = splits_of(source)
    assert names(listed) == {"train": ["v0", "v5"], "val": ["single"]}
    assert all(frame.mask for frames in listed.values() for frame in frames)
    assert "4 videos or images of" in capsys.readouterr().err
    (source / "val.txt").write_text("single\nv1\nv2\nv3\nv4\n")
    splits_of(source)
    assert capsys.readouterr().err == ""
    (source / "val.txt").write_text("nothing\n")
    with pytest.raises(UserError, match=r"val.txt names nothing, which is not among the images"):
        splits_of(source)


def test_a_split_may_stand_above_images_and_masks(tmp_path):
    for split in ("train", "valid", "test"):
        write(tmp_path / "mine" / split, ("a", "drive/1"), id_mask())
    shutil.rmtree(tmp_path / "mine" / "test" / "masks")
    splits = splits_of(tmp_path / "mine")
    assert names(splits) == dict.fromkeys(("train", "val", "test"), ["a", "drive"])
    assert {frame.mask is None for frame in splits["test"]} == {True}
    (tmp_path / "mine" / "valid").rename(tmp_path / "mine" / "drone")
    with pytest.raises(UserError, match=r"has several folders of images, in drone, test, train: expected one, or"):
        splits_of(tmp_path / "mine")


@pytest.mark.parametrize("other", ["unlabelled/x", "x"])
def test_folders_of_splits_beside_others_are_refused(tmp_path, other):
    source = write(tmp_path / "mine", ("train2017/a", "val2017/b"), id_mask())
    assert names(splits_of(source)) == {"train": ["a"], "val": ["b"]}
    write(source, [other], id_mask())
    with pytest.raises(UserError, match=r"have folders of splits, train2017, val2017, and (unlabelled|files beside)"):
        splits_of(source)


def test_names_that_would_clash_are_refused(tmp_path):
    source = write(tmp_path / "mine", ("train/a/b/1", "train/a-b/2", "val/c"), id_mask())
    with pytest.raises(UserError, match="would both be called a-b. Rename one"):
        splits_of(source)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("\udcffa/1", "b/1"), r"'\\udcffa' of a video of .* is not UTF-8. Rename it"),
        (("a" * 130 + "/" + "b" * 130 + "/1", "c/1"), "has 261 bytes, 240 are allowed"),
        (("a" * 130 + "/" + "b" * 130 + "/1", "c"), "has 261 bytes, 240 are allowed"),
    ],
    ids=["bytes", "long", "long beside an image"],
)
def test_names_of_videos_that_cannot_be_used(tmp_path, classes, names, message):
    source = write(tmp_path / "source", names, id_mask())
    with pytest.raises(UserError, match=message):
        folder.convert(source, classes, tmp_path / "records", void=("0",))
    assert not (tmp_path / "records").exists()


def test_files_of_a_folder_may_be_single_images(tmp_path):
    source = write(tmp_path / "mine", ("train/city/1", "train/city/01", "val/town/a"), id_mask())
    with pytest.raises(UserError, match="have the same number"):
        splits_of(source)
    assert names(splits_of(source, single_images=True)) == {"train": ["city-01", "city-1"], "val": ["town-a"]}


def test_masks_may_have_a_suffix_and_test_frames_none(tmp_path):
    source = write(tmp_path / "mine", ("train/a", "val/b"), id_mask())
    for path in source.glob("masks/*/*.png"):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    (source / "images" / "test").mkdir()
    Image.new("RGB", (16, 12)).save(source / "images" / "test" / "c.jpg")
    splits = splits_of(source, mask_suffix="_mask")
    found = {split: [frame.mask for frame in frames] for split, frames in splits.items()}
    assert found == {"train": ["masks/train/a_mask.png"], "val": ["masks/val/b_mask.png"], "test": [None]}


def test_masks_may_end_in_capitals(tmp_path, classes, capsys):
    source = write(tmp_path / "mine", ("train/a", "val/b", "test/c"), id_mask())
    masks.in_capitals(source / "masks")
    folder.convert(source, classes, tmp_path / "records", void=["0"])
    assert "left out" not in capsys.readouterr().err
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(records.Frames(tmp_path / "records", split).image_and_label(0)[1], LABEL)


def test_files_among_masks_that_are_no_images_are_said(tmp_path, capsys):
    source = write(tmp_path / "mine", ("train/a", "val/b"), id_mask())
    splits_of(source)
    assert capsys.readouterr().err == ""
    masks.strays(source / "masks" / "val")
    splits_of(source)
    said = "2 files of .*/masks/ are left out, as they are no image's mask: val/99.png, val/extra.tif. Expected: "
    assert re.search(said, capsys.readouterr().err)
    splits_of(source, mask_suffix="_mask")
    said = capsys.readouterr().err
    assert "4 files of" in said and "names of images that end in _mask.png" in said


@pytest.mark.parametrize(
    ("mask", "void", "message"),
    [
        (id_mask(void=3), (), "holds labels that the list of classes does not have: 3"),
        (colour_mask((1, 2, 3)), (), "holds colours that the list of classes does not have, 1 of them: #010203"),
    ],
    ids=["ids", "colours"],
)
def test_what_the_list_lacks_stops_the_conversion(tmp_path, mask, void, message):
    rows = ROWS if mask.mode == "RGB" else [{"name": row["name"], "id": row["id"]} for row in ROWS]
    source = write(tmp_path / "mine", ("train/a", "val/b"), mask)
    hold = "colours" if mask.mode == "RGB" else "ids"
    with pytest.raises(UserError, match=message):
        folder.convert(source, class_list(tmp_path / "c.csv", rows), tmp_path / "records", void=void, hold=hold)
    assert not records.exist(tmp_path / "records")


def test_colours_without_colours_in_the_list_are_said(tmp_path):
    source = write(tmp_path / "mine", ("train/a", "val/b"), colour_mask())
    listed = class_list(tmp_path / "c.csv", [{"name": "road", "id": 7}])
    with pytest.raises(UserError, match="None of 2 masks .* holds the ids .* the list needs a column colour"):
        folder.convert(source, listed, tmp_path / "records")


def test_no_images_no_masks_and_too_few_to_draw_from(tmp_path):
    for made, message in (
        (("other/a",), "has no folder of images: expected images/"),
        (("images/a", "images/b"), "has no masks for .*: expected masks/"),
        (("images/train/a", "images/val/b", "mask/train/a"), "has no masks for .*: expected masks/"),
        (("train/images/a", "train/masks/a", "val/images/b"), "has no masks for val/images/b.png: expected masks/"),
        (("images/a", "masks/a"), "Nothing states the splits of 1 videos and single images"),
    ):
        source = tmp_path / f"of {len(list(tmp_path.iterdir()))}"
        for name in made:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4)).save(source / f"{name}.png")
        with pytest.raises(UserError, match=message):
            splits_of(source)


def test_vspws_layout_has_no_options(tmp_path):
    for name in ("train.txt", "data/a/origin/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a")
    with pytest.raises(UserError, match="in VSPW's layout, .*: leave out --mask-suffix"):
        splits_of(tmp_path, seed=3)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name\nroad\ncar\n", [("road", 0, None), ("car", 1, None)]),
        ("id,name,r,g,b\n3, a road ,1,2,3\n", [("a road", 3, (1, 2, 3))]),
        ("\ufeffName,ID,Color\nroad,3,#010203\n\n", [("road", 3, (1, 2, 3))]),
        ('["road", "car"]', [("road", 0, None), ("car", 1, None)]),
        ('{"4": "road", "2": "car"}', [("road", 4, None), ("car", 2, None)]),
        ('{"classes": [{"name": "road", "id": 0, "color": [1, 2, 3]}]}', [("road", 0, (1, 2, 3))]),
        ('{"7": {"name": "road", "color": "1 2 3"}}', [("road", 7, (1, 2, 3))]),
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
        ("id,name\n1,road\n2,\n", "class 1 is called '', which is no name"),
        ('name,colour\n"road,1\n car,2\n', "unexpected end of data"),
        ("name,value\nroad,1\ncar,0\n", "it has 'value', which means nothing here"),
        ("id,name\n5,road\n,car\n", "'car' has no id, while other classes have one"),
        ("name,r,g,b\nroad,1,2,3\ncar,1,,3\n", "'car' has no g, while other classes have one"),
        ("id,name\n1,road,3\n", "the line of 'road' has more or fewer cells"),
        ('[["road", 7]]', r"\['road', 7\] is no class"),
        ('[{"name": 3}]', "class 0 is called 3, which is no name"),
        ("id,name\n1,road\n1,car\n", "the id 1 stands twice, for road and car"),
        ("name\nroad\nroad\n", "the name road stands twice"),
        ("name,colour\nroad,#010203\ncar,1 2 3\n", r"the colour \(1, 2, 3\) stands twice, for road and car"),
        ("name,colour\nroad,red\n", r"class 'road': .*red.* is no colour: expected #rrggbb"),
        ("id,name\n256,road\n", "class 'road' has the id 256: ids are 0 to 255"),
        ("id,name\none,road\n", "class 'road': invalid literal .* 'one'"),
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
    members = [mixture.Member(str(n), frames, None, 1, 1.0, frames.classes) for n, frames in enumerate(opened)]
    with pytest.raises(UserError, match=r"has 2 classes \(road, car\), .* 124 others"):
        mixture.check_classes(members, 124)
    with pytest.raises(UserError, match=r"holds class 1, 'car', .*Set --config.model.num_classes=2"):
        mixture.check_classes(members[:1], 1)
