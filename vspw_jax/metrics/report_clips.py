"""The clips that a report shows: which videos, which of their frames, and the pictures.

A frame has its image as a JPEG. Truth and predictions are PNGs, which the page lays over the image. Masks are scaled to
the nearest pixel, so that their colours stay classes.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.progress import progress
from vspw_jax.metrics.shown_run import ShownRun
from vspw_jax.metrics.truth import NamedVideo, Truth

CLIPS = 6
FRAMES = 24
WIDTH = 360
MAX_BYTES = 8 << 20
"""Of all pictures together, as text. Clips show fewer frames where the pictures would take more."""

JPEG_QUALITY = 75
RIGHT, WRONG, UNSCORED = range(3)
ERROR_COLOURS = bytes((0, 0, 0, 230, 20, 40, 128, 128, 128))
ERROR_OPACITIES = bytes((0, 200, 150))


def chosen(runs: Sequence[ShownRun]) -> list[tuple[str, str]]:
    """[(video, why)] of the clips to show: the worst and the best by the first run's mIoU.

    Where there are several runs, also those in which the last run differs most from the first.
    """
    scored = {name: own["mIoU"] for name, own in runs[0].result["videos"].items() if own["mIoU"] is not None}
    ordered = sorted(scored, key=lambda name: (scored[name], name))
    if len(ordered) <= CLIPS:
        return [(name, "worst first") for name in ordered]
    most = CLIPS // 2 if len(runs) == 1 else CLIPS // 3
    picked = dict.fromkeys(ordered[:most], "among the worst")
    if len(runs) > 1:
        last = runs[-1].result["videos"]
        change = lambda name: abs((last[name]["mIoU"] or 0) - scored[name])
        rest = [name for name in ordered[most:-most] if change(name)]
        picked |= dict.fromkeys(sorted(rest, key=lambda n: (-change(n), n))[:most], "where the runs differ")
    picked |= dict.fromkeys(ordered[-most:], "among the best")
    return list(picked.items())


def clips(truth: Truth, runs: Sequence[ShownRun]) -> list[dict[str, Any]]:
    """The clips for the page's JSON; see the module."""
    wanted = chosen(runs)
    videos = {video.name: video for video in truth.videos}
    bar = progress(description="drawing clips", unit="clip", total=len(wanted))
    result, budget = [], MAX_BYTES // max(len(wanted), 1)
    for name, why in wanted:
        result.append({"video": name, "why": why, "frames": _frames(truth, runs, videos[name], budget)})
        bar.update()
    bar.close()
    return result


def _frames(truth: Truth, runs: Sequence[ShownRun], video: NamedVideo, budget: int) -> list[dict[str, Any]]:
    """Frames at even distances, as many as `budget` bytes hold."""
    numbers = np.linspace(0, len(video.frames) - 1, min(FRAMES, len(video.frames))).round().astype(int).tolist()
    shown = [_frame(truth, runs, video, number) for number in numbers]
    while len(shown) > 1 and sum(_size(frame) for frame in shown) > budget:
        shown = shown[::2]
    return shown


def _size(frame: dict[str, Any]) -> int:
    return len(frame["image"]) + len(frame["truth"]) + sum(len(p) for run in frame["runs"] for p in run.values())


def _frame(truth: Truth, runs: Sequence[ShownRun], video: NamedVideo, number: int) -> dict[str, Any]:
    name = video.frames[number]
    image = truth.image(video.name, name)
    width = min(WIDTH, image.shape[1])
    size = (width, max(round(image.shape[0] * width / image.shape[1]), 1))
    nearest = lambda mask: cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    label = nearest(truth.label(video.name, name))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return {
        "number": number,
        "name": name,
        "size": size,
        "image": _uri(jpeg.tobytes(), "jpeg"),
        "truth": _mask(label, truth.classes),
        "runs": [_prediction(label, nearest(run.folder.mask(video.name, name)), truth.classes) for run in runs],
    }


def _prediction(label: np.ndarray, prediction: np.ndarray, classes: ClassList) -> dict[str, str]:
    known = label < len(classes)
    error = np.where(known, np.where(prediction == label, RIGHT, WRONG), UNSCORED).astype(np.uint8)
    return {"prediction": _mask(prediction, classes), "error": _png(error, ERROR_COLOURS, ERROR_OPACITIES)}


def _mask(mask: np.ndarray, classes: ClassList) -> str:
    """A mask in its classes' colours; pixels of no class are transparent. A palette of the ids that occur is small."""
    values, indices = np.unique(mask, return_inverse=True)
    opacities = np.where(values < len(classes), 255, 0).astype(np.uint8)
    colours = classes.picture_palette[values].tobytes()
    return _png(indices.reshape(mask.shape).astype(np.uint8), colours, opacities.tobytes())


def _png(indices: np.ndarray, colours: bytes, opacities: bytes) -> str:
    image = Image.fromarray(indices)
    image.putpalette(colours)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=opacities, optimize=True)
    return _uri(buffer.getvalue(), "png")


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
