"""Scores a network on a split with VSPW's metrics, beside the scores of always predicting the commonest class.

The predictions are kept as they are made, in <workdir>/evaluated/<split>/<video>/<frame>.png. The report shows clips of
them; `python -m vspw_jax.metrics` and `python -m vspw_jax.submission` can read the folder as it is.
"""

import collections
import contextlib
import functools
import json
import pathlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree, UInt8
from ml_collections import ConfigDict
from PIL import Image

from vspw_jax.buckets import mirrors
from vspw_jax.checkpoints import run_classes
from vspw_jax.classes import class_list, class_union
from vspw_jax.console.errors import UserError, listed
from vspw_jax.data import mixture, records
from vspw_jax.evaluation import counting, predicted_videos, stages
from vspw_jax.files.whole_files import whole_file
from vspw_jax.files.writable import check_folder
from vspw_jax.inference import overlay
from vspw_jax.inference.predictor import Predictor
from vspw_jax.inference.recorded import recorded
from vspw_jax.inference.threads import WriteBehind
from vspw_jax.interop import convert
from vspw_jax.metrics import predictions, report, scores, temporal_consistency
from vspw_jax.metrics.counts import VideoCounts
from vspw_jax.metrics.shown_run import ShownRun
from vspw_jax.metrics.truth import RecordsTruth
from vspw_jax.models import segmenter
from vspw_jax.parallel import processes, shares
from vspw_jax.sampling.dis_flow import DisFlow

SCORES_FILE = "evaluation.json"
PICTURE_FILE = "comparison.png"
REPORT_FILE = "report.html"
SAVED_SCORES_FOLDER = "scores"
PICTURED = 3
"""Of how many videos there is a picture."""
THREADS = 4
"""How many write predictions."""


def comparisons(
    frames: records.Frames,
    predicted: Callable[[records.Record, UInt8[np.ndarray, "H W 3"]], UInt8[np.ndarray, "H W"]],
    opacity: float,
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Yields pictures of frame, truth and prediction from the middle of the first videos of a split.

    Args:
      predicted: gives the train ids of a frame, from its record and its pixels.
      opacity: of the classes' colours over the frame.
    """
    painter = overlay.Painter(frames.classes, opacity)
    for video in frames.videos[:PICTURED]:
        record = frames[video.start + video.count // 2]
        label = frames.label(record)
        image = frames.image(record, label)
        yield painter.comparison(image, label, predicted(record, image))


def split_of(config: ConfigDict) -> records.Frames:
    """The split that is scored, with the labels by which it is; `config` is `config.data`."""
    return records.Frames(config.records, config.eval_split, own_classes=mixture.has_own_classes(config))


def unfinished(config: ConfigDict, step: int | None, weights: dict[str, PyTree[Array]]) -> list[str]:
    """Sentences about weights whose training has not ended; they name the variables that `config.init_from` lacked.

    Args:
      step: of the checkpoint; None where the weights are `config.init_from`'s, which had to give all of them.
      weights: params and model_state.
    """
    if step is None or step >= config.train.steps:
        return []
    said = f"These are the weights of step {step} of {config.train.steps}: training has not ended."
    if config.init_from and pathlib.Path(config.init_from).exists():
        fresh = convert.plan(config.model, weights.values(), config.init_from, config.init_from_key).unsettled()
        if fresh:
            said += (
                f" {len(fresh)} of the variables it began from random values, in whole or in part, for "
                f"{config.init_from} lacks them: {listed(fresh)}."
            )
    return [said]


def predictions_folder(config: ConfigDict, workdir: pathlib.Path) -> pathlib.Path:
    """Where the predictions of the split go."""
    return workdir / predictions.KEPT / config.data.eval_split


def check_output(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Raises UserError where the scores or the predictions could not be written."""
    for folder in (workdir, predictions_folder(config, workdir)):
        check_folder(folder, "--workdir=DIR")


def predict_and_count(
    config: ConfigDict,
    predictor: Predictor,
    frames: records.Frames,
    workdir: pathlib.Path,
    folder: pathlib.Path,
    masks: predictions.Folder | None,
    left: Collection[str],
    done: counting.Done,
) -> list[VideoCounts]:
    """Predicts this process's share of a split and stores its masks.

    Args:
      folder: for the masks. Scores are saved of those that go to `predictions_folder`.
      masks: of an earlier stage, that the network is to read.
      left: names of the videos to predict, into the folder as it is.
      done: is called after each video of this process, whose masks are stored then.

    Returns:
      The counts of the videos of all processes, in the videos' order; none where the split has no masks.
    """
    wanted = [video for video in frames.videos if video.name in left]
    videos = shares.share(wanted, jax.process_count(), jax.process_index())
    scores_folder = workdir / SAVED_SCORES_FOLDER / config.data.eval_split
    is_last = folder == predictions_folder(config, workdir)
    recording = recorded(predictor, frames, videos, scores_folder) if is_last else contextlib.nullcontext(predictor)
    with recording as recorder, WriteBehind(THREADS, 4 * THREADS) as write:
        predicted = predicted_videos.predict(recorder, frames, videos, config.data.threads, masks)
        predicted = predicted_videos.stored(predicted, folder, write, frames.classes)
        total = sum(video.count for video in videos)

        def stored_and_done(video: str, counts: VideoCounts | None) -> None:
            write.wait()
            done(video, counts)

        if frames.has_masks:
            names = [video.name for video in frames.videos]
            flow_of = temporal_consistency.flow_of_first(names, DisFlow)
            counts = counting.count_videos(predicted, predictor.num_classes, total, flow_of, stored_and_done)
        else:
            counting.run_through(predicted, total, stored_and_done)
            counts = []
    mirrors.send(folder)  # In a bucket each process has its masks on a disk of its own.
    by_video = collections.ChainMap(*processes.gathered({one.video: one.to_json() for one in counts}))
    mirrors.bring(folder)
    return [VideoCounts.from_json(by_video[video.name]) for video in wanted] if by_video else []


def evaluate(
    config: ConfigDict, predictor: Predictor, workdir: pathlib.Path, command: str = "", warnings: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Scores the split `data.eval_split`; writes scores, predictions, report and a picture into the workdir.

    Several processes call it together. Each predicts and counts its `share` of the videos, and only then do they
    exchange their counts. The first process writes the files about all videos.

    Args:
      config: the whole config.
      command: the command line that the user called, for the report.
      warnings: sentences to put before those about the predictions.

    Returns:
      The scores, see `metrics.scores.summarise`; None where the split has no masks: then only predictions are written.
    """
    frames = split_of(config.data)
    frames.check_truth()
    longest = max(video.count for video in frames.videos)
    decoder = segmenter.decoder_of(config.model)
    decoder.check_longest(config.model.decoder, longest, f"{frames.path} ({frames.split})")
    class_union.part_for(run_classes.of_run(config, workdir).classes, frames.classes, frames.path)
    if predictor.are_known:
        class_list.check_numbered_alike(predictor.classes, frames.classes, frames.path)
    if frames.has_masks and not frames.max_classes:
        raise UserError(
            f"All masks of split {frames.split!r} of {frames.path} are void: there is nothing to score. "
            f"python -m data_prep.verify --records={config.data.records} shows what is in them."
        )
    predict = functools.partial(predict_and_count, config, predictor, frames, workdir)
    folder = predictions_folder(config, workdir)
    by_stage = stages.run(config, predictor, frames, workdir, folder, predict)
    if not frames.has_masks:
        stages.forget_last(workdir, frames.split)
        return None
    counts = by_stage[-1]
    result = scores.summarise(counts, frames.classes)
    if len(by_stage) > 1:
        result["stages"] = stages.shown(by_stage, frames.classes)
    result["warnings"] = [*warnings, *result["warnings"]]
    with processes.first_alone("scores"):
        if jax.process_index() == 0:
            masks = predictions.Folder(folder)
            of_record = lambda record, _: masks.mask(record["video"], record["frame"])
            with whole_file(workdir / SCORES_FILE) as path:
                path.write_text(json.dumps(result, indent=2) + "\n")
            with whole_file(workdir / PICTURE_FILE) as path:
                pictures = comparisons(frames, of_record, config.evaluate.opacity)
                Image.fromarray(overlay.stacked(list(pictures))).save(path)
            run = ShownRun(workdir.name, masks, counts, result)
            report.write(workdir / REPORT_FILE, RecordsTruth(frames), [run], command)
    stages.forget_last(workdir, frames.split)
    return result
