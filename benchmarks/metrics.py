"""Scores beside loops written as VSPW's devkit is described: the same figures, how much sooner.

    python -m benchmarks.metrics
    python -m benchmarks.metrics --data=VSPW_DIR --split=val --shift=3

Predictions are the labels themselves, rolled by some pixels in every other frame, at VSPW_480p's size. Both sides have
them in memory; the loops are those of the devkit's mIoU script (a matrix of all frames and one of each video) and of
its VC script, for 8 and for 16 frames, and run on one core. Our side counts more: VC's corrected form, too.
"""

import argparse
import concurrent.futures
import os
import time

import cv2
import numpy as np

from benchmarks import measure
from data_prep.drawing import scenes
from vspw_jax.classes import vspw
from vspw_jax.console.errors import run_program
from vspw_jax.metrics import scores
from vspw_jax.metrics.counts import VideoMeter

SIZE = (480, 853)


def frame_matrix(label_HW, prediction_HW, num_classes):
    """The confusion matrix of a frame."""
    known = (label_HW >= 0) & (label_HW < num_classes)
    cells = num_classes * label_HW[known].astype(int) + prediction_HW[known]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def matrix_scores(matrix_KK):
    """mIoU, fwIoU, pixel and class accuracy of a confusion matrix."""
    hit = np.diag(matrix_KK)
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = hit / (matrix_KK.sum(1) + matrix_KK.sum(0) - hit)
        accuracy = hit / matrix_KK.sum(1)
    present = matrix_KK.sum(1) > 0
    share = matrix_KK.sum(1) / matrix_KK.sum()
    return {
        "mIoU": iou[present].sum() / present.sum(),
        "fwIoU": (share[present] * iou[present]).sum(),
        "pixel_accuracy": hit.sum() / matrix_KK.sum(),
        "class_accuracy": np.nanmean(accuracy),
    }


def window_ratios(labels, predictions, length):
    """|G and P| / |G| of the devkit's windows of one video: starts 0 to T - n - 1; NaN where G is empty."""
    ratios = []
    for start in range(len(labels) - length):
        stable, constant = (np.ones(labels[0].shape) for _ in range(2))
        for ahead in range(1, length):
            stable = np.logical_and(stable, labels[start] == labels[start + ahead])
            constant = np.logical_and(constant, predictions[start] == predictions[start + ahead])
        with np.errstate(invalid="ignore"):
            ratios.append((stable * constant).sum() / stable.sum())
    return ratios


def devkit_scores(videos, num_classes=vspw.NUM_CLASSES):
    """The devkit's scores of videos, pairs of lists of labels and predictions.

    Its mIoU script has both from PyTorch, as int64; its VC script reads both from PNG, as uint8.
    """
    total, of_videos = np.zeros((num_classes, num_classes), int), []
    for labels, predictions in videos:
        own = np.zeros_like(total)
        for label, prediction in zip(labels, predictions, strict=True):
            label, prediction = label.astype(np.int64), prediction.astype(np.int64)
            total += frame_matrix(label, prediction, num_classes)
            own += frame_matrix(label, prediction, num_classes)
        of_videos.append(matrix_scores(own) if own.any() else {"mIoU": np.nan, "fwIoU": np.nan})
    result = matrix_scores(total)
    for name in ("mIoU", "fwIoU"):
        result[f"video_{name}"] = np.nanmean([own[name] for own in of_videos])
    for length in (8, 16):
        ratios = [ratio for labels, predictions in videos for ratio in window_ratios(labels, predictions, length)]
        result[f"VC{length}"] = np.nanmean(ratios) if np.isfinite(ratios).any() else np.nan
    return result


def count_video(number, video):
    """`VideoCounts` of one of them."""
    meter = VideoMeter(f"{number:04d}", vspw.NUM_CLASSES)
    for frame, (label, prediction) in enumerate(zip(*video, strict=True)):
        meter.add(f"{frame:08d}", None, label, prediction)
    return meter.counts()


def count(videos, threads=1):
    """`VideoCounts` of the same videos, by threads as `python -m vspw_jax.metrics` does."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return list(pool.map(count_video, range(len(videos)), videos))


def drawn_videos(num_videos, num_frames, shift):
    """Drawn clips with raw labels as train ids, void where there is no class, and their shifted copies."""
    for number in range(num_videos):
        _, labels = scenes.clip(0, number, num_frames, *SIZE)
        labels = [np.where(label == scenes.NO_CLASS, vspw.VOID, label).astype(np.uint8) for label in labels]
        yield shifted(labels, shift)


def vspw_videos(folder, split, shift):
    """The masks of a split at VSPW_480p's size, and their shifted copies."""
    from vspw_jax.metrics import truth

    opened = truth.open_truth(folder, split)
    for video in opened.videos:
        labels = (opened.label(video.name, frame) for frame in video.frames)
        yield shifted([cv2.resize(label, SIZE[::-1], interpolation=cv2.INTER_NEAREST) for label in labels], shift)


def shifted(labels, shift):
    """(labels, the same rolled to the right in every other frame, void as class 0)."""
    rolled = [np.roll(label, shift if number % 2 else 0, axis=1) for number, label in enumerate(labels)]
    return labels, [np.where(label == vspw.VOID, 0, label).astype(np.uint8) for label in rolled]


def parser():
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.metrics", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--data", help="VSPW's layout or records (default: drawn clips)")
    result.add_argument("--split", default="val", help="default val")
    result.add_argument("--videos", type=int, default=2, help="drawn clips (default 2)")
    result.add_argument("--frames", type=int, default=71, help="frames of each (default 71, VSPW's mean)")
    result.add_argument("--shift", type=int, default=3, help="pixels (default 3)")
    result.add_argument("--rounds", type=int, default=3, help="default 3")
    return result


def main(argv=None):
    """Command line."""
    options = parser().parse_args(argv)
    cv2.setNumThreads(1)
    if options.data:
        videos = list(vspw_videos(options.data, options.split, options.shift))
    else:
        videos = list(drawn_videos(options.videos, options.frames, options.shift))
    frames = sum(len(labels) for labels, _ in videos)
    theirs, ours = devkit_scores(videos), scores.summarise(count(videos), vspw.classes())
    for name, value in theirs.items():
        print(f"{name:>15} {value:.12f}  devkit's loops\n{'':>15} {ours[name]:.12f}  ours")
    threads = len(os.sched_getaffinity(0))
    runs = lambda: devkit_scores(videos), lambda: count(videos), lambda: count(videos, threads)
    print(f"{frames} frames of {SIZE[1]}x{SIZE[0]}, milliseconds a frame, median of {options.rounds} rounds:")
    for clock, of in ((time.process_time, "processor"), (time.perf_counter, "clock")):
        loops, single, several = (
            1000 * seconds / frames for seconds in measure.take_turns(runs, options.rounds, clock)
        )
        print(f"  {of:>9}: devkit's loops {loops:.2f}; ours {single:.2f}, {loops / single:.1f} times as fast", end="")
        print(f"; with {threads} threads {several:.2f}, {loops / several:.1f} times as fast")


if __name__ == "__main__":
    run_program(main)
