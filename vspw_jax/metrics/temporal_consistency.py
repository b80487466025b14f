"""Temporal consistency TC: the mIoU between a frame's prediction and the next one's, warped back along optical flow.

As in VSPW's devkit, only the first 100 videos of the split count; the warp's grid is normalised for corners and read as
if for pixel edges, so that x becomes x W / (W - 1) - 1/2, up to half a pixel off; pixels from outside of the frame are
class 0, "wall"; occluded pixels count; labels play no part. One thing is ours: pixels where either prediction is no
class (such as 255) are left out. The devkit would fail there.
The devkit takes the flow of RAFT. Here the flow comes from files, or from OpenCV's DIS; figures by DIS are not
comparable with published ones.
Source: VSPW-dataset/VSPW_baseline TC_cal.py. Flow (H, W, 2) float32: the place of a frame's pixel (x, y) in the next
frame, less (x, y).
"""

import itertools
import pathlib
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float32, UInt8

from vspw_jax.console.errors import UserError
from vspw_jax.metrics.confusion import ConfusionMatrix
from vspw_jax.sampling.dis_flow import DisFlow

Flow = Callable[[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W 3"], tuple[str, str]], Float32[np.ndarray, "H W 2"]]
"""A source of flow: function of an image, the following image, and the first one's (video, frame)."""

MOST_VIDEOS = 100
FLO_MAGIC = 202021.25


def _source(position: np.ndarray, size: int) -> np.ndarray:
    """Rounded pixel coordinates that the devkit's grid_sample reads, in its float32 arithmetic."""
    grid = np.float32(2) * position / np.float32(max(size - 1, 1)) - np.float32(1)
    return np.rint(((grid + np.float32(1)) * np.float32(size) - np.float32(1)) / np.float32(2))


def warp_back(mask_HW: UInt8[np.ndarray, "H W"], flow_HWC: Float32[np.ndarray, "H W 2"]) -> UInt8[np.ndarray, "H W"]:
    """The next frame's mask, with its pixels where they are in this frame; 0 where the flow leads out of the frame."""
    height, width = mask_HW.shape
    x = _source(np.arange(width, dtype=np.float32) + flow_HWC[..., 0], width)
    y = _source(np.arange(height, dtype=np.float32)[:, None] + flow_HWC[..., 1], height)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)  # False for NaN too.
    x, y = (np.where(inside, at, 0).astype(np.intp) for at in (x, y))
    return np.where(inside, mask_HW[y, x], 0).astype(mask_HW.dtype)


class TemporalConsistency:
    """Counts one video. Rows of its matrix are a frame's prediction, columns the next one's, warped back."""

    def __init__(self, num_classes: int) -> None:
        self.confusion = ConfusionMatrix(num_classes)
        self._last: np.ndarray | None = None

    def add(
        self, prediction_HW: UInt8[np.ndarray, "H W"], flow_HWC: Float32[np.ndarray, "H W 2"] | None = None
    ) -> None:
        """Adds the next frame; `flow_HWC` leads from the frame before to this one. The first frame needs none."""
        if self._last is not None:
            assert flow_HWC is not None
            warped = warp_back(prediction_HW, flow_HWC)
            self.confusion.add(np.where(warped < self.confusion.num_classes, self._last, 255), warped)
        self._last = prediction_HW.copy()


def flow_of_first(videos: Iterable[str], make: Callable[[], Flow | None] | None) -> Callable[[str], Flow | None]:
    """A function from a video's name to a source of flow. It gives None after the first MOST_VIDEOS: TC ignores those.

    Args:
      videos: names of all videos of a split, in order.
      make: function that makes a source, such as `DisFlow`; None for no flow at all.
    """
    first = set(itertools.islice(videos, MOST_VIDEOS))
    return lambda video: make() if make and video in first else None


class FlowFiles:
    """Flow from DIR/<video>/<frame>.flo (Middlebury's format) or .npy; a file has the name of the earlier frame."""

    def __init__(self, folder: pathlib.Path | str) -> None:
        self._folder = pathlib.Path(folder)
        if not self._folder.is_dir():
            raise UserError(f"--flow={folder}: no such folder. Expected dis, none, or DIR with <video>/<frame>.flo.")

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], following: UInt8[np.ndarray, "H W 3"], where: tuple[str, str]
    ) -> Float32[np.ndarray, "H W 2"]:
        video, frame = where
        paths = [self._folder / video / f"{frame}{suffix}" for suffix in (".flo", ".npy")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise UserError(f"There is no flow {paths[0]} (or .npy): expected one for every frame but a video's last.")
        flow = read_flo(path) if path.suffix == ".flo" else _read_npy(path)
        if flow.shape != (*image.shape[:2], 2):
            raise UserError(f"{path} is {flow.shape}: expected {(*image.shape[:2], 2)}, its frame's size.")
        return flow.astype(np.float32)


def read_flo(path: pathlib.Path | str) -> Float32[np.ndarray, "H W 2"]:
    """The flow of a file in Middlebury's format."""
    data = pathlib.Path(path).read_bytes()
    width, height = np.frombuffer(data[4:12], "<i4") if len(data) >= 12 else (0, 0)
    if data[:4] != np.float32(FLO_MAGIC).tobytes() or len(data) != 12 + 8 * int(width) * int(height):
        raise UserError(f"{path} is no .flo file, or it is cut off.")
    return np.frombuffer(data[12:], "<f4").reshape(height, width, 2)


def _read_npy(path: pathlib.Path) -> np.ndarray:
    try:
        return np.load(path)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is no array of NumPy's, or it is cut off: {error}") from error


def flow_source(name: str) -> Flow | None:
    """What computes flow: "dis", a folder of files, or None for "none"."""
    return None if name == "none" else DisFlow() if name == "dis" else FlowFiles(name)
