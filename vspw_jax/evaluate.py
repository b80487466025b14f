"""Scores a network on a split: VSPW's metrics, beside those of always predicting the commonest class."""

import json
import math

import grain
import jax
import numpy as np
from PIL import Image

from vspw_jax import classes
from vspw_jax.data import records
from vspw_jax.errors import UserError
from vspw_jax.inference import overlay
from vspw_jax.metrics.confusion import ConfusionMatrix
from vspw_jax.metrics.video_consistency import VideoConsistency
from vspw_jax.progress import progress
from vspw_jax.whole_files import whole_file

SCORES_FILE = "evaluation.json"
PICTURE_FILE = "comparison.png"
HEADLINE = ("mIoU", "fwIoU", "pixel_accuracy", "VC8", "VC16")


def decoded_frames(frames, threads):
    """(image, label) of all records of a split in order, decoded ahead by threads."""
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    return iter(grain.MapDataset.range(len(frames)).map(frames.image_and_label).to_iter_dataset(options))


def predicted_videos(predictor, frames, threads):
    """Yields (video, iterator of (image, label, prediction)) for the videos of a split; predicts in batches."""
    decoded = decoded_frames(frames, threads)

    def predicted(video):
        for start in range(0, video.count, predictor.batch):
            images, labels = zip(
                *(next(decoded) for _ in range(min(predictor.batch, video.count - start))), strict=True
            )
            yield from zip(images, labels, predictor(images), strict=True)

    for video in frames.videos:
        yield video, predicted(video)


def score_videos(videos, num_classes, total):
    """The metrics of an iterable of (video, frames), as `predicted_videos` yields them."""
    confusion = ConfusionMatrix(num_classes)
    consistency = {f"VC{length}": VideoConsistency(length) for length in (8, 16)}
    bar = progress(description="evaluating", unit="frame", total=total)
    for _, frames in videos:
        for meter in consistency.values():
            meter.start_video()
        for _, label, prediction in frames:
            confusion.add(label, prediction)
            for meter in consistency.values():
                meter.add(label, prediction)
            bar.update()
    bar.close()
    constant = confusion.of_constant()
    return {
        **confusion.scores(),
        **{name: meter.score() for name, meter in consistency.items()},
        "commonest_class": {
            "class": classes.names()[int(constant.counts_KK.sum(axis=0).argmax())],
            **constant.scores(),
            # A constant prediction is the same in every window.
            **{name: 1.0 if meter.windows else math.nan for name, meter in consistency.items()},
        },
        "IoU": {
            name: float(value)
            for name, value in zip(classes.names(), confusion.iou(), strict=False)
            if not np.isnan(value)
        },
    }


def comparisons(predictor, frames, most=3):
    """Yields pictures of frame, truth and prediction from the middle of the first videos of a split."""
    for video in frames.videos[:most]:
        image, label = frames.image_and_label(video.start + video.count // 2)
        yield overlay.comparison(image, label, predictor([image])[0])


def evaluate(config, predictor, workdir):
    """Scores the split `data.eval_split`; writes the scores and a picture into the workdir; returns the scores."""
    frames = records.Frames(config.data.records, config.data.eval_split)
    if not frames.max_classes:
        raise UserError(f"Split {config.data.eval_split!r} of {frames.path} has no masks: nothing to evaluate against.")
    videos = predicted_videos(predictor, frames, config.data.threads)
    result = score_videos(videos, config.model.num_classes, len(frames))
    picture = np.concatenate(list(comparisons(predictor, frames)))
    if jax.process_index() == 0:
        with whole_file(workdir / SCORES_FILE) as path:
            path.write_text(json.dumps(result, indent=2) + "\n")
        with whole_file(workdir / PICTURE_FILE) as path:
            Image.fromarray(picture).save(path)
    return result


def table(result):
    """The headline scores as text, in per cent, beside the commonest class's."""
    rows = [("", "this model", f"always {result['commonest_class']['class']}")]
    rows += [
        (name.replace("_", " "), f"{100 * result[name]:.2f}", f"{100 * result['commonest_class'][name]:.2f}")
        for name in HEADLINE
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
