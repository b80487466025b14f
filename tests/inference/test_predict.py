"""Predictions of a video on disk: what is written, and that a run that was stopped goes on where it was."""

import csv
import fractions
import json
import shutil
import types

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.inputs import films, workdirs
from vspw_jax.classes import vspw
from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError
from vspw_jax.inference import predict, prediction_folder, scores, sources, video
from vspw_jax.inference.predictor import FULL_SCORES, Result


class Stub:
    """A predictor whose class is a frame's red level over 8; `stops_at` frames it is interrupted."""

    batch, num_classes, top_classes, remembers, classes = 3, 124, 2, False, vspw.classes()

    def __init__(self, weights="w", stops_at=None, save_scores=False):
        self.options = types.SimpleNamespace(save_scores=save_scores, flow_weight=0.0)
        self.weights, self.seen, self._stops_at = weights, [], stops_at

    def identity(self):
        return {"recipe": "stub", "step": 7, "weights": self.weights}

    def start(self, images):
        if self._stops_at is not None and len(self.seen) >= self._stops_at:
            raise KeyboardInterrupt
        self.seen += [image[0, 0, 0] for image in images]
        label = np.stack([image[..., 0] // 8 for image in images])
        compact = scores.Compact(*(np.zeros((*label.shape[1:], 2), t) for t in (np.float16, np.uint8)), label[0] * 0.0)
        return types.SimpleNamespace(labels=lambda: label, scores=lambda: [compact] * len(images))


@pytest.fixture
def frames(tmp_path):
    """Ten frames of 20x15, their red levels 0, 16, 32, ..."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(10):
        cv2.imwrite(str(folder / f"{number:03d}.png"), np.full((15, 20, 3), (0, 0, 16 * number), np.uint8))
    return sources.find(folder)[0]


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("overlap", [True, False])
def test_what_is_written(frames, tmp_path, overlap):
    output = tmp_path / "out"
    assert predict.predict_source(Stub(), frames, output, side_by_side=True, overlap=overlap) == 10
    for number in range(10):
        with Image.open(output / "masks" / f"{number:03d}.png") as mask:
            assert mask.mode == "P" and (np.asarray(mask) == 2 * number).all()
            assert mask.getpalette()[3 * 2 * number :][:3] == vspw.classes().palette[2 * number].tolist()
    shown = cv2.imread(str(output / "overlays" / "009.jpg"))
    assert shown.shape == (480, 640 + 200, 3)
    sizes = [next(sources.find(output / name)[0].frames())[1].shape for name in ("overlay.mp4", "side_by_side.mp4")]
    assert sizes == [(480, 840, 3), (480, 1480, 3)]
    with (output / "palette.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 124 and [rows[5][c] for c in "rgb"] == [str(c) for c in vspw.classes().palette[5]]
    assert json.loads((output / "prediction.json").read_text())["frames"] == 10
    assert not list(output.rglob("partial-*"))


def test_names_and_colours_are_those_of_the_networks_classes(frames, tmp_path):
    predictor, names = Stub(), [f"kind {number}" for number in range(30)]
    colours = tuple((number, 200, 7) for number in range(30))
    predictor.classes = ClassList(tuple(names), colours, colours)
    predict.predict_source(predictor, frames, tmp_path / "out")
    with (tmp_path / "out" / "palette.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == names
    with Image.open(tmp_path / "out" / "masks" / "009.png") as mask:
        assert mask.getpalette()[3 * 18 :][:3] == [18, 200, 7]


@pytest.mark.parametrize("stops_at", [0, 3, 9])
def test_a_run_that_was_stopped_goes_on_and_leaves_the_same(frames, tmp_path, stops_at):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    predict.predict_source(Stub(), frames, whole)
    with pytest.raises(KeyboardInterrupt):
        predict.predict_source(Stub(stops_at=stops_at), frames, stopped)
    assert not (stopped / "overlay.mp4").exists()
    (stopped / "partial-overlay.mp4").write_bytes(b"what a kill leaves")
    there = sorted(int(path.stem) for path in (stopped / "masks").iterdir())
    predictor = Stub()
    assert predict.predict_source(predictor, frames, stopped) == 10 - len(there)
    assert sorted(predictor.seen) == [16 * number for number in range(10) if number not in there]
    assert content(stopped) == content(whole)
    # And once it is whole nothing is done at all.
    times = {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    assert predict.predict_source(Stub(stops_at=0), frames, stopped) == 0
    assert {path: path.stat().st_mtime_ns for path in stopped.rglob("*")} == times


class Smoothed(Stub):
    """A predictor of noisy scores that flow smooths."""

    def __init__(self, stops_at=None):
        super().__init__(stops_at=stops_at)
        self.options.flow_weight = 0.7

    def start(self, images):
        label = super().start(images).labels()
        noise = [np.random.default_rng(int(image[0, 0, 0])).uniform(size=(*image.shape[:2], 40)) for image in images]
        score = np.stack(noise).astype(np.float16)
        return Result({"label": score.argmax(-1).astype(np.uint8), FULL_SCORES: score}, len(label))


def test_a_smoothed_prediction_that_was_stopped_begins_anew_and_leaves_the_same(frames, tmp_path):
    """Frames of one colour, brighter by 16 of 255 in one channel each, are seen in each other."""
    assert predict.predict_source(Smoothed(), frames, tmp_path / "whole") == 10
    with pytest.raises(KeyboardInterrupt):
        predict.predict_source(Smoothed(stops_at=6), frames, tmp_path / "stopped")
    assert predict.predict_source(Smoothed(), frames, tmp_path / "stopped") == 10
    masks = [content(tmp_path / folder / "masks") for folder in ("whole", "stopped")]
    assert masks[0] == masks[1] and len(masks[0]) == 10
    alone = Smoothed().start([image for _, image, _ in frames.frames()]).labels()
    kept = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "whole" / "masks").glob("*.png"))]
    np.testing.assert_array_equal(kept[0], alone[0])
    assert all((mask != own).any() for mask, own in zip(kept[1:], alone[1:], strict=True))


def test_a_mask_that_is_gone_or_damaged_is_predicted_again(frames, tmp_path):
    predict.predict_source(Stub(), frames, tmp_path / "out")
    before = content(tmp_path / "out")
    (tmp_path / "out" / "masks" / "004.png").unlink()
    (tmp_path / "out" / "masks" / "007.png").write_bytes(before["masks/007.png"][:40])
    predictor = Stub()
    assert predict.predict_source(predictor, frames, tmp_path / "out") == 2
    assert predictor.seen == [64, 112] and content(tmp_path / "out") == before


def test_a_folder_of_another_model_or_input_is_refused(frames, tmp_path):
    output = tmp_path / "out"
    predict.predict_source(Stub(), frames, output)
    before = content(output)
    with pytest.raises(UserError, match="another model or input:\n  weights: w there, v now\nChoose another"):
        predict.predict_source(Stub("v"), frames, output)
    cv2.imwrite(str(tmp_path / "frames" / "010.png"), np.zeros((15, 20, 3), np.uint8))
    with pytest.raises(UserError, match="\n  fingerprint: "):
        predict.predict_source(Stub(), sources.find(tmp_path / "frames")[0], output)
    assert content(output) == before
    claim = (output / "prediction.json").read_text()
    for damage in (*workdirs.DAMAGED_JSON.values(), lambda _: '{"frames": "ten"}'):
        (output / "prediction.json").write_text(damage(claim))
        with pytest.raises(UserError, match="prediction.json is damaged.*delete"):
            predict.predict_source(Stub(), frames, output)
    (output / "prediction.json").unlink()
    with pytest.raises(UserError, match="holds files, but no .*prediction.json says of what"):
        predict.predict_source(Stub(), frames, output)


def test_after_a_frame_was_mended_the_advice_of_its_message_works(frames, tmp_path):
    bad, output = tmp_path / "frames" / "004.png", tmp_path / "out"
    bad.write_bytes(b"junk")
    with pytest.raises(UserError, match="004.png cannot be read as a picture .*another input: .*another --output=DIR"):
        predict.predict_source(Stub(), sources.find(tmp_path / "frames")[0], output)
    bad.unlink()
    mended = sources.find(tmp_path / "frames")[0]
    with pytest.raises(UserError, match="another model or input"):
        predict.predict_source(Stub(), mended, output)
    assert predict.predict_source(Stub(), mended, tmp_path / "another") == 9
    shutil.rmtree(output)
    assert predict.predict_source(Stub(), mended, output) == 9


def test_times_of_the_input_are_those_of_the_output(tmp_path):
    unit, times = fractions.Fraction(1, 600), [0, 20, 40, 200, 201, 500]
    with video.video_writer(tmp_path / "a.mp4", 30, unit) as append:
        for number, time in enumerate(times):
            append(np.full((33, 47, 3), 16 * number, np.uint8), time)
    predict.predict_source(Stub(), sources.find(tmp_path / "a.mp4")[0], tmp_path / "out")
    (film,) = sources.find(tmp_path / "out" / "overlay.mp4")
    assert [time * film.unit for _, _, time in film.frames()] == [time * unit for time in times]


def test_frames_of_several_sizes(tmp_path):
    for number, size in enumerate([(15, 20), (15, 20), (20, 15), (15, 20)]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((*size, 3), np.uint8))
    assert predict.predict_source(Stub(), sources.find(tmp_path)[0], tmp_path / "out") == 4
    sizes = [cv2.imread(str(tmp_path / "out" / "masks" / f"{number}.png")).shape[:2] for number in range(4)]
    assert sizes == [(15, 20), (15, 20), (20, 15), (15, 20)]


def test_scores_are_kept_beside_the_masks_and_go_on_too(frames, tmp_path, capsys, fill_up):
    fill_up(2000)
    with pytest.raises(UserError, match="(?s)No room: scores in .*take up to 0.00 GiB.*top_classes"):
        predict.predict_source(Stub(save_scores=True), frames, tmp_path / "out")
    fill_up(2**40)
    with pytest.raises(KeyboardInterrupt):
        predict.predict_source(Stub(save_scores=True, stops_at=6), frames, tmp_path / "out")
    with pytest.raises(UserError, match="holds no whole scores"):
        scores.Reader(tmp_path / "out" / "scores")
    assert predict.predict_source(Stub(save_scores=True), frames, tmp_path / "out") >= 4
    assert "Scores in" in capsys.readouterr().out
    reader = scores.Reader(tmp_path / "out" / "scores")
    assert list(reader.videos) == ["frames"] and len(reader.videos["frames"]) == 10
    assert reader.frame("frames", "003").values.shape == (15, 20, 2)


def test_another_opacity_draws_again_but_predicts_nothing(frames, tmp_path):
    output = tmp_path / "out"
    predict.predict_source(Stub(), frames, output, side_by_side=True, opacity=0.5)
    before = content(output)
    assert predict.predict_source(Stub(stops_at=0), frames, output, opacity=0.9) == 0
    after = content(output)
    changed = {name for name in before if before[name] != after.get(name)}
    drawn = {name for name in before if name.endswith((".jpg", ".mp4"))} - {"overlays/000.jpg"}  # Class 0 over black.
    assert changed >= drawn | {"prediction.json"} and not any(name.startswith("masks") for name in changed)
    assert "side_by_side.mp4" not in after  # It was not asked for again.
    predict.predict_source(Stub(stops_at=0), frames, output, side_by_side=True, opacity=0.5)
    assert content(output) == before


def test_a_folder_that_does_not_say_how_it_was_drawn_is_drawn_again(frames, tmp_path):
    """As those from before `drawing`."""
    predict.predict_source(Stub(), frames, tmp_path / "out")
    before = content(tmp_path / "out")
    claim = json.loads(before["prediction.json"])
    del claim["drawing"]
    (tmp_path / "out" / "prediction.json").write_text(json.dumps(claim))
    (tmp_path / "out" / "overlays" / "004.jpg").write_bytes(b"of other colours")
    assert predict.predict_source(Stub(stops_at=0), frames, tmp_path / "out") == 0
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize("file", ["out", "out/masks"])
def test_an_output_that_is_a_file_is_said(frames, tmp_path, file):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"a film")
    with pytest.raises(UserError, match="masks cannot be written: .*Not a directory.* choose another --output=DIR"):
        predict.predict_source(Stub(), frames, tmp_path / "out")
    assert path.read_bytes() == b"a film"


@pytest.mark.parametrize("size", [(1, 9000), (9000, 1), (1, 1), (3, 501)])
def test_frames_of_any_size_have_masks_of_that_size(tmp_path, size, capsys):
    cv2.imwrite(str(tmp_path / "1.png"), np.full((*size, 3), 80, np.uint8))
    output = tmp_path / "out"
    assert predict.predict_source(Stub(), sources.find(tmp_path)[0], output, side_by_side=True) == 1
    assert cv2.imread(str(output / "masks" / "1.png")).shape[:2] == size
    said = f"frames of {size[1]}x{size[0]} are drawn at "
    assert (said in capsys.readouterr().out) == (max(size) == 9000)
    for film in prediction_folder.FILMS:
        ((_, shown, _),) = sources.find(output / film)[0].frames()
        assert shown.shape[0] >= 220


def test_the_same_command_goes_on_where_its_output_lies_in_its_input(frames, tmp_path):
    folder = tmp_path / "frames"
    before = predict.predict_source(Stub(), frames, folder)
    (again,) = sources.find(folder)
    assert before == again.count == 10
    assert predict.predict_source(Stub(stops_at=0), again, folder) == 0


def test_a_film_that_begins_late_and_is_cut_off(tmp_path):
    path = films.film(tmp_path / "a.mkv", films.noise(30, (16, 16)) // 8, [800_000 + number for number in range(30)])
    (film,) = sources.find(films.cut(path, 0.6))
    count = predict.predict_source(Stub(), film, tmp_path / "out")
    assert 5 < count < 30
    assert any("its header announces 80003.0" in complaint for complaint in film.complaints)
    (again,) = sources.find(path)
    assert predict.predict_source(Stub(stops_at=0), again, tmp_path / "out") == 0
    assert again.complaints == film.complaints  # What is not there is said again.
    (shown,) = sources.find(tmp_path / "out" / "overlay.mp4")
    assert [time * shown.unit for _, _, time in shown.frames()] == [fractions.Fraction(n, 10) for n in range(count)]
