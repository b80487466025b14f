"""Generated folders have the layouts and ids of the real data sets."""

import hashlib
import json
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

import data_prep.vspw
from configs import nce
from data_prep import generate
from data_prep.conversion import frames, units
from data_prep.drawing import layouts, scenes
from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError
from vspw_jax.data import records
from vspw_jax.files import ownership

VERSION = generate.VERSION


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)).hexdigest()


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_vspw_layout(generated_vspw):
    video = (generated_vspw / "val.txt").read_text().split()[0]
    folder = generated_vspw / "data" / video
    assert sorted(path.name for path in (folder / "origin").iterdir()) == [f"{n:08d}.jpg" for n in range(1, 11)]
    assert sorted(path.name for path in (folder / "mask").iterdir()) == [f"{n:08d}.png" for n in range(1, 11)]
    with Image.open(folder / "mask" / "00000001.png") as mask:
        assert mask.mode == "P" and mask.size == (64, 48)
    assert json.loads((generated_vspw / "label_num_dic_final.json").read_text())["sky"] == "29"
    test_video = (generated_vspw / "test.txt").read_text().split()[0]
    assert not (generated_vspw / "data" / test_video / "mask").exists()


def test_masks_hold_raw_ids_of_what_was_drawn(generated_vspw):
    video = (generated_vspw / "val.txt").read_text().split()[0]
    number = int(video.split("_")[0])
    _, labels = scenes.clip(0, number, 10, 48, 64)
    raw = pixels(generated_vspw / "data" / video / "mask" / "00000003.png")
    names = np.array(["others", *vspw.classes().names])
    drawn = np.array([*scenes.CLASSES, *["others"] * (256 - len(scenes.CLASSES))])
    np.testing.assert_array_equal(names[raw], drawn[labels[2]])


def test_same_seed_same_files(tmp_path):
    for name in ("a", "b"):
        generate.main(
            [f"--output={tmp_path / name}", "--train=2", "--val=0", "--frames=3", "--height=32", "--width=48"]
        )
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_disturbed_video_says_so_in_its_note(tmp_path):
    """Without disturbances the note is as it was before they were an option."""
    size = ["--train=3", "--val=0", "--frames=5", "--height=32", "--width=48"]
    for name, options in {"plain": [], "a": ["--disturbances=drawn"], "b": ["--disturbances=drawn"]}.items():
        generate.main([f"--output={tmp_path / name}", *size, *options])
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    plain, disturbed = (json.loads((tmp_path / name / generate.NOTE).read_text()) for name in ("plain", "a"))
    assert disturbed == {**plain, "disturbances": "drawn"} and "disturbances" not in plain
    assert digest(tmp_path / "a" / "data") != digest(tmp_path / "plain" / "data")


def test_training_videos_may_be_shorter(tmp_path):
    size = ["--train=2", "--val=1", "--height=32", "--width=48"]
    generate.main([f"--output={tmp_path / 'drawn'}", *size, "--frames=4", "--train-frames=2"])
    lengths = {
        split: {len(list((tmp_path / "drawn" / "data" / video / "origin").iterdir())) for video in videos}
        for split in ("train", "val")
        for videos in [(tmp_path / "drawn" / f"{split}.txt").read_text().split()]
    }
    assert lengths == {"train": {2}, "val": {4}}


def test_coco_stuff_layout_and_ids(tmp_path):
    options = ["--layout=coco_stuff", "--train=9", "--val=2", "--height=48", "--width=64"]
    generate.main([f"--output={tmp_path / 'coco'}", *options])
    images = sorted((tmp_path / "coco" / "images" / "train2017").iterdir())
    masks = sorted((tmp_path / "coco" / "annotations" / "train2017").iterdir())
    assert [path.name for path in images] == [f"{number:012d}.jpg" for number in range(1, 10)]
    assert [path.stem for path in masks] == [path.stem for path in images]
    values = set(np.concatenate([np.unique(pixels(path)) for path in masks]).tolist())
    used = {int(row["pixelmap_value_0_181"]) for row in vspw.table("coco_stuff_classes")}
    assert values <= used | {255} and {156, 171} <= values  # sky-other, wall-concrete


def test_an_existing_folder_is_left_alone(generated_vspw):
    before = digest(generated_vspw)
    with pytest.raises(UserError, match="exists"):
        generate.main([f"--output={generated_vspw}"])
    assert digest(generated_vspw) == before


def test_a_drawing_cut_short_leaves_no_folder_of_that_name(tmp_path):
    def write(folder):
        (folder / "train.txt").write_text("0\n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate.generate(tmp_path / "out", write)
    assert not (tmp_path / "out").exists()
    generate.generate(tmp_path / "out", lambda folder: layouts.write_vspw(folder, {"train": 1}, 1, 32, 32, 0))
    assert (tmp_path / "out" / "train.txt").exists()


def small_demo(folder):
    """A recipe that draws two videos of a few frames into a folder."""
    config = nce.get_config("demo")
    options = config.data.generate
    options.update(train=1, val=1, frames=2, height=32, width=48)
    options.source, options.records = str(folder / "vspw"), str(folder / "records")
    config.data.records = options.records
    return config


def test_of_two_runs_one_draws_and_converts_and_the_other_waits(tmp_path, monkeypatch, capfd):
    """Whenever the second begins: as the first draws, or as it converts."""
    monkeypatch.setattr(ownership, "POLL_SECONDS", 0.05)
    started, seconds, made = [], [], []

    def begin_another():
        seconds.append(threading.Thread(target=lambda: started.append(generate.for_recipe(small_demo(tmp_path)))))
        seconds[-1].start()
        seconds[-1].join(0.5)
        assert seconds[-1].is_alive() and not started

    def slow(name, function):
        def called(*arguments, **options):
            made.append(name)
            begin_another()
            return function(*arguments, **options)

        return called

    monkeypatch.setattr(layouts, "write_vspw", slow("drawn", layouts.write_vspw))
    monkeypatch.setattr(units, "convert", slow("converted", units.convert))
    generate.for_recipe(small_demo(tmp_path))
    for second in seconds:
        second.join(30)
    assert made == ["drawn", "converted", "converted"]  # A shard of either split.
    assert len(started) == 3 and "Waiting until it ends" in capfd.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"vspw", "records"}
    assert len(records.Frames(tmp_path / "records", "val")) == 2


def test_of_two_conversions_to_one_place_the_second_finds_the_records(generated_vspw, tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "POLL_SECONDS", 0.05)
    second = threading.Thread(target=data_prep.vspw.convert, args=[generated_vspw, tmp_path])
    read, calls = frames.read_frame, []

    def read_beside(*arguments):
        if not calls:
            second.start()
            second.join(0.5)
        calls.append(arguments)
        return read(*arguments)

    monkeypatch.setattr(frames, "read_frame", read_beside)
    data_prep.vspw.convert(generated_vspw, tmp_path)
    second.join(30)
    assert not second.is_alive()
    splits = [records.Frames(tmp_path, split) for split in ("train", "val", "test")]
    assert len(calls) == sum(map(len, splits))  # Each was converted once.


def test_what_was_drawn_otherwise_is_refused(tmp_path):
    """By another version, which left no note, or with other options."""
    config = small_demo(tmp_path)
    options = config.data.generate
    generate.for_recipe(config)
    generate.for_recipe(config)
    options.colours = "shared"
    with pytest.raises(UserError, match="drawn otherwise.*\n  colours: typical there, shared now\nDelete .*vspw and"):
        generate.for_recipe(config)
    options.update(colours="typical", disturbances="drawn")
    with pytest.raises(UserError, match="drawn otherwise.*\n  disturbances: .*drawn now\nDelete .*vspw and"):
        generate.for_recipe(config)
    options.disturbances = "none"
    (tmp_path / "vspw" / generate.NOTE).unlink()
    with pytest.raises(UserError, match=f"version: 1 there, {VERSION} now"):
        generate.for_recipe(config)
    config.data.records = "elsewhere"  # Other data takes the place of what would be drawn.
    generate.for_recipe(config)


def test_records_alone_say_how_they_were_drawn(tmp_path, monkeypatch):
    """The drawn files may be deleted; records that say nothing are not taken."""
    config = small_demo(tmp_path)
    options = config.data.generate
    generate.for_recipe(config)
    shutil.rmtree(options.source)
    generate.for_recipe(config)
    with pytest.raises(UserError) as raised:
        options.update(colours="shared", seed=7)
        generate.for_recipe(config)
    assert "records was drawn otherwise" in str(raised.value)
    assert "  colours: typical there, shared now\n  seed: 0 there, 7 now\nDelete" in str(raised.value)
    options.update(colours="typical", seed=0)
    with monkeypatch.context() as changed:
        changed.setattr(generate, "VERSION", generate.VERSION + 1)
        with pytest.raises(UserError, match=f"version: {VERSION} there, {VERSION + 1} now"):
            generate.for_recipe(config)
    (tmp_path / "records" / generate.NOTE).unlink()
    with pytest.raises(UserError, match="records does not say how its video was drawn, and .*vspw is gone"):
        generate.for_recipe(config)


def test_records_of_before_they_had_notes_are_taken_beside_the_files_that_they_were_made_of(tmp_path):
    config = small_demo(tmp_path)
    generate.for_recipe(config)
    note = tmp_path / "records" / generate.NOTE
    text = note.read_text()
    note.unlink()
    generate.for_recipe(config)
    assert note.read_text() == text
    shutil.rmtree(tmp_path / "vspw")
    generate.for_recipe(config)


def test_records_that_cannot_be_written_are_said(tmp_path):
    config = small_demo(tmp_path)
    (tmp_path / "records").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        generate.for_recipe(config)


@pytest.mark.parametrize("name", ["colours", "disturbances"])
def test_a_recipe_that_asks_for_a_drawing_that_there_is_not_is_refused(tmp_path, name):
    config = small_demo(tmp_path)
    config.data.generate[name] = "drwan"
    with pytest.raises(UserError, match=f"data.generate.{name} is 'drwan'"):
        generate.for_recipe(config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train=0", "--val=0"], "--train, --val and --test are all 0, so there is nothing to draw"),
        (["--train=-3"], "--train is -3: expected a whole number from 0 to 1000000"),
        (["--height=0"], "--height is 0: expected a whole number from 8 to 8192"),
        (["--seed=-1"], "--seed is -1: expected a whole number from 0 to 4294967295"),
        (["--train-frames=-1"], "--train-frames is -1: expected a whole number from 0 to 100000"),
        (["--layout=coco_stuff", "--frames=3"], "--layout=coco_stuff does not read --frames"),
        (["--layout=coco_stuff", "--disturbances=drawn"], "--layout=coco_stuff does not read --disturbances"),
        (["--layout=coco_stuff", "--train-frames=3"], "--layout=coco_stuff does not read --train-frames"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        generate.main([f"--output={tmp_path / 'out'}", *options])
    assert not list(tmp_path.iterdir())
