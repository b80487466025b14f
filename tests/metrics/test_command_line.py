"""`python -m vspw_jax.metrics` on a folder of PNGs: what it scores, and what it says of what is wrong with them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import data_prep.vspw
from benchmarks import metrics as loops
from tests.inputs import frames, masks
from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError
from vspw_jax.metrics import __main__ as program
from vspw_jax.metrics import predictions, temporal_consistency
from vspw_jax.metrics.truth import open_truth


def scored(tmp_path, folder, data, *options):
    output = tmp_path / "scores.json"
    program.main([f"--predictions={folder}", f"--data={data}", f"--output={output}", "--threads=2", *options])
    return json.loads(output.read_text())


def first_file(folder):
    return sorted(folder.rglob("*.png"))[0]


def test_scores_are_the_devkits_from_files_records_and_zip(tmp_path, shifted, truth, generated_vspw, generated_records):
    result = scored(tmp_path, shifted, generated_vspw, "--flow=none")
    folder, videos = predictions.Folder(shifted), []
    for video in truth.videos:
        videos.append([[source(video.name, frame) for frame in video.frames] for source in (truth.label, folder.mask)])
    for name, value in loops.devkit_scores(videos).items():
        if np.isfinite(value):
            assert result[name] == pytest.approx(value, abs=1e-12), name
    assert "TC" not in result and result["counted"]["videos"] == 3 and result["predictions"] == str(shifted)
    archive = shutil.make_archive(tmp_path / "vspw", "zip", generated_vspw)
    shutil.copytree(generated_vspw, tmp_path / "folder" / "VSPW_480p")
    for data in (generated_records, archive, tmp_path / "folder"):
        assert scored(tmp_path, shifted, data, "--flow=none") == result


def test_raw_ids_by_option_or_named_in_the_error(tmp_path, shifted, spoilt, generated_vspw):
    for path in spoilt.rglob("*.png"):
        Image.fromarray(vspw.to_raw(np.asarray(Image.open(path)))).save(path)
    expected, found = (
        scored(tmp_path, folder, generated_vspw, "--flow=none", *options)
        for folder, options in ((shifted, ()), (spoilt, ["--masks-are=raw_ids"]))
    )
    assert {**found, "predictions": ""} == {**expected, "predictions": ""}
    warnings = scored(tmp_path, spoilt, generated_vspw, "--flow=none")["warnings"]
    assert any("--masks-are=raw_ids" in warning for warning in warnings)
    Image.fromarray(np.full((48, 64), 124, np.uint8)).save(first_file(spoilt))
    with pytest.raises(UserError, match=r"prediction 124: expected class ids 0\.\.123.*--masks-are=raw_ids"):
        scored(tmp_path, spoilt, generated_vspw)


def test_tc_is_of_the_first_videos_alone(tmp_path, shifted, generated_vspw, monkeypatch):
    every = scored(tmp_path, shifted, generated_vspw)["TC"]
    monkeypatch.setattr(temporal_consistency, "MOST_VIDEOS", 1)
    assert 0 < scored(tmp_path, shifted, generated_vspw)["TC"] != every


def test_tc_of_flow_files(tmp_path, truth, shifted, generated_vspw):
    for video in truth.videos:
        (tmp_path / "flow" / video.name).mkdir(parents=True)
        for frame in video.frames[:-1]:
            np.save(tmp_path / "flow" / video.name / f"{frame}.npy", np.zeros((48, 64, 2), np.float32))
    assert 0 < scored(tmp_path, shifted, generated_vspw, f"--flow={tmp_path / 'flow'}")["TC"] < 1


def test_missing_videos_and_frames_are_listed(tmp_path, spoilt, generated_vspw):
    gone = [path.name for path in sorted(spoilt.iterdir())[:2]]
    with pytest.raises(UserError, match=r"They are one folder down: --predictions=.*spoilt"):
        scored(tmp_path, tmp_path, generated_vspw)
    shutil.rmtree(spoilt / gone[0])
    first_file(spoilt / gone[1]).unlink()
    with pytest.raises(UserError, match=rf"lacks 1 of 3 videos: {gone[0]}"):
        scored(tmp_path, spoilt, generated_vspw)
    shutil.copytree(spoilt / gone[1], spoilt / gone[0])
    with pytest.raises(UserError, match=rf"lacks 2 of 30 frames: {gone[0]}/00000001\.png, {gone[1]}/00000001\.png"):
        scored(tmp_path, spoilt, generated_vspw)


def spoil_colours(path):
    Image.open(path).convert("RGB").save(path)


def spoil_depth(path):
    Image.fromarray(np.full((48, 64), 300, np.uint16)).save(path)


def spoil_kind(path):
    Image.open(path).convert("L").save(path, "JPEG")


def spoil_size(path):
    Image.fromarray(np.zeros((64, 48), np.uint8)).save(path)


def spoil_end(path):
    path.write_bytes(path.read_bytes()[:-30])


def spoil_values(path):
    Image.fromarray(np.full((48, 64), 254, np.uint8)).save(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_colours, "holds colours"),
        (spoil_depth, "holds 300, which takes more than 8 bits"),
        (spoil_kind, "is a JPEG file: expected PNG"),
        (spoil_size, "is 48x64 pixels; expected 64x48"),
        (spoil_end, "cannot be read as a PNG"),
        (spoil_values, "prediction 254"),
    ],
)
def test_a_bad_file_is_named(tmp_path, spoilt, generated_vspw, spoil, message):
    path = first_file(spoilt)
    spoil(path)
    with pytest.raises(UserError, match=message) as caught:
        scored(tmp_path, spoilt, generated_vspw)
    assert path.parent.name in str(caught.value) and path.stem in str(caught.value)
    assert not (tmp_path / "scores.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data={none}"], "no such folder"),
        (["--split=test"], "no masks"),
        (["--split=nowhere"], "no list nowhere.txt"),
        (["--threads=0"], "expected 1 or more"),
        (["--flow={none}"], "no such folder"),
        (["--report={none}/a/report.html"], "does not exist"),
        (["--predictions={none}"], "no such folder"),
        (["--predictions={shifted}"], "one folder twice"),
    ],
)
def test_wrong_options(tmp_path, shifted, generated_vspw, options, message):
    options = [option.format(none=tmp_path / "none", shifted=shifted) for option in options]
    with pytest.raises(UserError, match=message):
        scored(tmp_path, shifted, generated_vspw, *options)


def test_it_is_no_data(tmp_path, shifted):
    with pytest.raises(UserError, match="does not look like VSPW"):
        scored(tmp_path, shifted, shifted)


def test_short_names_tell_runs_apart():
    assert program.short_names(["runs/a/val", "runs/b/val"]) == ["a/val", "b/val"]
    assert program.short_names(["runs/a/evaluated/val", "runs/b/evaluated/val"]) == ["a", "b"]
    assert program.short_names(["x/first", "y/second/"]) == ["first", "second"]


def test_two_runs_make_a_list(tmp_path, shifted, more_shifted, generated_vspw):
    first, second = scored(tmp_path, shifted, generated_vspw, f"--predictions={more_shifted}", "--flow=none")
    assert first["mIoU"] > second["mIoU"]


def test_a_mask_that_is_missing_in_the_data_is_named(tmp_path, shifted, generated_vspw):
    data = shutil.copytree(generated_vspw, tmp_path / "data")
    video = open_truth(data, "val").videos[0].name
    (data / "data" / video / "mask" / "00000003.png").unlink()
    with pytest.raises(UserError, match=rf"{video}/mask/00000003\.png is missing"):
        scored(tmp_path, shifted, data)


def test_frames_are_scored_in_the_order_of_their_numbers(tmp_path, generated_vspw):
    data = shutil.copytree(generated_vspw, tmp_path / "data")
    frames.vspw_video(data, "val", ["1.jpg", "10.jpg", "2.JPG"])
    assert open_truth(data, "val").videos[-1].frames == ("1", "2", "10")


def test_few_bits_and_equal_channels_mean_the_same_ids(tmp_path, shifted, spoilt, generated_vspw):
    path = first_file(spoilt)
    ids = np.minimum(np.asarray(Image.open(path)), 15)
    results = []
    for bits, kind in ((8, masks.GREY), (4, masks.GREY), (4, masks.PALETTE), (16, masks.GREY), (8, masks.RGB)):
        path.write_bytes(masks.png(ids, kind, bits))
        results.append(scored(tmp_path, spoilt, generated_vspw, "--flow=none"))
    assert all(result == results[0] for result in results)


def test_damaged_files_of_the_data_are_named(tmp_path, shifted, generated_vspw):
    data = shutil.copytree(generated_vspw, tmp_path / "data")
    folder = data / "data" / open_truth(data, "val").videos[0].name
    image, mask = folder / "origin" / "00000003.jpg", folder / "mask" / "00000003.png"
    image.write_bytes(frames.half_with_end(image.read_bytes()))
    with pytest.raises(UserError, match=rf"^{data}.*origin/00000003\.jpg is damaged or cut off"):
        scored(tmp_path, shifted, data)
    mask.write_bytes(frames.encoded("JPEG"))
    with pytest.raises(UserError, match=r"mask/00000003\.png is a JPEG file: expected PNG"):
        scored(tmp_path, shifted, data, "--flow=none")


def test_masks_of_void_alone_are_not_called_missing(tmp_path, shifted, generated_vspw):
    data = shutil.copytree(generated_vspw, tmp_path / "data")
    for video in open_truth(data, "val").videos:
        for path in (data / "data" / video.name / "mask").iterdir():
            Image.fromarray(np.full((48, 64), 255, np.uint8)).save(path)
    data_prep.vspw.convert(data, tmp_path / "records")
    for form in (data, tmp_path / "records"):
        with pytest.raises(UserError, match="No pixel has a label: all 92160 pixels of 30 frames are void"):
            scored(tmp_path, shifted, form, "--flow=none")
