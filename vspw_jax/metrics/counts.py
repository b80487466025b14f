"""What is counted of one video, in integers.

Every score of a split is a function of its videos' counts, in any order. Several processes may each count some of the
videos: their lists of counts together are what one process would have counted.
"""

import dataclasses
import json

import numpy as np
from jaxtyping import Int64, UInt8

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import UserError
from vspw_jax.files import frame_names
from vspw_jax.metrics.confusion import ConfusionMatrix
from vspw_jax.metrics.temporal_consistency import Flow, TemporalConsistency
from vspw_jax.metrics.video_consistency import LENGTHS, VideoConsistency


@dataclasses.dataclass(frozen=True)
class VideoCounts:
    """The counts of one video.

    Attributes:
      video: its name.
      num_classes: K.
      pairs: (label * K + prediction, pixels) of the cells of the confusion matrix that are not 0.
      frames: (labelled pixels, right pixels) of each frame.
      windows: by length; see `video_consistency.VideoConsistency`.
      repeated: frames with the same prediction as the frame before; see there.
      void, unfit: pixels that are void; pixels whose label is a class beyond the K classes.
      flow_pairs: as `pairs`, of TC; None where TC was not counted.
    """

    video: str
    num_classes: int
    pairs: Int64[np.ndarray, "P 2"]
    frames: Int64[np.ndarray, "F 2"]
    windows: dict[int, Int64[np.ndarray, "W 4"]]
    repeated: int
    void: int
    unfit: int
    flow_pairs: Int64[np.ndarray, "P 2"] | None = None

    def matrix_KK(self) -> Int64[np.ndarray, "K K"]:
        """The confusion matrix, rows are labels."""
        return _dense(self.pairs, self.num_classes)

    def flow_matrix_KK(self) -> Int64[np.ndarray, "K K"]:
        """The matrix of TC; zeros where it was not counted."""
        return _dense(np.zeros((0, 2), np.int64) if self.flow_pairs is None else self.flow_pairs, self.num_classes)

    def to_json(self) -> str:
        """The counts as a string, for another process or a file."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.dumps(fields, default=lambda array: array.tolist())

    @classmethod
    def from_json(cls, text: str) -> "VideoCounts":
        """The counts of a string of `to_json`."""
        fields = json.loads(text)
        table = lambda rows, columns: np.array(rows, np.int64).reshape(-1, columns)
        fields["windows"] = {int(length): table(rows, 4) for length, rows in fields["windows"].items()}
        for name in ("pairs", "frames", "flow_pairs"):
            fields[name] = None if fields[name] is None else table(fields[name], 2)
        return cls(**fields)


def _sparse(matrix_KK: np.ndarray) -> np.ndarray:
    cells = np.flatnonzero(matrix_KK)
    return np.stack([cells, matrix_KK.ravel()[cells]], axis=1)


def _dense(pairs: np.ndarray, num_classes: int) -> np.ndarray:
    matrix = np.zeros(num_classes**2, np.int64)
    matrix[pairs[:, 0]] = pairs[:, 1]
    return matrix.reshape(num_classes, num_classes)


class VideoMeter:
    """Counts one video as its frames come, in order; keeps the last frames alone, not the whole video.

    Args:
      video: its name.
      num_classes: K: labels of K or more are not scored.
      flow: for TC; None for no TC.
    """

    def __init__(self, video: str, num_classes: int, flow: Flow | None = None) -> None:
        self._video, self._num_classes, self._flow = video, num_classes, flow
        self._confusion = ConfusionMatrix(num_classes)
        self._consistency = VideoConsistency(num_classes, LENGTHS)
        self._temporal = TemporalConsistency(num_classes)
        self._frames: list[tuple[int, int]] = []
        self._last: tuple[str, np.ndarray] | None = None
        self._last_name: str | None = None

    def add(
        self,
        frame: str,
        image_HWC: UInt8[np.ndarray, "H W 3"] | None,
        label_HW: UInt8[np.ndarray, "H W"],
        prediction_HW: UInt8[np.ndarray, "H W"],
    ) -> None:
        """Adds the next frame by its name; without flow the image is not used and may be None.

        Raises:
          UserError: a prediction of another size than its label, or that is no class; a frame of another size than
            the frames before, or of a lower number than the last.
        """
        where = f"frame {frame} of video {self._video}"
        if self._last_name is not None and frame_names.natural(frame) < frame_names.natural(self._last_name):
            raise UserError(
                f"In {where}: it comes after frame {self._last_name}. Records of an older version may have frames in "
                "the order of text, which makes VC and TC wrong. Delete the records and convert again."
            )
        self._last_name = frame
        if label_HW.shape != prediction_HW.shape:
            sizes = ["x".join(map(str, array.shape[::-1])) for array in (prediction_HW, label_HW)]
            raise UserError(f"The prediction of {where} is {sizes[0]} pixels; expected {sizes[1]}, its mask's size.")
        try:
            self._frames.append(self._confusion.add(label_HW, prediction_HW))
            self._consistency.add(label_HW, prediction_HW)
        except ValueError as error:
            raise UserError(f"In {where}: {error}.") from error
        if self._flow:
            assert image_HWC is not None
            flow_HWC = self._flow(self._last[1], image_HWC, (self._video, self._last[0])) if self._last else None
            self._temporal.add(prediction_HW, flow_HWC)
            self._last = frame, image_HWC

    def counts(self) -> VideoCounts:
        """The counts of the frames so far."""
        by_label = self._confusion.label_pixels
        return VideoCounts(
            video=self._video,
            num_classes=self._num_classes,
            pairs=_sparse(self._confusion.counts_KK),
            frames=np.array(self._frames, np.int64).reshape(-1, 2),
            windows={
                length: np.array(windows, np.int64).reshape(-1, 4)
                for length, windows in self._consistency.windows.items()
            },
            repeated=self._consistency.repeated,
            void=int(by_label[VOID]),
            unfit=int(by_label[self._num_classes : VOID].sum()),
            flow_pairs=_sparse(self._temporal.confusion.counts_KK) if self._flow else None,
        )
