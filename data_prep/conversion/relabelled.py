"""The frames of records as a source of files, with predictions in the place of most masks of one split.

Names: images/<split>/<record>, labels/<split>/<record> for masks as they are, and predicted/... for pseudo-labels. The
names hold what decides a mask's bytes, so that a conversion by other rules is another conversion.
"""

import io
from collections.abc import Iterable
from typing import Self

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from data_prep.conversion.frames import Frame
from vspw_jax.classes.class_list import VOID
from vspw_jax.classes.label_maps import LabelMap
from vspw_jax.console.errors import UserError
from vspw_jax.console.progress import progress
from vspw_jax.data import records
from vspw_jax.files.sources import Source
from vspw_jax.inference import scores
from vspw_jax.metrics import predictions


def values_of(labels: LabelMap) -> UInt8[np.ndarray, "256"]:
    """A mask's value for each train id and for void.

    Raises:
      UserError: there is a class that no value means, or none that means void.
    """
    values, known = np.zeros(256, np.uint8), set[int]()
    for source in labels.sources:
        if source.train_id is not None and source.train_id not in known:
            values[source.train_id] = source.value
            known.add(source.train_id)
    void = max(labels.void, default=None)
    lacking = [name for number, name in enumerate(labels.classes.names) if number not in known]
    if lacking or void is None:
        raise UserError(
            f"Masks of {labels.dataset} ({labels.numbering}) have no value for {', '.join(lacking[:3]) or 'void'}: "
            "predictions cannot be written in their place. Expected records of VSPW or of your own classes."
        )
    values[VOID] = void
    return values


def sure(compact: scores.Compact, num_classes: int, threshold: float) -> Bool[np.ndarray, "H W"]:
    """Where the best class's share of a pixel's scores is at least `threshold`."""
    values = compact.values.astype(np.float32)
    total_HW = values.sum(axis=-1)
    if compact.rest is not None:
        total_HW += compact.rest.astype(np.float32) * (num_classes - values.shape[-1])
    return values.max(axis=-1) >= threshold * total_HW


def agrees(compact: scores.Compact, label_HW: UInt8[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Where no class has a higher score than a label's, and under void. Equal halves are a tie."""
    class_HW1 = np.where(label_HW == VOID, 0, label_HW)[..., None]
    if compact.classes is None:
        score_HW1 = np.take_along_axis(compact.values, class_HW1.astype(np.intp), axis=-1)
    else:
        score_HW1 = compact.of(class_HW1)
    return (score_HW1[..., 0] >= compact.values.max(axis=-1)) | (label_HW == VOID)


class Relabelled(Source):
    """The source of the files; see the module.

    Args:
      splits: the records by split.
      split: whose masks are replaced.
      kept_N: those of its records that keep theirs.
      labels: what the masks' values mean.
      folder: has the predictions.
      reader: has their scores; None takes every pixel's class, however unsure.
      threshold: see `sure`.

    Attributes:
      frames: by split, as a conversion takes them.
    """

    def __init__(
        self,
        splits: dict[str, records.Frames],
        split: str,
        kept_N: Bool[np.ndarray, " N"],
        labels: LabelMap,
        folder: predictions.Folder,
        reader: scores.Reader | None = None,
        threshold: float = 0.0,
    ) -> None:
        self.path, self.sizes = str(splits[split].path), {}
        self.frames: dict[str, list[Frame]] = {}
        self._splits, self._values, self._num_classes = splits, values_of(labels), len(labels.classes)
        self._folder, self._reader, self._threshold = folder, reader, threshold
        for name, frames in splits.items():
            keeps = (lambda number: True) if name != split else kept_N.__getitem__
            numbers = progress(range(len(frames)), f"looking at {name}", "frame", total=len(frames))
            self.frames[name] = [self._entered(name, number, frames[number], keeps(number)) for number in numbers]

    def _entered(self, split: str, number: int, record: records.Record, is_kept: bool) -> Frame:
        video, frame = record["video"], record["frame"]
        image, mask = f"images/{split}/{number}", f"labels/{split}/{number}"
        self.sizes[image] = len(record["image_jpeg"])
        if is_kept:
            self.sizes[mask] = len(record["mask_png"])
            return Frame(video, frame, image, mask if record["mask_png"] else None)
        mask = f"predicted/{self._threshold:g}/{split}/{number}"
        self.sizes[mask] = predictions.path_of(self._folder.path, video, frame).stat().st_size
        return Frame(video, frame, image, mask)

    def only(self, names: Iterable[str]) -> Self:
        """The same source with these files alone."""
        restricted = super().only(names)
        for name in ("_splits", "_values", "_num_classes", "_folder", "_reader", "_threshold"):
            setattr(restricted, name, getattr(self, name))
        return restricted

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        kind, *_, split, number = name.split("/")
        record = self._splits[split][int(number)]
        if kind == "images":
            return record["image_jpeg"]
        return record["mask_png"] if kind == "labels" else self._predicted(record["video"], record["frame"])

    def _check_agrees(self, compact: scores.Compact, label_HW: UInt8[np.ndarray, "H W"]) -> None:
        """Raises UserError where a frame's scores are not those of its prediction."""
        other = int((~agrees(compact, label_HW)).sum())
        if other:
            assert self._reader is not None
            raise UserError(
                f"has another best class in the scores {self._reader.folder} than in the prediction "
                f"{self._folder.path}, in {other:,} of {label_HW.size:,} pixels: expected both of one run. "
                "Save both anew with --mode=evaluate --config.evaluate.save_scores=True."
            )

    def _predicted(self, video: str, frame: str) -> bytes:
        """The PNG of a pseudo-label, in the values of the records' masks."""
        label_HW = self._folder.mask(video, frame)
        found = set(np.unique(label_HW).tolist()) - {*range(self._num_classes), VOID}
        if found:
            raise UserError(f"is predicted as {min(found)} by {self._folder.path}: expected 0..{self._num_classes - 1}")
        if self._reader is not None:
            compact = self._reader.frame(video, frame)
            sure_HW = sure(compact, self._reader.num_classes, self._threshold)
            if sure_HW.shape != label_HW.shape:
                raise UserError(f"has scores of {sure_HW.shape} pixels and a prediction of {label_HW.shape}")
            self._check_agrees(compact, label_HW)
            label_HW = np.where(sure_HW, label_HW, VOID).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(self._values[label_HW]).save(buffer, "PNG", compress_level=3)
        return buffer.getvalue()
