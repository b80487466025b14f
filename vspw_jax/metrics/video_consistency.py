"""Video consistency VC_n: whether predictions stay the same where labels do, over windows of n frames.

A window's ratio is |G and P| / |G|. G are the pixels whose label is the same in all n frames. Two forms are counted:

  VCn          VSPW's devkit. P: pixels whose prediction is the same in all n frames. Kept on purpose: a constantly
               wrong prediction counts as consistent; void counts as a label; a video's last window is not used, so
               that a video of n frames or fewer has no window; a window without G is left out; the score is the
               mean over the windows of all videos together. Labels are remapped before (as VSS-CFFM does): "others"
               and void are one label.
  VCn_correct  The paper's formula. P: pixels whose prediction is the label in all n frames; G without void; all
               windows of a video count.

Source: VSPW-dataset/VSPW_baseline VC_perclip.py; VSS-CFFM VC_perclip.py.
A plane of bits, eight pixels a byte, says which pixels stayed the same from one frame to the next. A window is the AND
of its planes, made of ANDs of 1, 2, 4, ... planes.
"""

import collections
import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt64
from numpy.typing import ArrayLike

LENGTHS = (8, 16)

Plane = UInt64[np.ndarray, "words"]


def plane_of(flags: Bool[np.ndarray, "..."]) -> Plane:
    """Booleans as bits; spare bits are 0."""
    packed = np.packbits(flags.ravel())
    plane = np.zeros(-(-packed.size // 8), np.uint64)
    plane.view(np.uint8)[: packed.size] = packed
    return plane


def bits(plane: Plane) -> int:
    """How many bits of a plane are set."""
    return int(np.bitwise_count(plane).sum(dtype=np.int64))


class LastPlanes:
    """The AND of the last planes, for any number of them up to `most`."""

    def __init__(self, most: int) -> None:
        self._levels: list[collections.deque[Plane]] = [
            collections.deque(maxlen=most + 1) for _ in range(most.bit_length())
        ]
        """Level k holds ANDs of 2^k planes, in the order of their last planes."""

    def append(self, plane: Plane) -> None:
        """Takes the next plane."""
        for k, level in enumerate(self._levels):
            if k:
                lower, half = self._levels[k - 1], 1 << (k - 1)
                if len(lower) <= half:
                    return
                plane = lower[-1] & lower[-1 - half]
            level.append(plane)

    def all_of(self, count: int) -> Plane:
        """The AND of the last `count` planes; count is 1 or more, and at least so many planes must have come."""
        level = self._levels[count.bit_length() - 1]
        return level[-1] & level[-1 - count + (1 << (count.bit_length() - 1))]


class VideoConsistency:
    """Counts the windows of one video; frames come in order, memory does not grow with their number.

    Attributes:
      windows: by length n a list of (stable, constant, labelled, correct) pixels, one entry a window, the last window
        too. The first two are |G| and |G and P| of VCn, the others those of VCn_correct.
      repeated: frames with the same prediction as the frame before, pixel for pixel.
    """

    def __init__(self, num_classes: int, lengths: Sequence[int] = LENGTHS) -> None:
        self._num_classes, self._frames = num_classes, 0
        self._label, self._both = LastPlanes(max(lengths)), LastPlanes(max(lengths))
        self.windows: dict[int, list[tuple[int, int, int, int]]] = {length: [] for length in lengths}
        self.repeated = 0
        self._last: tuple[np.ndarray, np.ndarray]

    def add(self, label_HW: UInt8[np.ndarray, "H W"], prediction_HW: UInt8[np.ndarray, "H W"]) -> None:
        """Adds the next frame. Its arrays are kept until the next call and must not be changed.

        Raises:
          ValueError: its size is not that of the frames before.
        """
        if self._frames:
            self._compare(label_HW, prediction_HW)
        known = plane_of(label_HW < self._num_classes)
        right = plane_of(label_HW == prediction_HW) & known
        self._last = label_HW, prediction_HW
        self._frames += 1
        for length, windows in self.windows.items():
            if self._frames >= length:
                windows.append(self._window(length, label_HW.size, known, right))

    def _compare(self, label_HW: np.ndarray, prediction_HW: np.ndarray) -> None:
        last_label, last_prediction = self._last
        if label_HW.shape != last_label.shape:
            raise ValueError(f"a frame of {label_HW.shape} after frames of {last_label.shape}")
        same_label, same_prediction = label_HW == last_label, prediction_HW == last_prediction
        self.repeated += bool(same_prediction.all())
        same_label = plane_of(same_label)
        self._label.append(same_label)
        self._both.append(same_label & plane_of(same_prediction))

    def _window(self, length: int, pixels: int, known: Plane, right: Plane) -> tuple[int, int, int, int]:
        if length == 1:
            return pixels, pixels, bits(known), bits(right)
        stable, both = self._label.all_of(length - 1), self._both.all_of(length - 1)
        # Where neither changes, a prediction that is right in the last frame was right in all.
        return bits(stable), bits(both), bits(stable & known), bits(both & right)


def ratios(windows_W4: ArrayLike, correct: bool = False) -> Float[np.ndarray, " _"]:
    """The ratios of a video's windows that count: of VCn, or of VCn_correct; see the module."""
    windows_W4 = np.asarray(windows_W4, np.int64).reshape(-1, 4)
    whole_W, kept_W = windows_W4[:, 2:].T if correct else windows_W4[:-1, :2].T
    return kept_W[whole_W > 0] / whole_W[whole_W > 0]


def mean_ratio(videos: Iterable[ArrayLike], correct: bool = False) -> float:
    """The mean over the windows of all videos, correctly rounded in any order of them; NaN without a window."""
    every = np.concatenate([ratios(windows_W4, correct) for windows_W4 in videos] or [np.zeros(0)])
    return math.fsum(every) / every.size if every.size else math.nan
