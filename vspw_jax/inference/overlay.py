"""Predictions as pictures: class colours over the frame, with a legend."""

from collections.abc import Iterable

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy.typing import ArrayLike

from vspw_jax.classes import vspw

LEGEND_WIDTH = 200
LINE_HEIGHT = 22

Picture = UInt8[np.ndarray, "H W 3"]
"""RGB."""
Labels = UInt8[np.ndarray, "H W"]
"""Train ids, void 255."""


def overlay(image_HWC: Picture, label_HW: Labels, opacity: float = 0.6) -> Picture:
    """The frame with its classes' colours over it; void pixels stay as they are."""
    colour = vspw.picture_colours()[label_HW]
    mixed = (1 - opacity) * image_HWC + opacity * colour
    return np.where((label_HW == vspw.VOID)[..., None], image_HWC, mixed.round()).astype(np.uint8)


def legend(class_ids: Iterable[int], height: int) -> UInt8[np.ndarray, "height 200 3"]:
    """A panel with colour and name of classes: the first ones, as many as fit."""
    panel = np.full((height, LEGEND_WIDTH, 3), 255, np.uint8)
    names, palette = vspw.names(), vspw.picture_colours()
    for line, class_id in enumerate(list(class_ids)[: height // LINE_HEIGHT]):
        top = line * LINE_HEIGHT
        cv2.rectangle(panel, (6, top + 5), (20, top + 18), palette[class_id].tolist(), -1)
        place = (26, top + 16)
        cv2.putText(panel, names[class_id][:24], place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return panel


def commonest(label: ArrayLike, most: int = 20) -> list[int]:
    """The class ids that occur in labels, commonest first; at most `most`."""
    counts = np.bincount(np.asarray(label).ravel(), minlength=256)[: vspw.NUM_CLASSES]
    return [int(class_id) for class_id in np.argsort(-counts)[:most] if counts[class_id]]


def enlarge(image_HWC: Picture, height: int) -> Picture:
    """The picture scaled up to about `height`, by a whole factor, so that pixels stay square; never scaled down."""
    factor = max(round(height / image_HWC.shape[0]), 1)
    return image_HWC.repeat(factor, axis=0).repeat(factor, axis=1)


def with_legend(_: Picture, coloured: Picture, class_ids: Iterable[int]) -> Picture:
    """An overlay with the legend of classes beside it."""
    return np.concatenate([coloured, legend(class_ids, coloured.shape[0])], axis=1)


def beside(frame: Picture, coloured: Picture, class_ids: Iterable[int]) -> Picture:
    """Frame, overlay and the legend of classes beside each other."""
    return np.concatenate([frame, coloured, legend(class_ids, frame.shape[0])], axis=1)


def comparison(image: Picture, label: Labels, prediction: Labels, height: int = 240) -> Picture:
    """Frame, truth and prediction side by side, with a legend of the classes in either."""
    parts = [image, overlay(image, label), overlay(image, prediction)]
    row = np.concatenate([enlarge(part, height) for part in parts], axis=1)
    return np.concatenate([row, legend(commonest([label, prediction]), row.shape[0])], axis=1)
