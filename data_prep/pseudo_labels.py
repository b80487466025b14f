"""Writes records whose labels are predictions: pseudo-labels to train on, as iterative semi-supervised training does.

    python -m vspw_jax.main --config=configs/upernet.py --workdir=runs/teacher --mode=evaluate \\
      --config.data.eval_split=train --config.evaluate.save_scores=True --config.evaluate.top_classes=4
    python -m data_prep.pseudo_labels --records=data/vspw/records --labelled-frames=drawn \\
      --predictions=runs/teacher/evaluated/train --scores=runs/teacher/scores/train --threshold=0.9 \\
      --output=data/vspw/pseudo_labels

Frames of the split that --labelled-frames names keep their labels, as in training with data.labelled_frames. All others
get what was predicted of them; the labels that they had are not copied. The other splits stay as they are. The new
records say of themselves that they hold predictions: verify says so too, training takes them, and nothing is scored
against them.
Source: Naive-Student (arXiv 2005.10266), the iterative training that paper 002 compares Mean Teacher with.
"""

import argparse
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from data_prep.conversion import builder, command_line, relabelled
from data_prep.conversion.frames import Form
from vspw_jax.buckets import arguments
from vspw_jax.classes import label_maps
from vspw_jax.classes.class_list import check_same
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.data import labelled_frames, records
from vspw_jax.inference import scores
from vspw_jax.metrics import predictions
from vspw_jax.metrics.truth import RecordsTruth


class PseudoLabels(builder.Builder):
    """Records with predictions in the place of labels; `marks` is what they say of that, by split."""

    def __init__(self, *, marks: dict[str, Any], **options: Any) -> None:
        self.marks = marks
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        info = super()._info()
        info.metadata[records.PSEUDO_LABELS] = self.marks
        return info


def scores_of(path: str, frames: records.Frames) -> scores.Reader:
    """Scores of a split; UserError where they are of other data, or say nothing of how sure they are."""
    reader = scores.Reader(path)
    if reader.identity.get("fingerprint") != frames.fingerprint:
        raise UserError(
            f"{path} are not scores of split {frames.split!r} of {frames.path}: their split's fingerprint is "
            f"{reader.identity.get('fingerprint')}, this one's {frames.fingerprint}."
        )
    check_same(reader.classes, frames.classes, frames.path)
    if reader.identity.get("double_softmax"):
        raise UserError(
            f"{path} have a second softmax, after which no class is sure. Save them again with "
            "--config.evaluate.double_softmax=False."
        )
    return reader


def convert(
    path: pathlib.Path | str,
    predicted: pathlib.Path | str,
    output: pathlib.Path | str,
    rule: str,
    seed: int = 0,
    split: str = "train",
    scores_path: str | None = None,
    threshold: float = 0.0,
    **options: Any,
) -> str:
    """Writes the records, unless `output` holds them already.

    Args:
      path: records with labels.
      predicted: folder with <video>/<frame>.png of train ids, of every frame of the split.
      output: where the new records go.
      rule, seed: which frames keep their labels; see `labelled_frames.labelled`.
      split: whose labels are replaced.
      scores_path: of the predictions; where the best class's share is below `threshold` a pixel becomes void.
      options: further ones of `builder.Builder`.

    Returns:
      A sentence about what was written.

    Raises:
      UserError: no such records, split, predictions or scores, or of other frames; no frame to predict.
    """
    metadata = records.read_metadata(path)
    labels = label_maps.from_metadata(metadata)
    splits = {name: records.Frames(path, name) for name in metadata["videos"]}
    if split not in splits:
        raise UserError(f"{path} has no split {split!r}; it has {', '.join(sorted(splits))}.")
    frames, folder = splits[split], predictions.Folder(predicted)
    kept_N = labelled_frames.labelled(rule, seed, metadata["videos"][split], frames.has_mask_N())
    if kept_N.all():
        raise UserError(
            f"--labelled-frames={rule} keeps the labels of all {len(frames)} frames of split {split!r}: none is "
            "left to predict. Name the rule that training had, such as drawn."
        )
    folder.check(RecordsTruth(frames).videos)
    reader = scores_of(scores_path, frames) if scores_path else None
    source = relabelled.Relabelled(splits, split, kept_N, labels, folder, reader, threshold)
    mark = {"predictions": str(predicted), "threshold": threshold, "labelled_frames": rule, "labels_seed": seed}
    mark["frames"] = int((~kept_N).sum())
    made = PseudoLabels(
        marks={split: mark},
        splits=source.frames,
        source=source,
        form=Form(labels),
        data_dir=pathlib.Path(output),
        **options,
    )
    command_line.prepare(made, None)
    return f"{split}: {records.Frames(output, split).note}"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m data_prep.pseudo_labels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--records", required=True, metavar="DIR", help="the records with labels")
    result.add_argument("--predictions", required=True, metavar="DIR", help="<video>/<frame>.png of train ids")
    result.add_argument("--output", required=True, metavar="DIR", help="folder for the new records")
    result.add_argument(
        "--labelled-frames",
        required=True,
        metavar="RULE",
        help="which frames keep their labels: data.labelled_frames of the run that predicted",
    )
    result.add_argument("--labels-seed", type=int, default=0, help="its data.labels_seed (default 0)")
    result.add_argument("--split", default="train", help="whose labels are replaced (default train)")
    result.add_argument("--scores", metavar="DIR", help="scores of the predictions, which --threshold asks for")
    result.add_argument(
        "--threshold", type=float, default=0.0, help="pixels whose class has a smaller share are void (default 0: none)"
    )
    return result


def check(options: argparse.Namespace) -> None:
    """Raises UserError for what is wrong with the options by themselves."""
    labelled_frames.check_rule(options.labelled_frames, "--labelled-frames")
    if not (math.isfinite(options.threshold) and 0 <= options.threshold <= 1):
        raise UserError(f"--threshold={options.threshold}: expected 0 to 1.")
    if bool(options.scores) != bool(options.threshold):
        raise UserError(
            "--threshold=SHARE and --scores=DIR go together: scores say how sure a prediction is. Save them with "
            "--mode=evaluate --config.evaluate.save_scores=True, then name <workdir>/scores/<split>."
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser().parse_args(argv)
    arguments.on_disk(options, read=("predictions", "scores"), records=("output",), opened=("records",))
    check(options)
    rule = options.labelled_frames, options.labels_seed, options.split
    written = convert(options.records, options.predictions, options.output, *rule, options.scores, options.threshold)
    print(f"{written}\nTrain on them: --config.data.records={options.output}")


if __name__ == "__main__":
    run_program(main, takes_addresses=True)
