"""One HTML page about one or more runs on the same split. It needs no other file and no network.

The page is page/report.html with its style, its scripts and its content, as JSON, put in. The scripts build everything
from the JSON, as text and never as HTML. The same predictions give the same bytes. Its pictures are bounded: at most
CLIPS clips of at most FRAMES frames, WIDTH pixels wide, and MAX_BYTES for all of them.
"""

import functools
import importlib.resources
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vspw_jax.classes.class_list import VOID
from vspw_jax.console import places
from vspw_jax.files.whole_files import whole_file
from vspw_jax.metrics import report_clips, scores, video_consistency
from vspw_jax.metrics.counts import VideoCounts
from vspw_jax.metrics.shown_run import ShownRun
from vspw_jax.metrics.truth import Truth

HEADLINE = ("mIoU", "fwIoU", "pixel_accuracy", "VC8", "VC16", "TC")
OTHERS = ("class_accuracy", "video_mIoU", "video_fwIoU", *scores.CORRECT)
LABELS = {
    "mIoU": ("mIoU", "intersection over union, mean over the classes that occur"),
    "fwIoU": ("fwIoU", "intersection over union, weighted by the classes' pixels"),
    "pixel_accuracy": ("pixel accuracy", "labelled pixels that are right"),
    "class_accuracy": (
        "class accuracy",
        "right pixels of each class, mean over the classes that occur",
    ),
    "VC8": ("VC8", "of the pixels whose label stays over 8 frames, those whose prediction stays too, right or wrong"),
    "VC16": ("VC16", "as VC8, over 16 frames"),
    "TC": (
        "TC",
        "mIoU of each prediction with the next one, warped back along optical flow (DIS unless files were given)",
    ),
    "video_mIoU": ("video mIoU", "mIoU of each video, mean over the videos"),
    "video_fwIoU": ("video fwIoU", "fwIoU of each video, mean over the videos"),
    "VC8_correct": ("VC8, correct", "VC8 that counts only predictions that are the label; not the devkit's"),
    "VC16_correct": ("VC16, correct", "the same over 16 frames; not the devkit's"),
}


def _rounded(values: Iterable[float], digits: int = 4) -> list[float | None]:
    return [None if not np.isfinite(value) else round(float(value), digits) for value in values]


def _matrix(counts: Sequence[VideoCounts]) -> dict[str, list]:
    """Ids of the classes that are labelled or predicted, and the matrix of these classes, as lists."""
    matrix_KK = scores.total_matrix(counts)
    present = np.flatnonzero(matrix_KK.sum(axis=0) + matrix_KK.sum(axis=1))
    return {"classes": present.tolist(), "pixels": matrix_KK[np.ix_(present, present)].tolist()}


def curves(video: VideoCounts) -> dict[str, list[float | None]]:
    """A video's course: accuracy by frame, and ratios of the devkit's windows by first frame."""
    labelled_F, right_F = video.frames.T
    result = {"accuracy": _rounded(np.where(labelled_F > 0, right_F / np.maximum(labelled_F, 1), np.nan))}
    for length in video_consistency.LENGTHS:
        stable_W, constant_W = video.windows[length][:-1, :2].T
        result[f"VC{length}"] = _rounded(np.where(stable_W > 0, constant_W / np.maximum(stable_W, 1), np.nan))
    return result


def _run(run: ShownRun) -> dict[str, Any]:
    own = sorted(run.counts, key=lambda video: video.video)
    names = ("frames", "mIoU", "pixel_accuracy", "VC8", "VC16")
    return {
        "name": run.name,
        "scores": {name: run.result.get(name) for name in (*HEADLINE, *OTHERS)},
        "intervals": run.result["intervals"],
        "constant": run.result["commonest_class"],
        "warnings": run.result["warnings"],
        "confusion": _matrix(run.counts),
        "videos": [
            {"name": video.video, **{n: run.result["videos"][video.video][n] for n in names}, "course": curves(video)}
            for video in own
        ],
    }


def content(truth: Truth, runs: Sequence[ShownRun], command: str = "") -> dict[str, Any]:
    """What the page shows, as a dict for JSON.

    Args:
      truth: of the videos that the runs predicted.
      runs: the others are compared with the first.
      command: the command line that made the page.
    """
    classes, palette = truth.classes, truth.classes.picture_palette.tolist()
    shown = sorted({k for run in runs for k in _matrix(run.counts)["classes"]} | set(range(len(classes))))
    return {
        "labels": LABELS,
        "headline": HEADLINE,
        "others": OTHERS,
        "classes": {k: {"name": classes.name(k), "colour": palette[min(k, VOID)]} for k in shown},
        "data": {
            "path": places.shown(truth.path),
            "split": truth.split,
            "date": truth.date,
            "fingerprint": truth.fingerprint,
            **runs[0].result["counted"],
        },
        "limits": {"frames": report_clips.FRAMES, "width": report_clips.WIDTH},
        "command": command,
        "resampling": runs[0].result["resampling"],
        "runs": [_run(run) for run in runs],
        "differences": [scores.differences(runs[0].counts, run.counts) for run in runs[1:]],
        "clips": report_clips.clips(truth, runs),
    }


@functools.cache
def _part(name: str) -> str:
    return (importlib.resources.files("vspw_jax") / "metrics" / "page" / name).read_text(encoding="utf-8")


def page(shown: dict[str, Any]) -> str:
    """The HTML page of `content`."""
    # Within a script element, only "<" can end the element or begin a comment.
    text = json.dumps(shown, ensure_ascii=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    script = "\n".join(_part(f"{name}.js") for name in ("report", "clips", "confusion"))
    parts = {"STYLE": _part("report.css"), "SCRIPT": script, "DATA": text}
    before, *pieces = _part("report.html").split("/*INSERT ")
    for piece in pieces:
        name, after = piece.split("*/", 1)
        before += parts[name] + after
    return before


def write(path: pathlib.Path | str, truth: Truth, runs: Sequence[ShownRun], command: str = "") -> None:
    """Writes the page to a file; see `content`."""
    text = page(content(truth, runs, command))
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
