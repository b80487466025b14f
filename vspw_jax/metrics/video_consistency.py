"""Video consistency VC_n, as VSPW's devkit computes it.

Source: VSPW-dataset/VSPW_baseline VC_perclip.py, with labels remapped first as VSS-CFFM does, so that "others" and void
are one label. Kept on purpose: a constantly wrong prediction counts as consistent; a video's last window is not
used; videos of n frames or fewer have no window.
"""

import numpy as np


class VideoConsistency:
    """Mean over windows of n frames of |G and P| / |G|, pooled over videos.

    G: pixels whose label stays what it is in the window's first frame; P: the same of the prediction. Frames come one
    by one, in order; memory does not grow with a video's length.
    """

    def __init__(self, length):
        self.length, self.total, self.windows = length, 0.0, 0
        self.start_video()

    def start_video(self):
        """The next frame begins another video."""
        self._frame = 0

    def add(self, label_HW, prediction_HW):
        """Adds the next frame of the video."""
        if self._frame == 0:
            self._label_run = np.zeros(label_HW.shape, np.int32)
            self._prediction_run = np.zeros(label_HW.shape, np.int32)
        else:
            # Only now is the window that ended with the frame before known not to be the video's last.
            self._score_window()
            self._label_run[label_HW != self._label] = 0
            self._prediction_run[prediction_HW != self._prediction] = 0
        self._label_run += 1
        self._prediction_run += 1
        self._label, self._prediction = label_HW.copy(), prediction_HW.copy()
        self._frame += 1

    def _score_window(self):
        stable = self._label_run >= self.length
        if self._frame < self.length or not stable.any():
            return
        self.total += (self._prediction_run[stable] >= self.length).mean()
        self.windows += 1

    def score(self):
        """VC_n; NaN without a window."""
        return float(self.total / self.windows) if self.windows else float("nan")
