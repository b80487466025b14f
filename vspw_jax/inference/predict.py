"""Predicts a video: masks, overlays with a legend, and a video of them."""

import itertools

import numpy as np
from PIL import Image

from vspw_jax import classes
from vspw_jax.inference import overlay
from vspw_jax.inference.video import video_writer
from vspw_jax.progress import progress
from vspw_jax.whole_files import whole_file

OVERLAY_HEIGHT = 480


def _batches(frames, size):
    """Runs of at most `size` frames of one picture size."""
    for _, run in itertools.groupby(frames, key=lambda frame: frame[1].shape):
        while batch := list(itertools.islice(run, size)):
            yield batch


def _save_mask(label, path):
    mask = Image.fromarray(label)
    mask.putpalette(classes.palette().tobytes())
    with whole_file(path) as partial:
        mask.save(partial)


def _save_overlay(picture, path):
    with whole_file(path) as partial:
        Image.fromarray(picture).save(partial, quality=92)


def predict_frames(predictor, frames, count, rate, output):
    """Predicts every frame of a video.

    Args:
      predictor: a `Predictor` with weights.
      frames: iterator of (name, (H, W, 3) uint8 RGB).
      count: how many, or None if unknown.
      rate: frames a second.
      output: folder; gets masks/<frame>.png (train ids 0..123 with VSPW's colours as palette),
        overlays/<frame>.jpg and overlay.mp4.
    """
    for folder in ("masks", "overlays"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    legend_classes = []
    bar = progress(description="predicting", unit="frame", total=count)
    with video_writer(output / "overlay.mp4", rate) as append:
        for batch in _batches(frames, predictor.batch):
            names, images = zip(*batch, strict=True)
            for name, image, label in zip(names, images, predictor(list(images)), strict=True):
                # Classes keep their line in the legend once they have appeared.
                legend_classes += [class_id for class_id in overlay.commonest(label) if class_id not in legend_classes]
                _save_mask(label, output / "masks" / f"{name}.png")
                picture = overlay.enlarge(overlay.overlay(image, label), OVERLAY_HEIGHT)
                picture = np.concatenate([picture, overlay.legend(legend_classes, picture.shape[0])], axis=1)
                _save_overlay(picture, output / "overlays" / f"{name}.jpg")
                append(picture)
                bar.update()
    bar.close()
