"""One HTML page of one or more runs on the same split, that needs no other file and no network.

The page is page/report.html with the style and the scripts beside it in it, and its content as JSON; the scripts build
everything from that, as text and never as HTML. The same predictions give the same bytes. Its pictures are bounded:
at most CLIPS clips of at most FRAMES frames, WIDTH pixels wide, and MAX_BYTES of them all.
"""

import dataclasses
import functools
import importlib.resources
import json

import numpy as np

from vspw_jax.classes import vspw
from vspw_jax.files.whole_files import whole_file
from vspw_jax.metrics import report_clips, scores, video_consistency

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


@dataclasses.dataclass(frozen=True)
class Run:
    """What is shown of a run: its name, `predictions.Folder`, list of `VideoCounts`, and `scores.summarise` of them."""

    name: str
    folder: object
    counts: list
    result: dict


def _rounded(values, digits=4):
    return [None if not np.isfinite(value) else round(float(value), digits) for value in values]


def _matrix(counts):
    """Ids of the classes that are labelled or predicted, and the matrix of those alone, as lists."""
    matrix_KK = scores.total_matrix(counts)
    present = np.flatnonzero(matrix_KK.sum(axis=0) + matrix_KK.sum(axis=1))
    return {"classes": present.tolist(), "pixels": matrix_KK[np.ix_(present, present)].tolist()}


def curves(video):
    """What changes in the course of a video: accuracy by frame, ratios of the devkit's windows by first frame."""
    labelled_F, right_F = video.frames.T
    result = {"accuracy": _rounded(np.where(labelled_F > 0, right_F / np.maximum(labelled_F, 1), np.nan))}
    for length in video_consistency.LENGTHS:
        stable_W, constant_W = video.windows[length][:-1, :2].T
        result[f"VC{length}"] = _rounded(np.where(stable_W > 0, constant_W / np.maximum(stable_W, 1), np.nan))
    return result


def _run(run):
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


def content(truth, runs, command=""):
    """What the page shows, as a dict for JSON.

    Args:
      truth: of `truth.open_truth`, of the videos that the runs predicted.
      runs: list of `Run`; the first is what the others are compared with.
      command: what made the page.
    """
    palette = vspw.palette().tolist()
    shown = sorted({k for run in runs for k in _matrix(run.counts)["classes"]} | set(range(vspw.NUM_CLASSES)))
    return {
        "labels": LABELS,
        "headline": HEADLINE,
        "others": OTHERS,
        "classes": {k: {"name": scores.class_name(k), "colour": palette[min(k, vspw.VOID)]} for k in shown},
        "data": {
            "path": truth.path,
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
def _part(name):
    return (importlib.resources.files("vspw_jax") / "metrics" / "page" / name).read_text(encoding="utf-8")


def page(shown):
    """The HTML page of `content`."""
    # Within a script element only "<" can end it or begin a comment.
    text = json.dumps(shown, ensure_ascii=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    script = "\n".join(_part(f"{name}.js") for name in ("report", "clips", "confusion"))
    parts = {"STYLE": _part("report.css"), "SCRIPT": script, "DATA": text}
    before, *pieces = _part("report.html").split("/*INSERT ")
    for piece in pieces:
        name, after = piece.split("*/", 1)
        before += parts[name] + after
    return before


def write(path, truth, runs, command=""):
    """Writes the page to a file; see `content`."""
    text = page(content(truth, runs, command))
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
