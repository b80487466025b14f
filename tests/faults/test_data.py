"""Data that is missing, damaged or unfit ends with status 2, is named, and leaves nothing that looks whole."""

import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep import generate, verify, vspw
from data_prep.conversion import frames
from vspw_jax.console.errors import UserError
from vspw_jax.data import pipeline, records


@pytest.fixture
def converted(generated_records, tmp_path):
    """A copy of the converted data, to be damaged."""
    return shutil.copytree(generated_records, tmp_path / "records")


def shard(converted, split="train"):
    return next(converted.rglob(f"*-{split}.array_record-*"))


def test_no_data_folder(refused, program_refused, tiny_flags, tmp_path):
    missing = tmp_path / "missing"
    parts = [f"no converted data at {missing}", f"--output={missing}", "--config.data.records=DIR"]
    refused(parts, *tiny_flags, f"--config.data.records={missing}", f"--workdir={tmp_path / 'run'}")
    parts = [f"{missing}: no such folder", "--source=DIR"]
    program_refused(parts, vspw.main, [f"--source={missing}", f"--output={tmp_path / 'records'}"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_shard(refused, tiny_flags, converted, tmp_path, kept):
    path = shard(converted)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    again = "with the options that it had: python -m data_prep.vspw"
    parts = ["Damaged shards", path.name, "expected 50 records", again]
    refused(parts, *tiny_flags, f"--config.data.records={converted}", f"--workdir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_a_lost_shard(refused, tiny_flags, converted, tmp_path):
    shard(converted).unlink()
    parts = ["Damaged shards", "no such file", "python -m data_prep.vspw"]
    refused(parts, *tiny_flags, f"--config.data.records={converted}", f"--workdir={tmp_path / 'run'}")


def flip_bits(converted):
    """Damages one record so that the shard still opens."""
    path = shard(converted)
    data = bytearray(path.read_bytes())
    middle = len(data) // 3
    data[middle] ^= 0xFF
    path.write_bytes(data)


def test_altered_bytes_inside_a_record_are_found_and_named(converted, generated_records):
    flip_bits(converted)
    damaged, whole = records.Frames(converted, "train"), records.Frames(generated_records, "train")
    failed = []
    for number in range(len(whole)):
        try:
            assert damaged[number] == whole[number]
        except UserError as error:
            failed.append(number)
            assert f"Record {number} of split 'train'" in str(error) and "python -m data_prep.vspw" in str(error)
    assert len(failed) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_altered_bytes_end_a_run(refused, tiny_flags, converted, tmp_path, without_network, workers):
    """The message comes through the threads and the processes that read ahead."""
    flip_bits(converted)
    without_network(loss=1.0)
    arguments = [f"--config.data.records={converted}", "--config.data.epoch=frame", "--config.train.steps=1000"]
    arguments += [
        f"--config.data.workers={workers}",
        "--config.run.picture_every=9999",
        "--config.run.save_every=9999",
        f"--workdir={tmp_path / 'run'}",
    ]
    refused(["Record", "is damaged", "python -m data_prep.vspw"], *tiny_flags, *arguments)
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


@pytest.fixture
def source(generated_vspw, tmp_path):
    """A copy of the folder in VSPW's layout, to be damaged."""
    return shutil.copytree(generated_vspw, tmp_path / "source")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--short-side=0", "--short-side is 0: expected a whole number from 1 to 16384"),
        ("--short-side=-480", "--short-side is -480"),
        ("--max-bad=-1", "--max-bad is -1: expected a whole number from 0 to"),
        ("--workers=0", "--workers is 0: expected a whole number from 1 to 1024"),
    ],
)
def test_a_number_that_makes_no_sense(program_refused, generated_vspw, tmp_path, option, message):
    program_refused([message], vspw.main, [f"--source={generated_vspw}", f"--output={tmp_path}", option])
    if option.startswith("--workers"):
        program_refused([message], verify.main, [f"--records={tmp_path}", option])
    assert not list(tmp_path.iterdir())


def test_a_mask_of_another_size_than_its_frame(program_refused, source, tmp_path):
    mask = next(source.glob("data/0_*/mask/00000003.png"))
    Image.fromarray(np.ones((48, 60), np.uint8)).save(mask)
    parts = [str(mask), "is 60x48 pixels, its frame 64x48", "--max-bad=N"]
    program_refused(parts, vspw.main, [f"--source={source}", f"--output={tmp_path / 'records'}"])
    assert not records.exist(tmp_path / "records")


BAD_FRAMES = {
    "size": (
        "mask/00000003.png",
        lambda path: Image.fromarray(np.ones((48, 60), np.uint8)).save(path),
        "the mask is 60x48",
    ),
    "no image": ("origin/00000003.jpg", lambda path: path.write_bytes(b"junk"), "cannot be read: A JPEG of 4 bytes"),
    "no mask": (
        "mask/00000003.png",
        lambda path: path.write_bytes(b"junk"),
        r"cannot be read: cannot be read as a PNG \(cannot identify",
    ),
    "half a mask": (
        "mask/00000003.png",
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        "cannot be read",
    ),
}


@pytest.mark.parametrize(("file", "damage", "message"), BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
def test_a_bad_frame_in_converted_data(source, tmp_path, monkeypatch, tiny_config, file, damage, message):
    """Records that another converter wrote."""
    damage(next(source.glob(f"data/0_*/{file}")))

    def unchecked(source, frame, form):
        mask = source.read(frame.mask) if frame.mask else b""
        return frames.Content(source.read(frame.image), mask, {1: 1}, (64, 48))

    monkeypatch.setattr(frames, "read_frame", unchecked)
    vspw.convert(source, tmp_path / "records")
    tiny_config.data.records, tiny_config.data.epoch = str(tmp_path / "records"), "frame"
    with pytest.raises(UserError, match=f"Frame 00000003 of video 0_.*{message}"):
        batches = pipeline.training_batches(tiny_config.data, 10, tiny_config.model.image_size, 0)
        for _ in range(10):
            next(batches)


def test_a_video_without_frames_and_an_unknown_split(program_refused, refused, tiny_flags, source, tmp_path):
    with (source / "val.txt").open("a") as file:
        file.write("999_missing\n")
    program_refused(["999_missing"], vspw.main, [f"--source={source}", f"--output={tmp_path / 'records'}"])
    parts = ["no split 'dev'", "test, train, val"]
    refused(parts, *tiny_flags, "--config.data.train_split=dev", f"--workdir={tmp_path / 'run'}")


def test_an_existing_output_of_the_generator(program_refused, source):
    program_refused([f"{source} exists", "--output"], generate.main, [f"--output={source}"])


def test_a_conversion_that_was_killed_is_begun_anew(source, tmp_path):
    """TFDS writes aside; the folder aside can even hold all the metadata when the process dies."""
    vspw.convert(source, tmp_path / "whole")
    aside = tmp_path / "records" / "vspw" / "incomplete.ABC123_1.0.0"
    shutil.copytree(records.find(tmp_path / "whole"), aside)
    assert not records.exist(tmp_path / "records")
    vspw.convert(source, tmp_path / "records")
    assert not aside.exists() and len(records.Frames(tmp_path / "records", "train")) == 50


BAD_INPUTS = {
    "missing": (lambda path: None, "does not exist"),
    "empty folder": (lambda path: path.mkdir(), "holds no frames"),
    "no video": (lambda path: path.write_bytes(b"junk" * 100), "cannot be read as a video"),
}


@pytest.mark.parametrize(("make", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS.keys())
def test_bad_input_to_predict(refused, tiny_flags, tmp_path, monkeypatch, make, message):
    make(tmp_path / "input.mp4")
    monkeypatch.setattr("vspw_jax.training.trained.predictor", lambda *_: None)
    arguments = ["--mode=predict", f"--input={tmp_path / 'input.mp4'}", f"--workdir={tmp_path / 'run'}"]
    refused([str(tmp_path / "input.mp4"), message], *tiny_flags, *arguments)
    assert not (tmp_path / "run").exists()
