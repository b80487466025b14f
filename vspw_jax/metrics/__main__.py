"""Scores predictions on disk, of any tool, against VSPW's masks: the devkit's metrics, with intervals and a report.

    python -m vspw_jax.metrics --predictions=DIR --data=VSPW_480p --split=val --output=scores.json --report=report.html
    python -m vspw_jax.metrics --predictions=A --predictions=B --data=data/vspw/records --report=comparison.html

Predictions are PNGs of class ids at DIR/<video>/<frame>.png, of the size of the masks: 0..123 ("train ids"), one
channel of 8 bits, with or without a palette. Files that hold 1..124, as VSPW's masks do, need --masks-are=raw_ids.
The scores are mIoU, fwIoU, pixel and class accuracy over all videos, means over videos, VC8 and VC16 exactly as VSPW's
devkit computes them, VC8_correct and VC16_correct (only right predictions count), and TC along the flow of --flow. The
best known are printed, all are written. Given two or more runs, the report compares them, and the output holds a list.
"""

import argparse
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Sequence

from vspw_jax.buckets import arguments
from vspw_jax.classes import vspw
from vspw_jax.console import places
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.files.whole_files import whole_file
from vspw_jax.files.writable import check_file, check_parent
from vspw_jax.metrics import predictions, report, scores, table, temporal_consistency, truth
from vspw_jax.metrics.shown_run import ShownRun


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m vspw_jax.metrics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 done, 2 for what you must mend: missing or misshapen files, ids that are no class.",
    )
    result.add_argument(
        "--predictions",
        required=True,
        action="append",
        metavar="DIR",
        help="predictions; once more for each further run",
    )
    truth.add_options(result, split="val")
    result.add_argument(
        "--own-classes",
        action="store_true",
        help="labels of COCO-Stuff and ADE20K stay their own and are not mapped to VSPW's, as with data.classes=union",
    )
    result.add_argument("--output", metavar="X.json", help="file for all scores (default: printed only)")
    result.add_argument("--report", metavar="X.html", help="file for a page to look at (default: none)")
    predictions.add_options(result)
    result.add_argument(
        "--flow",
        default="dis",
        metavar="dis|none|DIR",
        help="optical flow for TC: computed by OpenCV's DIS (default), no TC, or DIR/<video>/<frame>.flo or .npy",
    )
    result.add_argument("--threads", type=int, help="default: one a processor")
    return result


def short_names(paths: Sequence[str]) -> list[str]:
    """The shortest ends of paths that tell them apart, at least their last part.

    Predictions that an evaluation left in a workdir go by the workdir's path.
    """
    parts = [pathlib.Path(os.path.abspath(places.shown(path))).parts for path in paths]
    parts = [own[:-2] if own[-2:-1] == (predictions.KEPT,) else own for own in parts]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-length:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"--predictions names one folder twice, of {', '.join(map(str, paths))}: give each run once.")


def scored(options: argparse.Namespace, opened: truth.Truth, path: str, name: str) -> ShownRun:
    """The run of a folder of predictions."""
    folder = predictions.Folder(path, options.masks_are)
    flow = None if options.flow == "none" else lambda: temporal_consistency.flow_source(options.flow)
    counts = predictions.count(opened, folder, flow, options.threads)
    return ShownRun(name, folder, counts, scores.summarise(counts, opened.classes))


def check(options: argparse.Namespace, opened: truth.Truth) -> None:
    """Raises UserError for what is wrong with the options; the predictions are read later."""
    if not opened.labelled:
        raise UserError(f"Split {options.split!r} of {options.data} has no masks: nothing to score against.")
    if options.masks_are == predictions.RAW_IDS and not vspw.are(opened.classes):
        raise UserError(
            f"--masks-are=raw_ids is VSPW's numbering, and {options.data} has classes of its own: expected masks that "
            f"hold 0..{len(opened.classes) - 1}, in the order of the list of classes."
        )
    for path, flag in ((options.output, "--output=X.json"), (options.report, "--report=X.html")):
        if path:
            check_parent(path, flag)
            check_file(path, flag)
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads={options.threads}: expected 1 or more.")
    temporal_consistency.flow_source(options.flow)
    short_names(options.predictions)
    for path in options.predictions:
        predictions.Folder(path).check(opened.videos)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser().parse_args(argv)
    arguments.on_disk(options, read=("predictions", "flow"), files=("output", "report"), opened=("data",))
    opened = truth.open_truth(options.data, options.split, options.own_classes)
    check(options, opened)
    names = short_names(options.predictions)
    runs = [scored(options, opened, path, name) for path, name in zip(options.predictions, names, strict=True)]
    for run in runs:
        print(f"{run.name} on split {options.split} of {options.data}, in per cent:\n\n{table.table(run.result)}\n")
    if options.output:
        results = [{"predictions": places.shown(run.folder.path), **run.result} for run in runs]
        with whole_file(options.output) as partial:
            partial.write_text(json.dumps(results if len(runs) > 1 else results[0], indent=2) + "\n")
        print(f"All scores: {options.output}")
    if options.report:
        command = shlex.join(["python", "-m", "vspw_jax.metrics", *(sys.argv[1:] if argv is None else argv)])
        report.write(options.report, opened, runs, command)
        print(f"Report:     {options.report}")


if __name__ == "__main__":
    run_program(main, takes_addresses=True)
