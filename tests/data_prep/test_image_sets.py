"""COCO-Stuff and ADE20K: numberings are found or asked for, labels become VSPW's, images are chosen by their share."""

import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep import ade20k, coco_stuff, generate
from data_prep.conversion import image_folders
from data_prep.drawing import layouts
from tests.inputs import frames
from vspw_jax.classes import label_maps, vspw
from vspw_jax.console.errors import UserError
from vspw_jax.data import records
from vspw_jax.files.sources import Folder
from vspw_jax.metrics import truth

PIXELMAP = "pixelmap_0_181"


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """A drawn set in COCO-Stuff's layout, as pixelmaps; of every third image half is metal, of others more is void.

    The last row of some is of the highest id, which train ids do not have.
    """
    folder = tmp_path_factory.mktemp("coco") / "coco"
    generate.generate(folder, lambda aside: layouts.write_coco_stuff(aside, {"train2017": 24, "val2017": 4}, 48, 64, 0))
    metal = next(source.value for source in label_maps.of("coco_stuff", PIXELMAP).sources if source.name == "metal")
    for number, path in enumerate(mask_paths(folder)):
        mask = pixels(path).copy()
        mask[: (0, 24, 30)[number % 3]] = (0, metal, 255)[number % 3]
        if number % 3 == 1:
            mask[-1] = 181
        Image.fromarray(mask).save(path)
    return folder


@pytest.fixture(scope="module")
def coco_records(coco, tmp_path_factory):
    """The same, converted."""
    output = tmp_path_factory.mktemp("coco_records")
    coco_stuff.convert(coco, output)
    return output


def mask_paths(folder):
    return sorted(folder.glob("annotations/*/*.png"))


def pixels(path):
    with Image.open(path) as mask:
        return np.asarray(mask)


def renumbered(folder, copy, lookup, name="{}.png"):
    """A copy of a folder with other values in its masks."""
    shutil.copytree(folder, copy)
    for path in mask_paths(copy):
        values = lookup[pixels(path)]
        path.unlink()
        Image.fromarray(values).save(path.with_name(name.format(path.stem)))
    return copy


def lookup_of(dataset, ours, theirs, void):
    """(256,) values of one numbering by those of another, the tables' rows being in the same order."""
    lookup = np.full(256, void, np.uint8)
    pairs = zip(label_maps.of(dataset, ours).sources, label_maps.of(dataset, theirs).sources, strict=True)
    for ours, theirs in pairs:
        lookup[ours.value] = theirs.value
    return lookup


def to_train_ids():
    return lookup_of("coco_stuff", PIXELMAP, "trainid_0_170", 255)


def add_classes(folder, values):
    """Draws a stripe of each class into two masks, which makes any set hold what tells its numbering."""
    for path in mask_paths(folder)[:2]:
        mask = pixels(path).copy()
        mask[0, : len(values)] = values
        Image.fromarray(mask).save(path)


def labels(output):
    frames = records.Frames(output, "train")
    return np.stack([frames.image_and_label(number)[1] for number in range(len(frames))])


@pytest.mark.parametrize("numbering", label_maps.NUMBERINGS["coco_stuff"])
def test_each_numbering_of_coco_stuff_is_found_and_leads_to_the_same_labels(
    coco, coco_records, tmp_path, capsys, numbering
):
    void = 0 if numbering == "label_1_182" else 255
    lookup = lookup_of("coco_stuff", PIXELMAP, numbering, void)
    name = "{}_labelTrainIds.png" if numbering == "trainid_0_170" else "{}.png"
    source = renumbered(coco, tmp_path / "source", lookup, name)
    # Values that only this numbering has: in a whole data set they come of themselves.
    distinct = {"pixelmap_0_181": [171, 181], "trainid_0_170": [11, 12], "label_1_182": [11, 182]}[numbering]
    add_classes(source, distinct)
    coco_stuff.convert(source, tmp_path / "records")
    assert f"numbering: {numbering} (" in capsys.readouterr().out
    assert records.Frames(tmp_path / "records", "train").numbering == numbering
    np.testing.assert_array_equal(labels(tmp_path / "records")[2:], labels(coco_records)[2:])


def test_labels_are_what_was_drawn(coco, coco_records):
    frames = records.Frames(coco_records, "train")
    value = pixels(coco / "annotations" / "train2017" / "000000000003.png")
    names = {source.value: source for source in label_maps.of("coco_stuff", PIXELMAP).sources}
    _, label = frames.image_and_label(2)
    for source, ours in set(zip(value.ravel().tolist(), label.ravel().tolist(), strict=True)):
        assert ours == (names[source].train_id if source in names else 255)
    assert [video.name for video in frames.videos[:2]] == ["000000000001", "000000000002"]
    assert all(video.count == 1 for video in frames.videos) and frames[0]["frame"] == "000000000001"
    assert frames.dataset == "coco_stuff"


def test_values_that_decide_nothing_stop_the_conversion_until_told(coco, tmp_path):
    source = renumbered(coco, tmp_path / "source", np.where(np.arange(256) > 10, 0, np.arange(256)).astype(np.uint8))
    arguments = [f"--source={source}", f"--output={tmp_path / 'records'}"]
    with pytest.raises(UserError, match="pixelmap_0_181 and .*alike.*28 masks.*--numbering=label_1_182"):
        coco_stuff.main(arguments)
    assert not (tmp_path / "records").exists()
    coco_stuff.main([*arguments, "--numbering=label_1_182"])
    assert records.Frames(tmp_path / "records", "val").numbering == "label_1_182"


def test_a_numbering_given_wrongly_is_contradicted_by_the_first_mask(coco, tmp_path):
    with pytest.raises(UserError, match=r"00000.*\.png.*labels that label_1_182 does not have: .*255"):
        coco_stuff.convert(coco, tmp_path / "records", numbering="label_1_182")


def test_one_dirty_mask_decides_nothing(coco, tmp_path):
    source = shutil.copytree(coco, tmp_path / "source")
    path = mask_paths(source)[5]
    mask = pixels(path).copy()
    mask[0, 0] = 11  # No pixelmap has it, train ids do.
    Image.fromarray(mask).save(path)
    with pytest.raises(UserError, match="without exception.*pixelmap_0_181: it lacks 11, seen in 1;"):
        coco_stuff.convert(source, tmp_path / "records")
    (left_out,) = coco_stuff.convert(source, tmp_path / "records", max_bad=1, numbering="pixelmap_0_181")
    assert path.name in left_out and "does not have: 11" in left_out


def make_ade(folder, values_by_mask):
    for number, values in enumerate(values_by_mask, start=1):
        for kind, suffix, array in (
            ("images", "jpg", np.zeros((8, 8, 3), np.uint8)),
            ("annotations", "png", np.resize(np.array(values, np.uint8), (8, 8))),
        ):
            path = folder / kind / "training" / f"ADE_train_{number:08d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return folder


@pytest.mark.parametrize(
    ("values", "numbering"),
    [([[0, 3, 150], [3, 150]], "raw_0_150"), ([[255, 2, 149], [2, 0, 255]], "reduced_0_149")],
)
def test_ade20k_raw_and_reduced(tmp_path, values, numbering):
    make_ade(tmp_path / "ADEChallengeData2016", values)
    ade20k.convert(tmp_path, tmp_path / "records")  # One folder above does as well.
    frames = records.Frames(tmp_path / "records", "train")
    assert (frames.numbering, len(frames)) == (numbering, 2)
    label = frames.image_and_label(0)[1].ravel()[:3]
    assert [None if i == 255 else vspw.classes().names[i] for i in label] == [None, "sky", "flag"]


def test_ade20k_without_a_value_that_tells_asks(tmp_path):
    with pytest.raises(UserError, match="raw_0_150 and reduced_0_149 alike.*--numbering=raw_0_150 or --numbering="):
        ade20k.convert(make_ade(tmp_path / "ade", [[0, 3], [2, 149]]), tmp_path / "records")


@pytest.mark.parametrize("denominator", label_maps.DENOMINATORS)
def test_images_are_chosen_when_read(coco, coco_records, denominator):
    fits = ("exact",)
    frames = records.Frames(coco_records, "train", fits=fits, min_mapped=0.7, denominator=denominator)
    lookup = label_maps.of("coco_stuff", PIXELMAP).lookup(fits)
    kept = []
    for path in sorted((coco / "annotations" / "train2017").iterdir()):
        value = pixels(path)
        counted = value != 255 if denominator == "labelled" else np.ones_like(value, bool)
        if (lookup[value] != 255).sum() >= 0.7 * counted.sum():
            kept.append(path.stem)
    assert [video.name for video in frames.videos] == kept and 0 < len(kept) < 24
    for video in frames.videos:
        assert frames[video.start]["video"] == video.name
    assert len(frames) == 24 and frames.kept.total == 24
    assert {"all": frames.kept.of_all, "labelled": frames.kept.of_labelled}[denominator] == len(kept)
    assert frames.max_classes == max(
        len(set(frames.image_and_label(video.start)[1].ravel().tolist()) - {255}) for video in frames.videos
    )
    with pytest.raises(UserError, match="leaves nothing of .*0 of 24 images"):
        records.Frames(coco_records, "train", fits=(), min_mapped=0.1)


def test_images_left_out_at_conversion(coco, coco_records, tmp_path, capsys):
    arguments = ["--min-mapped=0.9", "--fits=exact", "--denominator=all"]
    coco_stuff.main([f"--source={coco}", f"--output={tmp_path}", *arguments])
    kept = records.Frames(coco_records, "train", fits=("exact",), min_mapped=0.9)
    frames = records.Frames(tmp_path, "train")
    assert [video.name for video in frames.videos] == [video.name for video in kept.videos]
    output = capsys.readouterr().out
    assert "images left out by --min-mapped=0.9" in output and "of all their pixels mapped" in output


def test_a_filter_that_makes_no_sense_is_refused_before_anything_is_read(coco, coco_records, tmp_path):
    arguments = [f"--source={coco}", f"--output={tmp_path}"]
    for wrong, message in (
        ("--fits=exact,perfect", "no fit 'perfect'"),
        ("--min-mapped=80", "expected 0 to 1, 0.8 for 80 %"),
        ("--workers=0", "--workers is 0: expected a whole number from 1 to 1024"),
        ("--max-bad=-1", "--max-bad is -1: expected a whole number from 0 to"),
    ):
        with pytest.raises(UserError, match=message):
            coco_stuff.main([*arguments, wrong])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="expected 0 to 1"):
        records.Frames(coco_records, "train", min_mapped=80)


def test_frames_within_a_video_that_are_left_out_part_it(coco_records):
    kept = np.array([True, False, True, True, False, True])
    videos = records.split_videos([["a", 4], ["b", 1], ["c", 1]], kept)
    assert [(video.name, video.start, video.count) for video in videos] == [("a", 0, 1), ("a", 2, 2), ("c", 5, 1)]


def test_layouts_that_are_not_there(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="images/train2017/.*annotations/.*'photos'"):
        coco_stuff.convert(pathlib.Path(tmp_path), tmp_path / "records")
    with pytest.raises(UserError, match="images/training/"):
        ade20k.convert(tmp_path, tmp_path / "records")


def test_images_of_any_usual_format_are_taken_and_the_rest_is_said(tmp_path, capsys):
    frames.write(tmp_path / "images" / "training", ["a.JPG", "b.png", "notes.txt"])
    frames.write(tmp_path / "annotations" / "training", ["a.png", "b.png", "c.png"], "PNG")
    found = image_folders.read_frames(Folder(tmp_path), {"train": "training"}, (".png",))["train"]
    assert [frame.image for frame in found] == [f"images/training/{name}" for name in ("a.JPG", "b.png", "c.jpg")]
    assert (
        "1 files of" in (said := capsys.readouterr().err)
        and "images/training/ are left out: images/training/notes.txt" in said
    )
    frames.write(tmp_path / "images" / "training", ["b.jpg"])
    with pytest.raises(UserError, match=r"Several frames of .*images/training/ are called b: b\.jpg and b\.png"):
        image_folders.read_frames(Folder(tmp_path), {"train": "training"}, (".png",))


def test_labels_stay_the_data_sets_own_where_that_is_asked_for(coco, coco_records):
    split = records.Frames(coco_records, "val", own_classes=True)
    opened = truth.open_truth(coco_records, "val", own_classes=True)
    assert len(split.classes) == len(opened.classes) == 171 and split.classes.names[:2] == ("person", "bicycle")
    assert split.fingerprint != records.Frames(coco_records, "val").fingerprint
    to_own = lookup_of("coco_stuff", PIXELMAP, "trainid_0_170", 255)
    for number, path in enumerate(sorted(coco.glob("annotations/val2017/*.png"))):
        np.testing.assert_array_equal(split.image_and_label(number)[1], to_own[pixels(path)])
