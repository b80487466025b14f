"""What verification found, as a dict for JSON and as one HTML page that needs no other file."""

import base64
import functools
import html
import json
import pathlib
import string
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from data_prep.verification.checks import Verification
from data_prep.verification.label_shift import IMPOSSIBLE, Numbering
from data_prep.verification.scan import SplitScan
from vspw_jax.classes.class_list import VOID
from vspw_jax.console.errors import UserError
from vspw_jax.console.progress import progress
from vspw_jax.data import records
from vspw_jax.files import mask_png
from vspw_jax.files.whole_files import whole_file
from vspw_jax.inference.overlay import Painter

PICTURE_WIDTH = 320

PAGE = string.Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Verification of $records</title>
<style>
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 1100px; padding: 0 1em; color: #222; }
table { border-collapse: collapse; } td, th { padding: 2px 10px; text-align: right; } th { border-bottom: 1px solid; }
td:first-child, th:first-child, td.name { text-align: left; }
.bar { background: #4a7; display: inline-block; height: 10px; }
.bad { color: #b00; } .good { color: #070; }
figure { display: inline-block; margin: 0 10px 14px 0; width: ${width}px; vertical-align: top; font-size: 13px; }
img { width: 100%; }
</style>
<h1>Verification of $records</h1>
<p>$dataset; masks hold $numbering.</p>
<h2>$verdict</h2>
<ul>$findings</ul>
<h2>Splits</h2>
<table><tr><th>split<th>videos<th>frames<th>with masks<th>void<th>fingerprint</tr>$splits</table>
<h2>Classes</h2>
<table><tr><th>value<th>class<th>frames<th>pixels<th>share of labelled pixels<th></tr>$classes</table>
<h2>Pictures</h2>
<p>For each class, the frame that shows most of it; all else is darkened. If a picture shows another class than its
caption says, the ids are wrong.</p>
$pictures
</html>
""")


def summarise(checked: Verification) -> dict[str, Any]:
    """Everything but the pictures, for JSON."""
    expected, scans, verdict = checked.expected, checked.scans, checked.verdict
    pixels_V = sum((found.pixels_V for found in scans.values()), np.zeros(256, np.int64))
    frames_V = sum((found.frames_V for found in scans.values()), np.zeros(256, np.int64))
    is_class_V = np.isin(np.arange(256), list(expected.names))
    labelled = max(int(pixels_V[is_class_V].sum()), 1)
    return {
        "records": checked.path,
        "dataset": checked.dataset,
        "numbering": expected.title,
        "problems": [{"kind": kind, "text": text} for kind, text in checked.findings.problems],
        "notes": checked.findings.notes,
        "ids": verdict and {"best": verdict.best.title, "lead": verdict.lead, "scores": verdict.scores},
        "splits": {split: _split(found, is_class_V) for split, found in scans.items()},
        "classes": [
            {
                "value": value,
                "name": name_of(expected, value),
                "frames": int(frames_V[value]),
                "pixels": int(pixels_V[value]),
                "share": pixels_V[value] / labelled if is_class_V[value] else None,
            }
            for value in np.flatnonzero((frames_V > 0) | is_class_V).tolist()
        ],
    }


def _split(found: SplitScan, is_class_V: Bool[np.ndarray, " V"]) -> dict[str, Any]:
    return {
        "videos": len(found.names),
        "frames": found.frames,
        "frames_with_masks": found.masks,
        "void_share": float(found.pixels_V[~is_class_V].sum() / max(found.pixels_V.sum(), 1)),
        "fingerprint": found.fingerprint,
    }


def name_of(numbering: Numbering, value: int) -> str:
    """A value's class, "void", or "not an id" where the numbering does not have it."""
    return numbering.names.get(value, "not an id" if numbering.classes_V[value] == IMPOSSIBLE else "void")


def picture(
    image_HWC: UInt8[np.ndarray, "H W 3"], mask_HW: UInt8[np.ndarray, "H W"], value: int, frames: records.Frames
) -> UInt8[np.ndarray, "h w 3"]:
    """The frame (RGB), small, with one class in its colour and all else darkened."""
    train_id = frames.lookup[value]
    label = np.where(mask_HW == value, 0 if train_id == VOID else train_id, VOID).astype(np.uint8)
    dark = np.where((mask_HW == value)[..., None], image_HWC, image_HWC // 3)
    mixed = Painter(frames.classes, opacity=0.4).overlay(dark, label)
    height = round(PICTURE_WIDTH * mixed.shape[0] / mixed.shape[1])
    return cv2.resize(mixed, (PICTURE_WIDTH, height), interpolation=cv2.INTER_AREA)


def pictures(
    path: pathlib.Path | str, scans: Mapping[str, SplitScan], numbering: Numbering
) -> Iterator[tuple[int, str, float, UInt8[np.ndarray, "h w 3"]]]:
    """Yields (value, "split video/frame", share of the frame, picture) of every value but void."""
    opened = functools.cache(lambda split: records.Frames(path, split))
    best: dict[int, tuple[int, str, int]] = {}
    for split, found in scans.items():
        for value, (pixels, number) in found.largest.items():
            if value not in best or pixels > best[value][0]:
                best[value] = (pixels, split, number)
    for value in progress(sorted(value for value in best if value in numbering.names), "drawing classes", "picture"):
        pixels, split, number = best[value]
        record = opened(split)[number]
        try:
            image, mask = records.decode_image(record["image_jpeg"]), mask_png.decode(record["mask_png"])
        except UserError:
            continue
        if mask.shape == image.shape[:2]:
            shown = picture(image, mask, value, opened(split))
            yield value, f"{split} {record['video']}/{record['frame']}", pixels / mask.size, shown


def _row(*cells: object) -> str:
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells) + "</tr>\n"


def _figure(numbering: Numbering, value: int, where: str, share: float, image: UInt8[np.ndarray, "h w 3"]) -> str:
    jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    source = base64.b64encode(jpeg).decode()
    caption = html.escape(f"{value} {name_of(numbering, value)}: {100 * share:.0f} % of {where}")
    return f'<figure><img src="data:image/jpeg;base64,{source}" alt=""><figcaption>{caption}</figcaption></figure>\n'


def _class_row(entry: Mapping[str, Any], most: float) -> str:
    share = bar = ""
    if entry["share"] is not None:
        share = f"{100 * entry['share']:.3f} %"
        bar = f'<span class="bar" style="width:{300 * entry["share"] / most:.0f}px"></span>'
    return _row(entry["value"], html.escape(entry["name"]), f"{entry['frames']:,}", f"{entry['pixels']:,}", share, bar)


def _split_row(split: str, entry: Mapping[str, Any]) -> str:
    counts = (f"{entry[name]:,}" for name in ("videos", "frames", "frames_with_masks"))
    return _row(html.escape(split), *counts, f"{100 * entry['void_share']:.2f} %", entry["fingerprint"][:16])


def page(summary: Mapping[str, Any], figures: Iterable[str]) -> str:
    """The HTML page of a summary; `figures` are those of the classes."""
    most = max((entry["share"] or 0 for entry in summary["classes"]), default=0) or 1
    problems = [f'<li class="bad">[{entry["kind"]}] {html.escape(entry["text"])}' for entry in summary["problems"]]
    return PAGE.substitute(
        {name: html.escape(summary[name]) for name in ("records", "dataset", "numbering")},
        width=PICTURE_WIDTH,
        verdict=f'<span class="bad">{len(problems)} faults</span>' if problems else '<span class="good">Clean</span>',
        findings="\n".join(problems + [f"<li>{html.escape(note)}" for note in summary["notes"]]),
        splits="".join(_split_row(split, entry) for split, entry in summary["splits"].items()),
        classes="".join(_class_row(entry, most) for entry in summary["classes"]),
        pictures="".join(figures),
    )


def write(checked: Verification, output: pathlib.Path) -> None:
    """Writes verification.json and verification.html into the folder `output`."""
    summary = summarise(checked)
    shown = pictures(checked.path, checked.scans, checked.expected)
    text = page(summary, [_figure(checked.expected, *figure) for figure in shown])
    output.mkdir(parents=True, exist_ok=True)
    for name, content in (("verification.json", json.dumps(summary, indent=1)), ("verification.html", text)):
        with whole_file(output / name) as partial:
            partial.write_text(content)
