"""Scores a network on a split: VSPW's metrics, beside those of always predicting the commonest class.

The predictions are kept as they are made, in <workdir>/evaluated/<split>/<video>/<frame>.png: the report shows clips of
them, and `python -m vspw_jax.metrics` and `python -m vspw_jax.submission` take the folder as it is.
"""

import collections
import itertools
import json
import pathlib
import shutil

import grain
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from vspw_jax.console.errors import listed
from vspw_jax.console.progress import progress
from vspw_jax.data import records
from vspw_jax.files import mask_png
from vspw_jax.files.whole_files import whole_file
from vspw_jax.inference import overlay
from vspw_jax.inference.recorded import recorded
from vspw_jax.inference.threads import WriteBehind, one_ahead
from vspw_jax.interop import convert
from vspw_jax.metrics import predictions, report, scores, temporal_consistency
from vspw_jax.metrics.counts import VideoCounts, VideoMeter
from vspw_jax.metrics.truth import RecordsTruth
from vspw_jax.parallel import processes

SCORES_FILE = "evaluation.json"
PICTURE_FILE = "comparison.png"
REPORT_FILE = "report.html"
SAVED_SCORES_FOLDER = "scores"
THREADS = 4
"""That write predictions."""


def share(videos, count, number):
    """Share `number` of `count` of videos, in their order: about as many frames as in any other, each video in one."""
    load, shares = [0] * count, [[] for _ in range(count)]
    for place in sorted(range(len(videos)), key=lambda place: -videos[place].count):
        least = load.index(min(load))
        load[least] += videos[place].count
        shares[least].append(place)
    return tuple(videos[place] for place in sorted(shares[number]))


def decoded_frames(frames, videos, threads):
    """(name, image, label) of all frames of some videos of a split in order, decoded ahead by threads."""
    numbers = [number for video in videos for number in range(video.start, video.start + video.count)]

    def decode(number):
        record = frames[number]
        label = frames.label(record)
        return record["frame"], frames.image(record, label), label

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    return iter(grain.MapDataset.source(numbers).map(decode).to_iter_dataset(options)) if numbers else iter(())


def predicted_videos(predictor, frames, videos, threads):
    """Yields (video's name, iterator of (name, image, label, prediction)) for some videos of a split.

    Predicts in batches; the devices have the next one while this one's predictions are worked on.
    """
    decoded = decoded_frames(frames, videos, threads)

    def begin(batch):
        return batch, predictor.start([image for _, image, _ in batch])

    def predicted(video):
        left = itertools.islice(decoded, video.count)
        batches = iter(lambda: list(itertools.islice(left, predictor.batch)), [])
        for batch, result in one_ahead(begin, batches):
            for frame, prediction in zip(batch, result.labels(), strict=True):
                yield *frame, prediction

    for video in videos:
        yield video.name, predicted(video)


def stored(videos, folder, write):
    """The same videos, each prediction stored in a folder of predictions as it passes; `write` is a `WriteBehind`."""

    def passed(video, frames):
        for name, image, label, prediction in frames:
            write(mask_png.save, prediction, predictions.path_of(folder, video, name))
            yield name, image, label, prediction

    for video, frames in videos:
        yield video, passed(video, frames)


def count_videos(videos, num_classes, total, flow_of):
    """`VideoCounts` of an iterable of (video's name, frames), as `predicted_videos` yields them, one pass over it.

    Args:
      num_classes: of the network.
      total: frames of all videos.
      flow_of: see `temporal_consistency.flow_of_first`.
    """
    counts = []
    bar = progress(description="evaluating", unit="frame", total=total)
    for video, frames in videos:
        meter = VideoMeter(video, num_classes, flow_of(video))
        for frame in frames:
            meter.add(*frame)
            bar.update()
        counts.append(meter.counts())
    bar.close()
    return counts


def run_through(videos, total):
    """Takes every frame of videos that have no masks; no counts."""
    bar = progress(description="predicting", unit="frame", total=total)
    for _, frames in videos:
        for _ in frames:
            bar.update()
    bar.close()
    return []


def comparisons(predictor, frames, most=3):
    """Yields pictures of frame, truth and prediction from the middle of the first videos of a split."""
    for video in frames.videos[:most]:
        image, label = frames.image_and_label(video.start + video.count // 2)
        yield overlay.comparison(image, label, predictor([image])[0])


def weight_faults(weights):
    """Sentences about weights that cannot be right."""
    leaves = [leaf for leaf in jax.tree.leaves(weights) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    broken = sum(1 for leaf in leaves if not bool(jnp.isfinite(leaf).all()))
    if not broken:
        return []
    return [
        f"{broken} of the network's {len(leaves)} arrays hold NaN or infinity: training diverged. What it predicts has "
        "no meaning. Go back to an older checkpoint, or train with a lower learning rate or gradient clipping."
    ]


def unfinished(config, step, weights):
    """Sentences about weights whose training has not ended, and about what of them a checkpoint file did not give.

    Args:
      step: of the checkpoint; None where the weights are `config.init_from`'s, which had to give all of them.
      weights: dict of params and model_state.
    """
    if step is None or step >= config.train.steps:
        return []
    said = f"These are the weights of step {step} of {config.train.steps}: training has not ended."
    if config.init_from and pathlib.Path(config.init_from).exists():
        fresh = convert.plan(config.model, weights.values(), config.init_from).unsettled()
        if fresh:
            said += (
                f" {len(fresh)} of the variables it began from random values, in whole or in part, for "
                f"{config.init_from} lacks them: {listed(fresh)}."
            )
    return [said]


def predictions_folder(config, workdir):
    """Where the predictions of the split go."""
    return workdir / predictions.KEPT / config.data.eval_split


def predict_and_count(config, predictor, frames, workdir):
    """Predicts this process's share of a split and stores its masks; `VideoCounts` of all videos, in their order.

    Where the split has no masks, none.
    """
    folder = predictions_folder(config, workdir)
    with processes.first_alone("predictions"):
        if jax.process_index() == 0:
            shutil.rmtree(folder, ignore_errors=True)
    videos = share(frames.videos, jax.process_count(), jax.process_index())
    scores_folder = workdir / SAVED_SCORES_FOLDER / config.data.eval_split
    with recorded(predictor, frames, videos, scores_folder) as recording, WriteBehind(THREADS, 4 * THREADS) as write:
        predicted = stored(predicted_videos(recording, frames, videos, config.data.threads), folder, write)
        total = sum(video.count for video in videos)
        if frames.max_classes:
            names = [video.name for video in frames.videos]
            flow_of = temporal_consistency.flow_of_first(names, temporal_consistency.DisFlow)
            counts = count_videos(predicted, config.model.num_classes, total, flow_of)
        else:
            counts = run_through(predicted, total)
    by_video = collections.ChainMap(*processes.gathered({one.video: one.to_json() for one in counts}))
    return [VideoCounts.from_json(by_video[video.name]) for video in frames.videos] if by_video else []


def evaluate(config, predictor, workdir, command="", warnings=()):
    """Scores the split `data.eval_split`; writes scores, predictions, report and a picture into the workdir.

    Several processes call it together: each predicts its `share` of the videos, of which no other hears until all are
    counted; the first one writes what is said of all of them.

    Args:
      config: the whole config.
      predictor: function from frames to train ids, with `batch`; see `inference/predictor.py`.
      workdir: `pathlib.Path`.
      command: what was called, for the report.
      warnings: sentences to put before those about the predictions.

    Returns:
      The scores, see `metrics.scores.summarise`; None where the split has no masks: then only predictions are written.
    """
    frames = records.Frames(config.data.records, config.data.eval_split)
    counts = predict_and_count(config, predictor, frames, workdir)
    if not frames.max_classes:
        return None
    result = scores.summarise(counts)
    result["warnings"] = [*weight_faults(getattr(predictor, "weights", {})), *warnings, *result["warnings"]]
    if jax.process_index() == 0:
        with whole_file(workdir / SCORES_FILE) as path:
            path.write_text(json.dumps(result, indent=2) + "\n")
        with whole_file(workdir / PICTURE_FILE) as path:
            Image.fromarray(np.concatenate(list(comparisons(predictor, frames)))).save(path)
        run = report.Run(workdir.name, predictions.Folder(predictions_folder(config, workdir)), counts, result)
        report.write(workdir / REPORT_FILE, RecordsTruth(frames), [run], command)
    return result
