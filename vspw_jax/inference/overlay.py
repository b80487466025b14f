"""Predictions as pictures: class colours over the frame, with a legend."""

import cv2
import numpy as np

from vspw_jax.classes import vspw

LEGEND_WIDTH = 200
LINE_HEIGHT = 22


def overlay(image_HWC, label_HW, opacity=0.6):
    """The frame with its classes' colours over it (uint8 RGB); void stays as it is."""
    colour = vspw.palette()[label_HW]
    mixed = (1 - opacity) * image_HWC + opacity * colour
    return np.where((label_HW == vspw.VOID)[..., None], image_HWC, mixed.round()).astype(np.uint8)


def legend(class_ids, height):
    """A panel (height, LEGEND_WIDTH, 3) with colour and name of classes, as many as fit, first come first."""
    panel = np.full((height, LEGEND_WIDTH, 3), 255, np.uint8)
    names, palette = vspw.names(), vspw.palette()
    for line, class_id in enumerate(list(class_ids)[: height // LINE_HEIGHT]):
        top = line * LINE_HEIGHT
        cv2.rectangle(panel, (6, top + 5), (20, top + 18), palette[class_id].tolist(), -1)
        place = (26, top + 16)
        cv2.putText(panel, names[class_id][:24], place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return panel


def commonest(label, most=20):
    """Class ids that occur in labels, commonest first, at most `most`."""
    counts = np.bincount(np.asarray(label).ravel(), minlength=256)[: vspw.NUM_CLASSES]
    return [int(class_id) for class_id in np.argsort(-counts)[:most] if counts[class_id]]


def enlarge(image_HWC, height):
    """The picture scaled up by a whole factor to about `height`, pixels kept square; never down."""
    factor = max(round(height / image_HWC.shape[0]), 1)
    return image_HWC.repeat(factor, axis=0).repeat(factor, axis=1)


def with_legend(_, coloured, class_ids):
    """An overlay with the legend of classes beside it."""
    return np.concatenate([coloured, legend(class_ids, coloured.shape[0])], axis=1)


def beside(frame, coloured, class_ids):
    """Frame, overlay and the legend of classes beside each other."""
    return np.concatenate([frame, coloured, legend(class_ids, frame.shape[0])], axis=1)


def comparison(image, label, prediction, height=240):
    """Frame, truth and prediction side by side, with a legend of the classes in either."""
    parts = [image, overlay(image, label, 0.8), overlay(image, prediction, 0.8)]
    parts = np.concatenate([enlarge(part, height) for part in parts], axis=1)
    return np.concatenate([parts, legend(commonest([label, prediction]), parts.shape[0])], axis=1)
