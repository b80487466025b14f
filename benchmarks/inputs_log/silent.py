"""Inputs of which a wrong result could come without a word."""

import shutil

import numpy as np
from PIL import Image

from benchmarks.inputs_log import places, stock
from benchmarks.inputs_log.case import CONVERT, EVALUATE, MAIN, METRICS, PREDICT, TRAIN, Case, Section, of_flags
from tests.inputs import films, frames, masks, workdirs

MIXED = {"1.JPG": "JPEG", "2.jpeg": "JPEG", "3.webp": "WEBP", "4.bmp": "BMP", "5.tif": "TIFF", "notes.txt": "JPEG"}
UNPADDED = ["1.jpg", "2.jpg", "10.jpg"]
ONES = np.ones((48, 64), int)


def clip(*names):
    """A folder of frames."""
    return lambda folder: frames.write(folder / "clip", names or UNPADDED)


def video(*names, split="val"):
    """A video more in a folder of VSPW's layout."""
    return lambda folder: frames.vspw_video(folder / "video", split, names or UNPADDED, masks=split != "test")


def mixed(folder):
    for name, kind in MIXED.items():
        frames.write(folder, [name], kind)


def mixed_clip(folder):
    mixed(folder / "clip")


def mixed_video(folder):
    mixed(frames.vspw_video(folder / "video", "test", [], masks=False) / "origin")


def picture_beside_film(folder):
    clip()(folder)
    films.film(folder / "clip" / "a.mp4", films.noise(3))


def clip_with_folder(folder):
    clip()(folder)
    frames.folder_of_a_frames_name(folder / "clip", "3.jpg")


def with_cover(folder):
    frames.write(folder / "video", ["cover.jpg"])
    for split in ("val", "train"):  # One of each is enough.
        for name in (folder / "video" / f"{split}.txt").read_text().split()[1:]:
            shutil.rmtree(folder / "video" / "data" / name)


def two_clips(folder):
    for name in ("a", "b"):
        frames.write(folder / "clips" / name, UNPADDED)


def clip_and_file(folder):
    two_clips(folder)
    frames.write(folder / "clips", ["1.jpg"])


def with_frame(content):
    """A clip whose second frame has these bytes."""

    def make(folder):
        clip()(folder)
        (folder / "clip" / "2.jpg").write_bytes(content)

    return make


def with_video_frame(content):
    return lambda folder: places.image(folder).write_bytes(content)


def with_mask(content):
    return lambda folder: places.mask(folder).write_bytes(content)


def with_prediction(content):
    def make(folder):
        places.write_predictions(folder)
        places.prediction(folder).write_bytes(content)

    return make


def void_training(folder):
    for name in (folder / "video" / "train.txt").read_text().split():
        for path in (folder / "video" / "data" / name / "mask").iterdir():
            Image.fromarray(np.zeros((48, 64), np.uint8)).save(path)


def owned_output(folder):
    clip()(folder)
    return workdirs.owned_by_a_process(folder / "out")


def unpadded_predictions(folder):
    video()(folder)
    places.write_predictions(folder)


def film(name, change=lambda path: path, **options):
    return lambda folder: change(films.film(folder / name, films.noise(30), **options))


JPEG = frames.encoded("JPEG")
HALF = frames.half_with_end(frames.encoded("JPEG"))
HALF_PNG = frames.half_png_with_end(frames.encoded("PNG"))
OWN_EXPORT = f"{MAIN} --workdir=runs/a --mode=export --output=back.pth"
OF_NEW = "--config.data.records=new"

SECTION = Section(
    "What was once silent and wrong",
    {
        "Frames whose numbers have no zeros in front": (
            Case("1.jpg, 2.jpg, 10.jpg, predicted", f"{PREDICT}clip", clip()),
            Case("The same, converted", CONVERT, video()),
            Case("The same, scored", METRICS, unpadded_predictions),
            Case("1.jpg and 01.jpg", CONVERT, video("1.jpg", "01.jpg")),
            Case("Names of several kinds", f"{PREDICT}clip", clip("take_1.jpg", "take_2.jpg", "frame_3.jpg")),
            Case("Decimals of several lengths", f"{PREDICT}clip", clip("1.5.jpg", "1.25.jpg", "1.75.jpg")),
        ),
        "Files of other suffixes among the frames": (
            Case("Predicted", f"{PREDICT}clip", mixed_clip),
            Case("Converted, in a split without masks", CONVERT, mixed_video),
            Case("A folder with a frame's name", f"{PREDICT}clip", clip_with_folder),
            Case("A cover beside the folders of VSPW", f"{PREDICT}video", with_cover),
            Case("1.JPG, 2.JPG, 10.JPG with masks", CONVERT, video("1.JPG", "2.JPG", "10.JPG", split="train")),
            Case("A film among pictures", f"{PREDICT}clip", picture_beside_film),
            Case("A pattern that matches frames of two videos", f"{PREDICT}'clips/*/*.jpg'", two_clips),
            Case("A pattern that matches folders and files", f"{PREDICT}'clips/*'", clip_and_file),
        ),
        "Pictures without their lower half": (
            Case("A JPEG with its end marker, predicted", f"{PREDICT}clip", with_frame(HALF)),
            Case("The same, converted", CONVERT, with_video_frame(HALF)),
            Case("A PNG of whole chunks, predicted", f"{PREDICT}clip", with_frame(HALF_PNG)),
            Case("The same, converted", CONVERT, with_video_frame(HALF_PNG)),
            Case("A TIFF", f"{PREDICT}clip", with_frame(frames.half_tiff())),
            Case("A JPEG without its end marker", CONVERT, with_video_frame(JPEG[: -len(frames.END)])),
            Case("A JPEG without its last 20 bytes", CONVERT, with_video_frame(frames.without_last_bytes(JPEG, 20))),
            Case(
                "A progressive JPEG of one scan",
                CONVERT,
                with_video_frame(frames.first_scan_with_end(frames.encoded("JPEG", progressive=True))),
            ),
        ),
        "Masks and predictions of other depths and modes": (
            Case("A mask of 1 bit", CONVERT, with_mask(masks.png(ONES, bits=1))),
            Case("A mask of 2 bits with a palette", CONVERT, with_mask(masks.png(ONES, masks.PALETTE, 2))),
            Case("A mask of 4 bits, interlaced", CONVERT, with_mask(masks.png(ONES, bits=4, interlaced=True))),
            Case("A mask of 16 bits whose ids fit into 8", CONVERT, with_mask(masks.png(ONES, bits=16))),
            Case("A mask of 16 bits whose ids do not", CONVERT, with_mask(masks.png(300 * ONES, bits=16))),
            Case("A mask of RGB with equal channels", CONVERT, with_mask(masks.png(ONES, masks.RGB))),
            Case("A mask of grey and alpha", CONVERT, with_mask(masks.png(ONES, masks.GREY_ALPHA))),
            Case("A mask of RGB with colours", CONVERT, with_mask(frames.encoded("PNG"))),
            Case("A mask with transparent pixels", CONVERT, with_mask(masks.png(ONES, masks.RGBA, alpha=0))),
            Case("An animation", CONVERT, with_mask(masks.animation())),
            Case("A JPEG in a mask's place", CONVERT, with_mask(frames.encoded("JPEG"))),
            Case("A WebP in a mask's place", CONVERT, with_mask(frames.encoded("WEBP"))),
            Case("A mask with fewer rows than its header says", CONVERT, with_mask(masks.png(ONES, share=0.5))),
            Case("A prediction of 1 bit", METRICS, with_prediction(masks.png(ONES, bits=1))),
            Case(
                "A prediction of 16 bits whose ids do not fit", METRICS, with_prediction(masks.png(300 * ONES, bits=16))
            ),
            Case("A JPEG in a prediction's place", METRICS, with_prediction(frames.encoded("JPEG"))),
            Case("A WebP in a prediction's place", METRICS, with_prediction(frames.encoded("WEBP"))),
        ),
        "Weights that hold NaN": (
            Case("Exported", f"{stock.EXPORT}nan.pth", places.write_nan),
            Case("Predicted", f"{stock.NET} --mode=predict --input=video --config.init_from=nan.pth", places.write_nan),
        ),
        "An init_from, or a flag, that would not be read": (
            Case("Another file, where the workdir has a checkpoint", f"{PREDICT}video --config.init_from=net.pth"),
            Case("A missing file there", f"{EVALUATE} --config.init_from=missing.pth"),
            Case("Another file, exported", f"{OWN_EXPORT} --config.init_from=net.pth"),
            Case("Another file, trained on", f"{MAIN} --workdir=runs/a --config.init_from=net.pth"),
            Case("--input with evaluate", f"{EVALUATE} --input=video"),
            Case("--output with train", f"{TRAIN} --output=out"),
        ),
        "Values that make no sense": (
            *of_flags(
                "--config.train.steps=-5",
                "--config.run.keep=0",
                "--config.run.save_every=-1",
                "--config.data.frame_gap=0",
                "--config.data.frame_gap=-1",
                "--config.data.threads=0",
                "--config.data.fits=exakt",
            ),
            Case("Training data without a labelled pixel", f"{CONVERT}\n{TRAIN} {OF_NEW}", void_training),
            Case("Clips that no video is long enough for", f"{TRAIN} --config.data.frames=11"),
        ),
        "Two runs on one workdir": (
            Case(
                "A second run",
                f"{MAIN} --workdir=runs/a",
                lambda folder: workdirs.owned_by_a_process(folder / "runs/a"),
            ),
            Case("A second evaluation", EVALUATE, lambda f: workdirs.owned_by_a_process(f / "runs/a/evaluated")),
            Case("A second prediction", f"{PREDICT}clip", owned_output),
            Case(
                "A workdir whose run was killed",
                f"{MAIN} --workdir=runs/a",
                lambda f: workdirs.left_by_a_killed_process(f / "runs/a"),
            ),
        ),
        "A checkpoint's folder that was renamed": (
            Case("Step 4 as step 9", EVALUATE, lambda f: workdirs.rename_checkpoint(f / "runs/a", 4, 9)),
        ),
        "Films that are cut short, mirrored, or whose clock is strange": (
            Case("Matroska, cut short", f"{PREDICT}a.mkv", film("a.mkv", lambda path: films.cut(path, 0.6))),
            Case(
                "WebM, cut short",
                f"{PREDICT}a.webm",
                film("a.webm", lambda path: films.cut(path, 0.6), codec="libvpx-vp9"),
            ),
            Case("Matroska, with a hole", f"{PREDICT}a.mkv", film("a.mkv", films.with_hole)),
            Case("MP4, damaged", f"{PREDICT}a.mp4", film("a.mp4", films.with_wrong_bytes)),
            Case("Mirrored", f"{PREDICT}a.mp4", film("a.mp4", lambda path: films.shown_through(path, -1, 0, 0, 1))),
            Case("Slanted", f"{PREDICT}a.mp4", film("a.mp4", lambda path: films.shown_through(path, 1, 0.5, 0, 1))),
            Case(
                "A clock that begins at 80,000 s",
                f"{PREDICT}a.mkv",
                film("a.mkv", times=range(800_000, 800_030), avoid_negative_ts="disabled"),
            ),
            Case("A song with a cover", f"{PREDICT}a.m4a", lambda f: films.song_with_cover(f / "a.m4a")),
        ),
    },
    {
        "Weights that hold NaN": "NaN in the scores of an ensemble: `tests/inference/test_scores.py` does it.",
        "Two runs on one workdir": "An owner on another host, for whom a second waits 90 s: "
        "`tests/files/test_ownership.py` does it.",
    },
)
