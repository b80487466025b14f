"""How far a pixel's colour alone gives its class away, beside a trained model on the same frames.

    python -m benchmarks.colour_lookup --records=data/demo/records --scores=runs/nce_demo/evaluation.json

The peer answers, for each colour, the class that most often had it in the training split: a table over RGB cut into
equal bins, colours never seen answering the commonest class. The best of several bin counts, chosen on the scored
split itself, is compared: an upper bound of what such a table can do.
"""

import argparse
import json
import pathlib

import numpy as np

from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.console.progress import progress
from vspw_jax.data import records
from vspw_jax.metrics.confusion import ConfusionMatrix

BINS = (4, 8, 16, 32)
"""Bins a channel that are tried."""


def colour_index(image_HWC, bins):
    """The table's row (H, W) of each pixel's colour."""
    red, green, blue = np.moveaxis(image_HWC.astype(np.int64) * bins // 256, -1, 0)
    return (red * bins + green) * bins + blue


def decoded(frames, name):
    """Yields (image, label) of all frames of a split."""
    for number in progress(range(len(frames)), name, "frame"):
        yield frames.image_and_label(number)


def count_classes(frames):
    """Pixels by colour and class in a split, for each of BINS: {bins: (bins**3, NUM_CLASSES)}."""
    counts = {bins: np.zeros(bins**3 * 256, np.int64) for bins in BINS}
    for image, label in decoded(frames, "counting colours"):
        for bins, total in counts.items():
            total += np.bincount((colour_index(image, bins) * 256 + label).ravel(), minlength=total.size)
    return {bins: total.reshape(-1, 256)[:, : vspw.NUM_CLASSES] for bins, total in counts.items()}


def lookup_scores(records_path, train_split, eval_split):
    """mIoU on `eval_split` of the tables made from `train_split`, by number of bins."""
    counts = count_classes(records.Frames(records_path, train_split))
    tables = {
        bins: np.where(total.any(axis=1), total.argmax(axis=1), total.sum(axis=0).argmax())
        for bins, total in counts.items()
    }
    confusions = {bins: ConfusionMatrix(vspw.NUM_CLASSES) for bins in BINS}
    for image, label in decoded(records.Frames(records_path, eval_split), "looking up"):
        for bins, table in tables.items():
            confusions[bins].add(label, table[colour_index(image, bins)])
    return {bins: confusion.scores()["mIoU"] for bins, confusion in confusions.items()}


def parser():
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.colour_lookup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--records", required=True, help="converted data with a training split")
    result.add_argument("--scores", required=True, help="evaluation.json of the model, on the same data's eval split")
    result.add_argument("--train-split", default="train", help="default train")
    result.add_argument("--eval-split", default="val", help="the split that --scores is of; default val")
    return result


def main(argv=None):
    """Command line."""
    options = parser().parse_args(argv)
    if not pathlib.Path(options.scores).is_file():
        raise UserError(f"{options.scores} does not exist: expected an evaluation.json; --mode=evaluate writes it.")
    model = json.loads(pathlib.Path(options.scores).read_text())["mIoU"]
    scores = lookup_scores(options.records, options.train_split, options.eval_split)
    for bins, score in scores.items():
        print(f"colour table, {bins:2d} bins a channel: mIoU {100 * score:6.2f}")
    best = max(scores.values())
    print(f"model:                             mIoU {100 * model:6.2f}")
    print(f"model / best colour table:         {model / best:.2f}")


if __name__ == "__main__":
    run_program(main)
