"""The scores of a split from its videos' counts, with intervals by resampling the videos.

Each of REPLICATES draws takes as many videos as there are, with replacement. The interval of a score is the range from
its 2.5th to its 97.5th percentile over the draws: what other videos of the same kind would have given. Whole videos are
drawn, as frames of a video resemble each other. A class that has no labelled pixel in a draw does not count in that
draw's mIoU. Legend: V videos, K classes, R draws.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int64, Num

from vspw_jax.classes.class_list import ClassList
from vspw_jax.metrics import confusion, diagnosis, video_consistency
from vspw_jax.metrics.counts import VideoCounts
from vspw_jax.metrics.video_consistency import LENGTHS

REPLICATES = 1000
SEED = 0
LEVEL = 0.95
DEVKIT = ("mIoU", "fwIoU", "pixel_accuracy", "class_accuracy", "video_mIoU", "video_fwIoU", "VC8", "VC16")
CORRECT = ("VC8_correct", "VC16_correct")
"""Not the devkit's; see `video_consistency`."""


def total_matrix(counts: Sequence[VideoCounts]) -> Int64[np.ndarray, "K K"]:
    """The confusion matrix of all videos."""
    return sum((video.matrix_KK() for video in counts), np.zeros((counts[0].num_classes,) * 2, np.int64))


def _sums(matrices: Iterable[np.ndarray]) -> list[Int64[np.ndarray, "V K"]]:
    """The three arrays of `class_sums`, for all videos."""
    return [np.stack(part) for part in zip(*map(confusion.class_sums, matrices), strict=True)]


def video_scores(counts: Sequence[VideoCounts]) -> dict[str, dict[str, float]]:
    """Each video's own scores, by its name; NaN where it has nothing to score."""
    rows = confusion.scores(*_sums(video.matrix_KK() for video in counts))
    result = {}
    for number, video in enumerate(counts):
        own: dict[str, float] = {"frames": len(video.frames)}
        own |= {name: float(values[number]) for name, values in rows.items()}
        for length in LENGTHS:
            own[f"VC{length}"] = video_consistency.mean_ratio([video.windows[length]])
            own[f"VC{length}_correct"] = video_consistency.mean_ratio([video.windows[length]], correct=True)
        result[video.video] = own
    return result


def resampled(counts: Sequence[VideoCounts], weights_RV: Int[np.ndarray, "R V"]) -> dict[str, Float[np.ndarray, " R"]]:
    """Every score in each draw; NaN where a draw has nothing to score.

    Args:
      weights_RV: how often each video is in each draw.
    """
    sums = _sums(video.matrix_KK() for video in counts)
    result = confusion.scores(*(weights_RV @ part for part in sums))
    own = confusion.scores(*sums)
    for name in ("mIoU", "fwIoU"):
        result[f"video_{name}"] = _weighted_mean(weights_RV, own[name], np.isfinite(own[name]))
    for length in LENGTHS:
        for suffix, correct in (("", False), ("_correct", True)):
            of_videos = [video_consistency.ratios(video.windows[length], correct) for video in counts]
            means = np.array([ratios.mean() if ratios.size else math.nan for ratios in of_videos])
            result[f"VC{length}{suffix}"] = _weighted_mean(weights_RV, means, np.array([r.size for r in of_videos]))
    if any(video.flow_pairs is not None for video in counts):
        of_flow = [weights_RV @ part for part in _sums(video.flow_matrix_KK() for video in counts)]
        result["TC"] = confusion.scores(*of_flow)["mIoU"]
    return result


def _weighted_mean(
    weights_RV: Int[np.ndarray, "R V"], values_V: Float[np.ndarray, " V"], sizes_V: Num[np.ndarray, " V"]
) -> Float[np.ndarray, " R"]:
    """Means of values with so many entries (`sizes_V`) each; a value without entries may be NaN."""
    count_R = weights_RV @ sizes_V
    total_R = weights_RV @ np.where(sizes_V > 0, values_V * sizes_V, 0.0)
    return np.where(count_R > 0, total_R / np.maximum(count_R, 1), np.nan)


def draws(num_videos: int, seed: int = SEED, replicates: int = REPLICATES) -> Int64[np.ndarray, "R V"]:
    """How often each video is in each draw."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_videos, np.full(num_videos, 1 / num_videos), size=replicates)


def interval(values_R: Float[np.ndarray, " R"]) -> list[float] | None:
    """[low, high] of the draws in which a score exists, or None where it exists in none."""
    values_R = values_R[np.isfinite(values_R)]
    if not values_R.size:
        return None
    return np.quantile(values_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()


def intervals(counts: Sequence[VideoCounts], seed: int = SEED) -> dict[str, list[float] | None]:
    """The interval of every score; empty with fewer than two videos, as one video gives no interval."""
    if len(counts) < 2:
        return {}
    return {name: interval(values_R) for name, values_R in resampled(counts, draws(len(counts), seed)).items()}


def differences(
    counts: Sequence[VideoCounts], others: Sequence[VideoCounts], seed: int = SEED
) -> dict[str, list[float | None]]:
    """[difference, low, high] of every score, `others` less `counts`. Both are of the same videos, drawn together."""
    both = sorted(counts, key=lambda video: video.video), sorted(others, key=lambda video: video.video)
    once = np.ones((1, len(counts)), np.int64)
    drawn = np.concatenate([once, draws(len(counts), seed)])
    first, second = (resampled(side, drawn) for side in both)
    result = {}
    for name in first.keys() & second.keys():
        change_R = second[name] - first[name]
        if np.isfinite(change_R[0]):
            low_high = interval(change_R[1:]) if len(counts) > 1 else None
            result[name] = [float(change_R[0]), *(low_high or (None, None))]
    return result


def summarise(counts: Sequence[VideoCounts], classes: ClassList, seed: int = SEED) -> dict[str, Any]:
    """All scores of a split.

    Args:
      counts: of its videos, in any order: the result does not depend on the order.
      classes: those of the data.

    Returns:
      A dict for JSON: the scores by name (None where one does not exist), `commonest_class` (the scores of always
      predicting the commonest class of the same pixels), `intervals`, `IoU` by class, `videos`, what was counted, and
      `warnings`, sentences about what looks wrong.

    Raises:
      UserError: no pixel has a label that can be scored.
    """
    counts = sorted(counts, key=lambda video: video.video)
    diagnosis.require_labels(counts)
    matrix_KK = total_matrix(counts)
    videos = video_scores(counts)
    labelled_K = matrix_KK.sum(axis=1)
    constant = confusion.of_constant(matrix_KK)
    result: dict[str, Any] = {**_scores(matrix_KK), **_video_means(videos), **_consistency(counts)}
    if any(video.flow_pairs is not None for video in counts):
        flow_KK = sum((video.flow_matrix_KK() for video in counts), np.zeros_like(matrix_KK))
        result["TC"] = float(confusion.scores(*confusion.class_sums(flow_KK))["mIoU"])
    iou_K = confusion.iou(*confusion.class_sums(matrix_KK))
    result |= {
        "commonest_class": {
            "class": classes.name(int(labelled_K.argmax())),
            **_scores(constant),
            # A constant prediction is the same in every window.
            **{f"VC{length}": 1.0 if math.isfinite(result[f"VC{length}"]) else math.nan for length in LENGTHS},
        },
        "intervals": intervals(counts, seed),
        "resampling": {"over": "videos", "level": LEVEL, "replicates": REPLICATES, "seed": seed},
        "IoU": {classes.name(k): float(iou_K[k]) for k in np.flatnonzero(labelled_K).tolist()},
        "counted": {
            "videos": len(counts),
            "frames": sum(len(video.frames) for video in counts),
            "labelled_pixels": int(labelled_K.sum()),
            "void_pixels": sum(video.void for video in counts),
            **{f"VC{n}_windows": sum(video_consistency.ratios(v.windows[n]).size for v in counts) for n in LENGTHS},
        },
        "videos": videos,
        "warnings": diagnosis.explain(counts, matrix_KK, classes),
    }
    return _without_nan(result)


def _scores(matrix_KK: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in confusion.scores(*confusion.class_sums(matrix_KK)).items()}


def _video_means(videos: Mapping[str, dict[str, float]]) -> dict[str, float]:
    result = {}
    for name in ("mIoU", "fwIoU"):
        values = [own[name] for own in videos.values() if math.isfinite(own[name])]
        result[f"video_{name}"] = math.fsum(values) / len(values)
    return result


def _consistency(counts: Sequence[VideoCounts]) -> dict[str, float]:
    return {
        f"VC{length}{suffix}": video_consistency.mean_ratio([video.windows[length] for video in counts], correct)
        for suffix, correct in (("", False), ("_correct", True))
        for length in LENGTHS
    }


def _without_nan(value: Any) -> Any:
    """The value with None in the place of NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
