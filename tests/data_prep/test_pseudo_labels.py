"""Records whose labels are predictions: what is written, and that nothing is scored against them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from configs import nce
from data_prep import pseudo_labels
from data_prep.conversion import relabelled
from data_prep.verification import checks
from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError
from vspw_jax.data import mixture, records
from vspw_jax.evaluation import evaluate
from vspw_jax.files import mask_png
from vspw_jax.inference import scores
from vspw_jax.metrics import __main__ as scoring
from vspw_jax.metrics import predictions, truth

CLASSES = 124


def predicted_label(number):
    """Two classes that depend on the record, and void."""
    label = np.full((48, 64), number % CLASSES, np.uint8)
    label[:, 32:] = (number + 60) % CLASSES
    label[:4] = 255
    return label


@pytest.fixture(scope="module")
def folder(generated_records, tmp_path_factory):
    """Predictions of the training split, one for each frame."""
    path, frames = tmp_path_factory.mktemp("predicted"), records.Frames(generated_records, "train")
    for number in range(len(frames)):
        record = frames[number]
        file = predictions.path_of(path, record["video"], record["frame"])
        mask_png.save(predicted_label(number), file, vspw.classes())
    return path


@pytest.fixture(scope="module")
def converted(generated_records, folder, tmp_path_factory):
    """(records with these as labels but for each video's first, the sentence about them)."""
    output = tmp_path_factory.mktemp("pseudo") / "records"
    return output, pseudo_labels.convert(generated_records, folder, output, "first")


def test_labels_are_the_predictions_but_of_the_frames_that_keep_theirs(generated_records, folder, converted):
    output, said = converted
    before, after = records.Frames(generated_records, "train"), records.Frames(output, "train")
    assert said == f"train: 45 of 50 labels are predictions of {folder}" and after.videos == before.videos
    for number in range(50):
        image, label = after.image_and_label(number)
        own_image, own_label = before.image_and_label(number)
        np.testing.assert_array_equal(image, own_image)
        np.testing.assert_array_equal(label, own_label if number % 10 == 0 else predicted_label(number))
    for split in ("val", "test"):
        before, after = (records.Frames(path, split) for path in (generated_records, output))
        assert after.fingerprint == before.fingerprint and not after.note


def test_no_bit_of_a_label_that_is_not_kept_is_in_the_new_records(generated_records, converted):
    before, after = records.Frames(generated_records, "train"), records.Frames(converted[0], "train")
    old = [before[number]["mask_png"] for number in range(50) if number % 10]
    content = b"".join(path.read_bytes() for path in after.path.glob("*-train.array_record*"))
    assert after[0]["mask_png"] in content and not any(mask in content for mask in old)


def save_scores(folder, frames, identity):
    """Of the predictions, two classes of 124 kept: the left half of a frame is sure (0.9 of the sum), the right is
    not (0.5)."""
    writer = scores.Writer(folder, {"fingerprint": frames.fingerprint, **identity}, CLASSES, 2)
    values = np.zeros((48, 64, 2), np.float16)
    values[:, :32], values[:, 32:] = (0.9, 0.1), (0.5, 0.25)
    rest = np.zeros((48, 64), np.float16)
    rest[:, 32:] = 0.25 / 122
    for number in range(len(frames)):
        record = frames[number]
        writer.enter(record["video"], record["frame"], (48, 64))
        best = predicted_label(number) % CLASSES
        classes = np.stack([best, (best + 1) % CLASSES], axis=-1)
        writer.save(record["video"], record["frame"], scores.Compact(values, classes, rest))
    writer.close()
    return str(folder)


def test_what_is_not_sure_enough_is_void(generated_records, folder, tmp_path):
    saved = save_scores(tmp_path / "scores", records.Frames(generated_records, "train"), {"double_softmax": False})
    given = (generated_records, folder, tmp_path / "records", "first", 0, "train", saved, 0.6)
    assert pseudo_labels.convert(*given).endswith(f"of {folder}, those of a share of 0.6 or more")
    expected = predicted_label(7)
    expected[:, 32:] = 255
    _, label = records.Frames(tmp_path / "records", "train").image_and_label(7)
    np.testing.assert_array_equal(label, expected)
    with pytest.raises(UserError, match="holds records of another source, or made with other options"):
        pseudo_labels.convert(*given[:-1], 0.4)


def test_scores_of_another_run_than_the_predictions_are_refused(generated_records, folder, tmp_path):
    frames = records.Frames(generated_records, "train")
    saved = save_scores(tmp_path / "scores", frames, {"double_softmax": False})
    shutil.copytree(folder, tmp_path / "predicted")
    record = frames[7]
    path = predictions.path_of(tmp_path / "predicted", record["video"], record["frame"])
    label = predicted_label(7)
    label[10, :2] = 99
    mask_png.save(label, path, vspw.classes())
    given = (generated_records, tmp_path / "predicted", tmp_path / "records", "first", 0, "train", saved, 0.6)
    with pytest.raises(UserError, match="has another best class in the scores .*, in 2 of 3,072 pixels"):
        pseudo_labels.convert(*given)


def test_equal_halves_are_a_tie_whether_scores_are_cropped_or_not():
    values, label = np.array([[[0.4, 0.4], [0.5, 0.1]]], np.float16), np.array([[1, 1]], np.uint8)
    for classes, rest in ((None, None), (np.array([[[0, 1]] * 2], np.uint8), np.zeros((1, 2), np.float16))):
        compact = scores.Compact(values, classes, rest)
        np.testing.assert_array_equal(relabelled.agrees(compact, label), [[True, False]])
        assert relabelled.agrees(compact, np.full((1, 2), 255, np.uint8)).all()


def test_verify_says_so_and_finds_no_fault_in_it(converted):
    found = checks.verify(converted[0]).findings
    assert [note for note in found.notes if "predictions" in note] == [f"{converted[1]}, not truth"]
    assert {kind for kind, _ in found.problems} <= {"shift"}


def test_verify_says_so_of_records_that_it_cannot_read(converted, tmp_path):
    output = shutil.copytree(converted[0], tmp_path / "records")
    next(output.rglob("*-train.array_record*")).unlink()
    found = checks.verify(output).findings
    assert f"{converted[1]}, not truth" in found.notes
    assert "unreadable" in {kind for kind, _ in found.problems}


def test_training_takes_them_and_says_so(converted):
    config = nce.get_config("demo").data
    config.records = str(converted[0])
    members = mixture.members(config)
    assert "45 of 50 labels are predictions of " in mixture.report(members, 2)
    assert members[0].frames.highest_class == 109 and members[0].frames.note


def test_nothing_is_scored_against_them(converted, folder):
    output, _ = converted
    refused = "45 of 50 labels are predictions of .*expected labels to score against. Name the records that these"
    with pytest.raises(UserError, match=refused):
        truth.open_truth(output, "train")
    with pytest.raises(UserError, match=refused):
        scoring.main([f"--predictions={folder}", f"--data={output}", "--split=train"])
    config = nce.get_config("demo")
    config.data.update(records=str(output), eval_split="train")
    with pytest.raises(UserError, match=refused):
        evaluate.evaluate(config, None, folder)
    assert truth.open_truth(output, "val").labelled


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--labelled-frames=last"], "--labelled-frames is 'last': expected one of all, drawn"),
        (["--threshold=0.9"], "--threshold=SHARE and --scores=DIR go together"),
        (["--threshold=2", "--scores=x"], "--threshold=2.0: expected 0 to 1"),
        (["--labelled-frames=all"], "keeps the labels of all 50 frames of split 'train'"),
        (["--split=dev"], "has no split 'dev'; it has test, train, val"),
        (["--split=val"], "lacks 3 of 3 videos"),
        (["--predictions=nowhere"], "--predictions=nowhere: no such folder"),
        (["--threshold=0.5", "--scores={whole}"], "second softmax, after which no class is sure"),
        (["--threshold=0.5", "--scores={other}"], "are not scores of split 'train'"),
    ],
)
def test_what_cannot_be_written_is_refused(options, says, generated_records, folder, tmp_path):
    frames = records.Frames(generated_records, "train")
    if "{" in options[-1]:
        whole = save_scores(tmp_path / "whole", frames, {"double_softmax": True})
        other = save_scores(tmp_path / "other", frames, {"fingerprint": "0"})
        options = [option.format(whole=whole, other=other) for option in options]
    given = {"records": generated_records, "predictions": folder, "output": tmp_path / "o", "labelled-frames": "first"}
    with pytest.raises(UserError, match=says):
        pseudo_labels.main([*(f"--{name}={value}" for name, value in given.items()), *options])
    assert not (tmp_path / "o").exists()


def test_a_prediction_that_is_no_class_is_named(generated_records, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "predicted")
    path = sorted((tmp_path / "predicted").glob("*/*.png"))[-1]
    Image.fromarray(np.full((48, 64), 200, np.uint8)).save(path)
    with pytest.raises(UserError, match=r"is predicted as 200 by .*: expected 0\.\.123"):
        pseudo_labels.convert(generated_records, tmp_path / "predicted", tmp_path / "records", "first")


def test_metadata_names_the_predictions(converted, folder):
    stated = json.loads((records.find(converted[0]) / "metadata.json").read_text())[records.PSEUDO_LABELS]
    mark = {"predictions": str(folder), "threshold": 0.0, "labelled_frames": "first", "labels_seed": 0, "frames": 45}
    assert stated == {"train": mark}
