"""How much data the test for ids that are one off needs: how often it names the truth, and how often something else.

    python -m benchmarks.label_shift --source=VSPW_DIR

Takes random parts of a set in VSPW's layout, as they are, with ids one too low and one too high: some frames of some
videos; or all frames with a few of the classes, the others made void. Each line says of `TRIALS` such parts, for each
of the three truths, in how many per cent the truth was named and in how many something else; the rest was not judged.
"""

import argparse
import pathlib

import numpy as np

from data_prep.verification import hypotheses, label_shift, scan
from vspw_jax.classes import label_maps
from vspw_jax.classes.vspw import NUM_CLASSES, VOID
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.console.progress import progress
from vspw_jax.files import mask_png

TRIALS = 200
PARTS = ((1, 1), (1, 5), (2, 1), (3, 1), (5, 1), (10, 1), (20, 1), (40, 1))
"""Videos, and frames of each."""

CLASSES = (1, 2, 3, 4, 6, 8, 11)


def read_video(folder):
    """Shares and vertical centres of the values in a video's masks, (F, 256) each."""
    facts = []
    for path in sorted(folder.glob("[!.]*.png")):
        facts.append(scan.FrameFacts())
        scan.describe_mask(facts[-1], mask_png.decode(path.read_bytes()))
    return scan.grids(facts)


def moved(values_FV, by):
    """Columns of masks whose ids are `by` higher: 255 stays, 0 one lower is 255."""
    result = np.zeros_like(values_FV)
    result[:, (np.arange(VOID) + by) % 256] = values_FV[:, :VOID]
    result[:, VOID] = np.maximum(result[:, VOID], values_FV[:, VOID])
    return result


def judged(videos):
    """The expected numbering, and the test's verdict on videos."""
    seen = label_shift.Sightings()
    for area_FV, height_FV in videos:
        seen.add_video(area_FV, height_FV)
    expected, others = hypotheses.of(label_maps.of("vspw", "raw_1_124"))
    return expected, label_shift.judge(seen, expected, others)


def named(videos, by):
    """What the test says of videos moved by `by`: +1 the truth, -1 something else, 0 nothing."""
    expected, verdict = judged((moved(area_FV, by), moved(height_FV, by)) for area_FV, height_FV in videos)
    truth = expected if by == 0 else hypotheses.one_off(expected, by)
    return 0 if not verdict.is_clear else 1 if verdict.best.title == truth.title else -1


def some_frames(videos, num_videos, num_frames, rng):
    """Random frames of random videos."""
    for number in rng.choice(len(videos), num_videos, replace=False):
        area_FV, height_FV = videos[number]
        frames = rng.choice(len(area_FV), min(num_frames, len(area_FV)), replace=False)
        yield area_FV[frames], height_FV[frames]


def some_classes(videos, num_classes, rng):
    """All frames, with all but random classes made void."""
    kept = np.isin(np.arange(256), rng.choice(present_values(videos), num_classes, replace=False))
    for area_FV, height_FV in videos:
        yield np.where(kept, area_FV, 0), height_FV


def present_values(videos):
    """The classes that occur."""
    return 1 + np.flatnonzero(sum(area_FV.sum(0) for area_FV, _ in videos)[1 : NUM_CLASSES + 1])


def at_random(videos, rng):
    """All frames, each class made a random one of VSPW's."""
    present = present_values(videos)
    chosen = rng.choice(np.arange(2, NUM_CLASSES), len(present), replace=False)
    for area_FV, height_FV in videos:
        yield _renumbered(area_FV, present, chosen), _renumbered(height_FV, present, chosen)


def _renumbered(values_FV, present, chosen):
    result = np.zeros_like(values_FV)
    result[:, VOID], result[:, chosen] = values_FV[:, VOID], values_FV[:, present]
    return result


def measure_random(videos, rng):
    """Per cent of TRIALS with classes at random in which a numbering is named, and in which none is said to fit."""
    verdicts = [judged(at_random(videos, rng))[1] for _ in range(TRIALS)]
    clear, nonsense = (100 * np.mean([getattr(v, name) for v in verdicts]) for name in ("is_clear", "is_nonsense"))
    return f"some numbering named {clear:.1f}, said that none fits {nonsense:.1f}"


def measure(draw, rng):
    """Per cent of TRIALS named right and wrong, for ids one too low, right and one too high."""
    words = []
    for by in (-1, 0, 1):
        answers = np.array([named(draw(rng), by) for _ in range(TRIALS)])
        words.append(f"{by:+d}: right {100 * np.mean(answers == 1):5.1f}, wrong {100 * np.mean(answers == -1):4.1f}")
    return "   ".join(words)


def parser():
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.label_shift",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--source", required=True, type=pathlib.Path, help="folder in VSPW's layout, with true masks")
    return result


def main(argv=None):
    """Command line."""
    options = parser().parse_args(argv)
    folders = sorted(options.source.glob("data/*/mask"))
    if not folders:
        raise UserError(f"{options.source} has no data/<video>/mask: expected a folder in VSPW's layout.")
    videos = [read_video(folder) for folder in progress(folders, "reading", "video")]
    rng = np.random.default_rng(0)
    for part in PARTS:
        if part[0] <= len(videos):
            result = measure(lambda rng, part=part: some_frames(videos, *part, rng), rng)
            print(f"{part[0]:2d} videos, {part[1]} frames each:  {result}", flush=True)
    print(f"classes at random, all frames: {measure_random(videos, np.random.default_rng(1))}", flush=True)
    for count in CLASSES:
        if count <= len(present_values(videos)):
            result = measure(lambda rng, count=count: some_classes(videos, count, rng), rng)
            print(f"{count:2d} classes, all frames:    {result}", flush=True)


if __name__ == "__main__":
    run_program(main)
