"""A picture of masks beside each other: frame, truth, and what several folders hold of it.

    python -m benchmarks.masks_beside --records=data/demo/records --output=masks.png \
      --masks=UperNet=runs/upernet_demo/evaluated/val --masks="A, stage 0"=runs/memory_a_demo/stages/val/0

A row is the middle frame of a video; the videos lie evenly over the split. Folders hold <video>/<frame>.png, as
evaluation leaves them. Over a mask stands its folder's name and, below the first line, the share of the frame's
labelled pixels that are right.
"""

import argparse
import pathlib

import cv2
import numpy as np
from PIL import Image

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.data import records
from vspw_jax.files.whole_files import whole_file
from vspw_jax.inference import overlay
from vspw_jax.metrics.predictions import Folder
from vspw_jax.metrics.truth import RecordsTruth

HEIGHT = 144
"""Of a frame as it is drawn, about."""
LINE = 20


def named_folders(texts):
    """[(name, folder of masks)] of options NAME=DIR."""
    found = []
    for text in texts:
        name, equals, folder = text.rpartition("=")
        if not equals or not name:
            raise UserError(f"--masks={text}: expected a name and a folder, such as --masks=UperNet=DIR.")
        found.append((name, Folder(folder)))
    return found


def chosen_videos(frames, count):
    """So many videos, evenly over the split."""
    places = np.linspace(0, len(frames.videos) - 1, min(count, len(frames.videos))).round().astype(int)
    return [frames.videos[place] for place in dict.fromkeys(places.tolist())]


def with_line(picture, text):
    """A picture with a line of text over it."""
    line = np.full((LINE, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(line, text, (4, LINE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([line, picture])


def share_right(label, mask):
    """Of labelled pixels."""
    counted = label != VOID
    return (mask == label)[counted].mean() if counted.any() else float("nan")


def row(frames, video, folders):
    """Frame, truth and masks of a video's middle frame."""
    record = frames[video.start + video.count // 2]
    label = frames.label(record)
    image = frames.image(record, label)
    large = overlay.scaled(image, HEIGHT)
    painter = overlay.Painter(frames.classes, opacity=0.75)
    coloured = lambda ids: painter.overlay(large, overlay.scaled(ids, HEIGHT))
    parts = [with_line(large, "frame"), with_line(coloured(label), "truth")]
    for name, folder in folders:
        mask = folder.mask(video.name, record["frame"])
        parts.append(with_line(coloured(mask), f"{name}: {share_right(label, mask):.1%}"))
    return np.concatenate(parts, axis=1)


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--records", required=True)
    result.add_argument("--split", default="val")
    result.add_argument("--masks", action="append", required=True, metavar="NAME=DIR")
    result.add_argument("--videos", type=int, default=4)
    result.add_argument("--output", required=True)
    return result


def main():
    flags = parser().parse_args()
    frames = records.Frames(flags.records, flags.split)
    folders = named_folders(flags.masks)
    for _, folder in folders:
        folder.check(RecordsTruth(frames).videos)
    rows = [row(frames, video, folders) for video in chosen_videos(frames, flags.videos)]
    with whole_file(pathlib.Path(flags.output)) as partial:
        Image.fromarray(overlay.stacked(rows)).save(partial, format="png")
    print(flags.output)


if __name__ == "__main__":
    run_program(main)
