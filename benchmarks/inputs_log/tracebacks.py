"""Inputs that ended commands with a traceback where a message belongs."""

import numpy as np

from benchmarks.inputs_log import places
from benchmarks.inputs_log.case import CONVERT, EVALUATE, MAIN, METRICS, PREDICT, TRAIN, Case, Section, of_flags
from benchmarks.inputs_log.silent import clip
from tests.inputs import films, frames, lists, masks, recipes, workdirs


def recipe(kind):
    """A start with a recipe of one's own."""
    return Case(
        f"A recipe: {kind}",
        "python -m vspw_jax.main --config=mine.py:demo --workdir=runs/b",
        lambda folder: recipes.written(folder, kind),
    )


def listed(write, accent=False):
    """The list of training videos, written so; of them one may have a name with an accent and a space."""

    def make(folder):
        path = folder / "video" / "train.txt"
        first, *others = path.read_text().split()
        if accent:
            (folder / "video" / "data" / first).rename(folder / "video" / "data" / "0 Caf\u00e9")
            first = "0 Caf\u00e9"
        path.write_bytes(write([first, *others]))

    return make


def figures(content):
    """metrics.jsonl of the run, damaged."""

    def make(folder):
        content_bytes = content if isinstance(content, bytes) else content.encode()
        (folder / "runs" / "a" / "metrics.jsonl").write_bytes(content_bytes)

    return make


def written(name):
    """A file of text."""
    return lambda folder: (folder / name).write_text("mine")


def changing_sizes(folder):
    places.image(folder).write_bytes(frames.encoded("JPEG", size=(60, 48)))
    places.mask(folder).write_bytes(masks.png(np.ones((48, 60), int)))


def dead_link(folder):
    clip()(folder)
    (folder / "clip" / "3.jpg").symlink_to("gone.jpg")


def converted(*names):
    """Frames of a video of the test split."""
    return lambda folder: frames.vspw_video(folder / "video", "test", names, masks=False) / "origin"


def converted_dead_link(folder):
    (converted("1.jpg")(folder) / "2.jpg").symlink_to("gone.jpg")


SECTION = Section(
    "Where tracebacks once were",
    {
        "Values of 0, below 0, or huge": of_flags(
            "--config.run.picture_every=0",
            "--config.run.log_every=0",
            "--config.run.save_every=0",
            "--config.train.accumulate=0",
            "--config.train.batch=0",
            "--config.data.frames=0",
            "--config.seed=-1",
            f"--config.seed={2**64}",
            "--config.data.workers=-1",
            f"--config.run.keep={10**30}",
        ),
        "Recipes that are none": tuple(
            recipe(kind) for kind in recipes.FILES if kind not in ("new term", "term left out")
        ),
        "An unknown remat, and weights without a term": (
            *of_flags("--config.model.remat=some"),
            recipe("new term"),
            recipe("term left out"),
        ),
        "Lists of videos": (
            Case("UTF-16", CONVERT, listed(lists.utf16, accent=True)),
            Case("UTF-8 with a mark", CONVERT, listed(lists.utf8_with_mark, accent=True)),
            Case("Lines of old Macs", CONVERT, listed(lists.old_mac, accent=True)),
            Case("Empty lines, spaces around names", CONVERT, listed(lists.ragged)),
            Case("Latin-1", CONVERT, listed(lists.latin1, accent=True)),
            Case("UTF-16 without a mark", CONVERT, listed(lists.utf16_without_mark)),
        ),
        "metrics.jsonl after a power cut": tuple(
            Case(what[0].upper() + what[1:], f"{MAIN} --workdir=runs/a", figures(content))
            for what, (content, _) in workdirs.DAMAGED_FIGURES.items()
        ),
        "An output or a workdir that cannot be written": (
            Case("A prediction into a file", f"{PREDICT}video", written("out")),
            Case("A workdir that is a file", f"{TRAIN} --mode=evaluate", written("runs/b")),
            Case("The same, predicted", f"{TRAIN} --mode=predict --input=video", written("runs/b")),
            Case("Scores into a folder", METRICS, lambda folder: (folder / "scores.json").mkdir()),
        ),
        "A video whose frames change their size": (
            Case("Converted", CONVERT, changing_sizes),
            Case(
                "Without masks, predicted",
                f"{PREDICT}clip",
                lambda folder: (clip()(folder), frames.write(folder / "clip", ["3.jpg"], size=(60, 48))),
            ),
        ),
        "A run.afterwards that there is not": of_flags("--config.run.afterwards=\"('evalute',)\""),
        "Pictures so wide or low that no video can be made of them": (
            Case("Of one row", f"{PREDICT}clip", lambda folder: frames.write(folder / "clip", ["1.jpg"], size=(64, 1))),
            Case(
                "Of 8000 columns",
                f"{PREDICT}clip",
                lambda folder: frames.write(folder / "clip", ["1.jpg"], size=(8000, 32)),
            ),
            Case(
                "A film of 8000 columns",
                f"{PREDICT}a.mkv",
                lambda folder: films.film(folder / "a.mkv", films.noise(2, (32, 8000))),
            ),
        ),
        "Dead links, long names and names that are no UTF-8": (
            Case("A link to nowhere", f"{PREDICT}clip", dead_link),
            Case("A name of 250 bytes", f"{PREDICT}clip", clip("x" * 246 + ".jpg")),
            Case("A name that is no UTF-8", f"{PREDICT}clip", clip("\udcff1.jpg")),
            Case("A link to nowhere, converted", CONVERT, converted_dead_link),
            Case("A name of 250 bytes, converted", CONVERT, converted("x" * 246 + ".jpg")),
            Case("A name that is no UTF-8, converted", CONVERT, converted("\udcff1.jpg")),
        ),
        "Ctrl-C": (Case("While a program starts", f"timeout --preserve-status --signal=INT 1 {EVALUATE}"),),
        "A pipe that is closed": (
            Case("Help", "python -m vspw_jax.main --help | head -n 0"),
            Case("A check of records", "python -m data_prep.verify --records=records | head -n 0"),
        ),
        "--help": tuple(
            Case(module, f"python -m {module} --help")
            for module in ("vspw_jax.main", "vspw_jax.metrics", "vspw_jax.submission", "data_prep.vspw")
        ),
        "Warnings of libraries": (Case("Videos that are too short for VC16", METRICS, places.write_predictions),),
    },
    {
        "An output or a workdir that cannot be written": "A full and a read-only disk, which must be mounted: "
        "`tests/faults/test_outputs.py` does it.",
        "Ctrl-C": "In the midst of a command: the moment hangs on the machine. `tests/console/test_starting.py` does "
        "it.",
    },
)
