"""Predictions as pictures: class colours over the frame, with a legend."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from numpy.typing import ArrayLike

from vspw_jax.classes.class_list import VOID, ClassList

LEGEND_WIDTH = 200
LINE_HEIGHT = 22
LEAST_HEIGHT = 10 * LINE_HEIGHT
"""Of a picture with a legend: so many classes have their line."""
MOST_SIDE = 7680
"""Of a frame as it is drawn. H.264 ends at 16384, and a film may hold two frames and a legend beside each other."""
OPACITY = 0.5
"""Of the classes' colours where nothing else is said."""

Picture = UInt8[np.ndarray, "H W 3"]
"""RGB."""
Labels = UInt8[np.ndarray, "H W"]
"""Train ids, void 255."""


@dataclasses.dataclass(frozen=True)
class Painter:
    """Draws classes.

    Attributes:
      classes: whose names and colours.
      opacity: of the colours over the frame: 0 shows the frame alone, 1 hides it; a recipe's `evaluate.opacity`.
    """

    classes: ClassList
    opacity: float = OPACITY

    def identity(self) -> dict[str, Any]:
        """What decides how classes are drawn, as JSON values."""
        colours = hashlib.sha256(self.classes.picture_palette.tobytes()).hexdigest()[:16]
        return {"opacity": self.opacity, "colours": colours}

    @functools.cached_property
    def _line_colours(self) -> UInt8[np.ndarray, "256 3"]:
        """A darker tone of light classes' colours, a lighter one of dark classes'."""
        colours = self.classes.picture_palette.astype(np.float32)
        is_light = colours @ np.array([0.299, 0.587, 0.114], np.float32) > 128
        return np.where(is_light[:, None], colours * 0.4, 255 - (255 - colours) * 0.4).round().astype(np.uint8)

    def overlay(self, image_HWC: Picture, label_HW: Labels) -> Picture:
        """The frame with its classes' colours over it, and a line where classes meet; void pixels stay as they are."""
        colour = self.classes.picture_palette[label_HW]
        mixed = ((1 - self.opacity) * image_HWC + self.opacity * colour).round().astype(np.uint8)
        mixed = np.where((label_HW == VOID)[..., None], image_HWC, mixed)
        if self.opacity:
            borders = _borders(label_HW)
            mixed[borders] = self._line_colours[label_HW[borders]]
        return mixed

    def legend(self, class_ids: Iterable[int], height: int) -> UInt8[np.ndarray, "height 200 3"]:
        """A panel with colour and name of classes: the first ones, as many as fit."""
        panel = np.full((height, LEGEND_WIDTH, 3), 255, np.uint8)
        palette = self.classes.picture_palette
        for line, class_id in enumerate(list(class_ids)[: height // LINE_HEIGHT]):
            top = line * LINE_HEIGHT
            cv2.rectangle(panel, (6, top + 5), (20, top + 18), palette[class_id].tolist(), -1)
            name, place = self.classes.name(class_id)[:24], (26, top + 16)
            cv2.putText(panel, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        return panel

    def _beside_legend(self, pictures: Sequence[Picture], class_ids: Iterable[int]) -> Picture:
        """Pictures of one size and the legend of classes beside each other; low ones have grey below."""
        row = np.concatenate(pictures, axis=1)
        row = np.pad(row, [(0, max(LEAST_HEIGHT - len(row), 0)), (0, 0), (0, 0)], constant_values=128)
        return np.concatenate([row, self.legend(class_ids, len(row))], axis=1)

    def with_legend(self, _: Picture, coloured: Picture, class_ids: Iterable[int]) -> Picture:
        """An overlay with the legend of classes beside it."""
        return self._beside_legend([coloured], class_ids)

    def beside(self, frame: Picture, coloured: Picture, class_ids: Iterable[int]) -> Picture:
        """Frame, overlay and the legend of classes beside each other."""
        return self._beside_legend([frame, coloured], class_ids)

    def comparison(self, image: Picture, label: Labels, prediction: Labels, height: int = 240) -> Picture:
        """Frame, truth and prediction side by side, with a legend of the classes in either."""
        image, label, prediction = (scaled(part, height) for part in (image, label, prediction))
        parts = [image, self.overlay(image, label), self.overlay(image, prediction)]
        return self._beside_legend(parts, commonest([label, prediction]))


def _borders(label_HW: Labels) -> Bool[np.ndarray, "H W"]:
    """The pixels of a class whose right or lower neighbour is of another, or of none."""
    borders = np.zeros(label_HW.shape, bool)
    borders[:, :-1] = label_HW[:, :-1] != label_HW[:, 1:]
    borders[:-1] |= label_HW[:-1] != label_HW[1:]
    return borders & (label_HW != VOID)


def commonest(label: ArrayLike, most: int = 20) -> list[int]:
    """The class ids that occur in labels, commonest first; at most `most`."""
    counts = np.bincount(np.asarray(label).ravel(), minlength=256)[:VOID]
    return [int(class_id) for class_id in np.argsort(-counts)[:most] if counts[class_id]]


def drawn_size(height: int, width: int, about: int) -> tuple[int, int]:
    """The size at which a frame is drawn: scaled by a whole factor to about so many rows, so that pixels stay square.

    It is never scaled down, but where a side would be more than MOST_SIDE.
    """
    factor: float = max(min(round(about / height), MOST_SIDE // max(height, width)), 1)
    if max(height, width) > MOST_SIDE:
        factor = MOST_SIDE / max(height, width)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def scaled(image: UInt8[np.ndarray, "H W *C"], about: int) -> UInt8[np.ndarray, "h w *C"]:
    """A picture, or labels, at `drawn_size`."""
    height, width = drawn_size(image.shape[0], image.shape[1], about)
    shrinks = height < image.shape[0] and image.ndim == 3
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST_EXACT)


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Pictures below each other; narrow ones have grey beside them."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, [(0, 0), (0, width - p.shape[1]), (0, 0)], constant_values=128) for p in pictures]
    return np.concatenate(padded)
