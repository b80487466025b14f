"""Inputs of which commands said something untrue or unclear."""

import numpy as np
from PIL import Image

from benchmarks.inputs_log import places
from benchmarks.inputs_log.case import CONVERT, EVALUATE, MAIN, PREDICT, Case, Section
from benchmarks.inputs_log.silent import HALF, clip, film, with_frame
from tests.inputs import archives, frames


def mendable(folder):
    with_frame(HALF)(folder)
    frames.write(folder, ["whole.jpg"])


def void_val(folder):
    for name in (folder / "video" / "val.txt").read_text().split():
        for path in (folder / "video" / "data" / name / "mask").iterdir():
            Image.fromarray(np.zeros((48, 64), np.uint8)).save(path)


def windows_entry(folder):
    places.write_predictions(folder, "test")
    paths = sorted((folder / "masks").glob("*/*.png"))
    members = [(f"entry/{path.relative_to(folder / 'masks')}", path.read_bytes()) for path in paths]
    archives.windows_zip(folder / "entry.zip", members)


def like_vspw(folder):
    (folder / "mine").mkdir()
    for video in ("1_a", "2_b"):
        frames.vspw_video(folder / "mine", "val", ["1.jpg", "2.jpg"], video=video)


SECTION = Section(
    "Where messages once misled",
    {
        "A folder that was mended after a prediction stopped at it": (
            Case(
                "The second frame",
                f"{PREDICT}clip\ncp whole.jpg clip/2.jpg\n{PREDICT}clip",
                mendable,
            ),
        ),
        "A film whose name looks like a protocol or an option": (
            Case("concat:a.mp4", f"{PREDICT}concat:a.mp4", film("concat:a.mp4")),
            Case("-i.mp4", f"{PREDICT}-i.mp4", film("-i.mp4")),
        ),
        "--input=.": (
            Case(
                "The folder that one is in",
                f"{MAIN} --workdir=runs/a --mode=predict --input=.",
                lambda folder: frames.write(folder, ["1.jpg", "2.jpg"]),
            ),
        ),
        "--input=": (Case("Nothing", PREDICT),),
        "Patterns of which all names end alike": (Case("video/data/*/origin", f"{PREDICT}'video/data/[01]_*/origin'"),),
        "--output inside --input": (
            Case(
                "Twice",
                "\n".join(2 * [f"{MAIN} --workdir=runs/a --mode=predict --output=clip/out --input=clip"]),
                clip(),
            ),
        ),
        "An entry that was zipped on Windows": (
            Case(
                "With backslashes between folders",
                "python -m vspw_jax.submission --check=entry.zip --data=video",
                windows_entry,
            ),
        ),
        "Masks of void alone": (Case("Evaluated", f"{CONVERT}\n{EVALUATE} --config.data.records=new", void_val),),
        "A folder laid out like VSPW as --input": (Case("Two videos", f"{PREDICT}mine", like_vspw),),
    },
)
