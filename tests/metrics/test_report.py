"""The report as a file: the same every time, self-contained, bounded, and nothing in it taken for HTML."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from vspw_jax.classes import vspw
from vspw_jax.metrics import __main__ as program
from vspw_jax.metrics import predictions, report, report_clips, scores
from vspw_jax.metrics.shown_run import ShownRun


@pytest.fixture(scope="module")
def runs(truth, shifted, more_shifted):
    made = []
    for folder in map(predictions.Folder, (shifted, more_shifted)):
        counts = predictions.count(truth, folder, threads=2)
        made.append(ShownRun(folder.path.name, folder, counts, scores.summarise(counts, vspw.classes())))
    return made


def shown(page):
    """The page's JSON."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_same_runs_give_the_same_bytes(tmp_path, truth, runs):
    for name in ("a.html", "b.html"):
        report.write(tmp_path / name, truth, runs, "python")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_it_asks_for_nothing_outside_of_itself(truth, runs):
    page = report.page(report.content(truth, runs[:1]))
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # A name, not a place.
    assert not re.search(r"<link|<script[^>]+src|@import|url\(|/\*INSERT", page)


def test_names_are_text_never_html(truth, runs):
    evil = "</script><img src=x onerror=alert(1)><!--"
    run = ShownRun(evil, runs[0].folder, runs[0].counts, runs[0].result)
    page = report.page(report.content(truth, [run], evil))
    assert evil not in page and page.count("</script>") == 2
    assert shown(page)["runs"][0]["name"] == shown(page)["command"] == evil
    assert "innerHTML" not in page and "insertAdjacentHTML" not in page and "document.write" not in page


def test_it_holds_the_scores_the_matrix_and_the_course_of_each_video(truth, runs):
    content = report.content(truth, runs)
    run, (change,) = content["runs"][0], content["differences"]
    assert run["scores"]["mIoU"] == runs[0].result["mIoU"]
    assert change["mIoU"][0] == pytest.approx(runs[1].result["mIoU"] - runs[0].result["mIoU"])
    total = scores.total_matrix(runs[0].counts)
    assert np.sum(run["confusion"]["pixels"]) == total.sum()
    assert run["confusion"]["classes"] == sorted(set(np.argwhere(total).ravel().tolist()))
    (video, *_) = run["videos"]
    assert len(video["course"]["accuracy"]) == 10 and len(video["course"]["VC8"]) == 2 and video["course"]["VC16"] == []
    assert np.mean(video["course"]["VC8"]) == pytest.approx(video["VC8"], abs=1e-3)
    json.dumps(content, allow_nan=False)


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_pictures_show_truth_prediction_and_error(truth, runs):
    clip = report_clips.clips(truth, runs)[0]
    frame = clip["frames"][3]
    label, mask = truth.label(clip["video"], frame["name"]), runs[1].folder.mask(clip["video"], frame["name"])
    known = label != vspw.VOID
    colours = np.asarray(opened(frame["truth"]).convert("RGBA"))
    np.testing.assert_array_equal(colours[known][:, :3], vspw.classes().picture_palette[label[known]])
    np.testing.assert_array_equal(colours[..., 3] == 0, ~known)
    error = np.asarray(opened(frame["runs"][1]["error"]))
    np.testing.assert_array_equal(error == report_clips.WRONG, known & (label != mask))
    np.testing.assert_array_equal(error == report_clips.UNSCORED, ~known)
    assert opened(frame["image"]).size == (64, 48) and frame["number"] == 3


def test_the_pictures_are_bounded(truth, runs, monkeypatch):
    monkeypatch.setattr(report_clips, "MAX_BYTES", 60_000)
    monkeypatch.setattr(report_clips, "WIDTH", 32)
    monkeypatch.setattr(report_clips, "FRAMES", 5)
    found = report_clips.clips(truth, runs)
    assert [frame["number"] for frame in found[0]["frames"]] == [0, 2, 4, 7, 9]
    assert found[0]["frames"][0]["size"] == (32, 24)
    monkeypatch.setattr(report_clips, "MAX_BYTES", 15_000)
    found = report_clips.clips(truth, runs)
    assert sum(len(clip["frames"]) for clip in found) < 15
    assert sum(report_clips._size(frame) for clip in found for frame in clip["frames"]) <= 15_000


def test_the_worst_the_best_and_the_most_different_are_chosen():
    first = {f"v{n:02d}": {"mIoU": n / 20} for n in range(20)} | {"void": {"mIoU": None}}
    second = {name: {"mIoU": own["mIoU"]} for name, own in first.items()} | {"v10": {"mIoU": 0.0}}
    run = lambda videos: ShownRun("", None, [], {"videos": videos})
    assert [name for name, _ in report_clips.chosen([run(first)])] == ["v00", "v01", "v02", "v17", "v18", "v19"]
    picked = dict(report_clips.chosen([run(first), run(second)]))
    assert picked["v10"] == "where the runs differ" and picked["v00"] == "among the worst" and "void" not in picked


def test_the_program_writes_it(tmp_path, shifted, generated_records, capsys):
    page = tmp_path / "report.html"
    program.main([f"--predictions={shifted}", f"--data={generated_records}", f"--report={page}"])
    content = shown(page.read_text())
    assert content["command"].startswith("python -m vspw_jax.metrics --predictions=")
    assert len(content["data"]["fingerprint"]) == 64 and re.fullmatch(r"\d{4}-\d\d-\d\d", content["data"]["date"])
    assert "mIoU" in capsys.readouterr().out
