"""Makes one prediction of several models' saved scores; no network runs.

    python -m vspw_jax.main --config=A --mode=evaluate --config.evaluate.save_scores=True    each model's, in
                                                                                              <workdir>/scores/<split>
    python -m vspw_jax.ensemble --scores=A --scores=B --sweep=0:1:0.05 --records=DIR --output=DIR       two or more
    python -m vspw_jax.ensemble --scores=A --scores=B --weights=0.4,0.6 --output=DIR         equation 5
    python -m vspw_jax.ensemble --scores=A --scores=B --scores=C --method=mean --output=DIR  equation 6
    python -m vspw_jax.ensemble --scores=A --scores=B --scores=C --method=vote --output=DIR  majority
    python -m vspw_jax.ensemble --scores=A --scores=B --method=by_class --groups=F --output=DIR  by group

Equations are those of arXiv 2306.03508. The file of --groups is JSON, for each --scores a list of names of classes:
these are scored by that model alone, or by the mean of those that name them; classes that no list names by all models.
--output gets masks/<video>/<frame>.png of train ids, and ensemble.json. Given the --records and the --split that the
scores are of, it gets the metrics too. --sweep tries weights of a model, the others sharing the rest. Of two models
that is all; of more each is swept in turn, until a round brings nothing. It prints a table, writes sweep.json and
sweep.svg, and makes the masks with the weights of highest mIoU. Stopped, the same command goes on. Whoever reports such
a figure should say that the weights were chosen on the same split; with --halves they were not on the same videos: each
half of them has the weights that were best on the other half. Memory holds a few rows of a frame's scores at a time.
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import math
import pathlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vspw_jax.buckets import arguments
from vspw_jax.classes import vspw
from vspw_jax.classes.class_list import check_same
from vspw_jax.console import places
from vspw_jax.console.errors import UserError, listed, run_program
from vspw_jax.console.progress import progress
from vspw_jax.data import records
from vspw_jax.evaluation import counting, predicted_videos, sweep, sweep_picture
from vspw_jax.files.whole_files import whole_file
from vspw_jax.files.writable import check_folder
from vspw_jax.inference import ensemble, scores
from vspw_jax.inference.threads import WriteBehind, read_ahead
from vspw_jax.metrics import table, temporal_consistency
from vspw_jax.metrics.scores import summarise
from vspw_jax.sampling.dis_flow import DisFlow

MOST_NAMED = 5
"""A message lists at most so many differences of a kind."""
AHEAD = 4
"""Strips that are read, or masks that are written, while others are worked on."""
STRIP = 1 << 15
"""Pixels of a strip, a few rows of a frame: of 124 classes their scores take 16 MB a model."""
THREADS = 2
"""How many write masks."""
Combine = Callable[..., ensemble.Labels]
METHODS: dict[str, Combine] = {"mean": ensemble.mean, "vote": ensemble.vote}
BY_CLASS = "by_class"
SPLIT = "val"
"""Of --records, where --split does not name another."""


@dataclasses.dataclass
class Part:
    """Videos that are combined in the same way, by their names, and with which weights, where the method has some."""

    videos: Collection[str]
    weights: Sequence[float] | None


@dataclasses.dataclass(frozen=True)
class Strip:
    """A few rows of a frame with the members' scores of them.

    Attributes:
      video, frame, image, label: of the whole frame, as `labels` has them.
      rows: which these are.
      ids, scores: as `scores.candidates` has them.
    """

    video: str
    frame: str
    image: Any
    label: Any
    rows: slice
    ids: ensemble.Ids
    scores: list[np.ndarray]


def check_members(readers: Sequence[scores.Reader]) -> None:
    """Raises UserError where members do not have the same classes, frames and sizes; it lists what differs."""
    first, problems = readers[0], []
    for other in readers[1:]:
        pair = f"{first.folder} and {other.folder}"
        if other.num_classes != first.num_classes:
            problems.append(f"  classes of {pair}: {first.num_classes} and {other.num_classes}")
        elif other.classes.names != first.classes.names:
            problems.append(
                f"  {pair} tell other classes: {listed(first.classes.names, 3)}, and {listed(other.classes.names, 3)}"
            )
        frames, others = (
            {(video, name): size for video, found in reader.videos.items() for name, size in found.items()}
            for reader in (first, other)
        )
        for missing, where in ((frames.keys() - others.keys(), other), (others.keys() - frames.keys(), first)):
            if missing:
                named = ", ".join("/".join(name) for name in sorted(missing)[:MOST_NAMED])
                problems.append(f"  {len(missing)} frames are not in {where.folder}: {named}, ...")
        differing = [name for name in sorted(frames.keys() & others.keys()) if frames[name] != others[name]]
        problems += [
            f"  {'/'.join(name)} is {frames[name][1]}x{frames[name][0]} in {first.folder}, "
            f"{others[name][1]}x{others[name][0]} in {other.folder}"
            for name in differing[:MOST_NAMED]
        ]
        if len(differing) > MOST_NAMED:
            problems.append(f"  {len(differing) - MOST_NAMED} more frames differ in size")
    if problems:
        raise UserError("Members of an ensemble must have the same frames and classes:\n" + "\n".join(problems))


def notes(readers: Sequence[scores.Reader]) -> list[str]:
    """Sentences about what makes the members' scores hard to compare."""
    if len({reader.identity.get("double_softmax") for reader in readers}) > 1:
        return [
            "Note: some members' scores have a second softmax, which brings all classes close together, and some do "
            "not. A weight does not mean the same for both. --config.evaluate.double_softmax sets it."
        ]
    return []


def labels(
    flags: argparse.Namespace, readers: Sequence[scores.Reader], videos: Collection[str]
) -> Iterator[tuple[str, str, Any, Any]]:
    """Yields (video, frame, image, train ids (H, W)) of some videos in order; the last two None without --records."""
    if not flags.records:
        for name, frames in readers[0].videos.items():
            yield from ((name, frame, None, None) for frame in frames if name in videos)
        return
    split = records.Frames(flags.records, flags.split, own_classes=not vspw.are(readers[0].classes))
    split.check_truth()
    for reader in readers:
        if reader.identity.get("fingerprint") != split.fingerprint:
            raise UserError(
                f"{reader.folder} are not scores of split {flags.split!r} of {flags.records}: their split's "
                f"fingerprint is {reader.identity.get('fingerprint')}, this one's {split.fingerprint}. Name the right "
                "--records=DIR and --split=NAME, or leave --records out."
            )
    check_same(readers[0].classes, split.classes, flags.records)
    for video in (video for video in split.videos if video.name in videos):
        for number in range(video.start, video.start + video.count):
            record = split[number]
            label = split.label(record)
            yield video.name, record["frame"], split.image(record, label), label


def scored_strips(
    flags: argparse.Namespace, readers: Sequence[scores.Reader], videos: Collection[str]
) -> Iterator[Strip]:
    """Yields the frames of some videos, strip by strip."""
    for video, frame, image, label in labels(flags, readers, videos):
        height, width = readers[0].videos[video][frame]
        rows = max(1, STRIP // width)
        strips = zip(*(reader.strips(video, frame, rows) for reader in readers), strict=True)
        for start, compacts in zip(range(0, height, rows), strips, strict=True):
            candidates = scores.candidates(compacts, readers[0].num_classes)
            yield Strip(video, frame, image, label, slice(start, start + rows), *candidates)


def sweeps(flags: argparse.Namespace, readers: Sequence[scores.Reader], output: pathlib.Path) -> list[Part]:
    """All videos with the weights that are best on them; with --halves each half with those best on the other one.

    Raises:
      UserError: there are no masks to compare with, or too few videos for halves.
    """
    if not flags.records:
        raise UserError("--sweep compares the result with masks: name the --records=DIR that the scores are of.")
    if not flags.halves:
        everything = readers[0].videos
        return [Part(everything, run_sweep(flags, readers, everything, output))]
    halves, found = sweep.halves(readers[0].videos), []
    for number, (half, other) in enumerate(zip(halves, reversed(halves), strict=True), 1):
        print(f"\nWeights for half {number} of the videos, chosen on the other {len(other)}:")
        folder = output / f"half_{number}"
        folder.mkdir(exist_ok=True)
        found.append(Part(half, run_sweep(flags, readers, other, folder)))
    return found


def run_sweep(
    flags: argparse.Namespace, readers: Sequence[scores.Reader], videos: Collection[str], output: pathlib.Path
) -> list[float]:
    """Searches the weights on some videos, writes and prints the scores, and returns the best weights; goes on with a
    search that was stopped."""
    path = output / "sweep.json"
    members = [{"scores": places.shown(reader.folder), **reader.identity} for reader in readers]
    search = sweep.from_json(path.read_text() if path.exists() else "", members, sweep.weights(flags.sweep))
    names = [places.shown(reader.folder) for reader in readers]
    while (member := search.member()) is not None:
        description = f"sweeping {member + 1} of {len(readers)}"
        search.add(sweep_one(flags, readers, videos, search.tried(member), description))
        with whole_file(path) as partial:
            partial.write_text(search.to_json(members))
        with whole_file(output / "sweep.svg") as partial:
            partial.write_text(sweep_picture.picture(search, names))
        if len(readers) > 2:
            found = said(sweep.best(search.passes[-1]))
            print(f"pass {len(search.passes)}, over the weight of {names[member]}: best {found}")
    if len(readers) == 2:
        print(f"\ntau weighs {names[0]}, 1-tau {names[1]}; in per cent:\n")
    print(f"{sweep.table(search.last_of(0) if len(readers) == 2 else list(map(sweep.best, search.passes)))}\n")
    return search.best["weights"]


def said(row: dict[str, Any]) -> str:
    """A row of a sweep in words."""
    weights = ", ".join(f"{weight:.4g}" for weight in row["weights"])
    return f"{100 * row['mIoU']:.2f} mIoU at {weights}"


def sweep_one(
    flags: argparse.Namespace,
    readers: Sequence[scores.Reader],
    videos: Collection[str],
    tried: Sequence[sweep.Weights],
    description: str,
) -> list[dict[str, Any]]:
    """One pass over the frames of some videos: the rows of some weights."""
    found = sweep.Sweep(tried, readers[0].num_classes)
    bar = progress(description=description, unit="frame", total=sum(len(readers[0].videos[name]) for name in videos))
    with contextlib.closing(bar), read_ahead(scored_strips(flags, readers, videos), AHEAD) as strips:
        for strip in strips:
            found.add(strip.label[strip.rows], strip.scores, strip.ids)
            bar.update(strip.rows.start == 0)  # Frames are counted.
    return found.rows()


def check_options(flags: argparse.Namespace) -> None:
    """Raises UserError where an option is given that the method does not read."""
    if flags.method != "sum" and (flags.weights or flags.sweep):
        raise UserError(f"--weights and --sweep are for --method=sum, not for {flags.method}.")
    if flags.weights and flags.sweep:
        raise UserError("--sweep searches the weights, and --weights gives them: leave one out.")
    if flags.halves and not flags.sweep:
        raise UserError("--halves says on which videos --sweep chooses the weights: give --sweep=0:1:0.05, say.")
    if flags.method != BY_CLASS and flags.groups:
        raise UserError(f"--groups is for --method={BY_CLASS}, not for {flags.method}.")
    if flags.split and not flags.records:
        raise UserError(
            f"--split={flags.split} is a split of --records: name these with --records=DIR, or leave it out."
        )


def combination(method: str, weights: Sequence[float] | None, count: int) -> tuple[Combine, Sequence[float] | None]:
    """(function of `inference.ensemble` for the scores of `count` members, the weights or None)."""
    if method != "sum":
        return METHODS[method], None
    weights = weights or [1 / count] * count
    if len(weights) != count:
        raise UserError(f"--weights names {len(weights)} weights for {count} --scores: expected one each.")
    if not all(0 <= weight < math.inf for weight in weights) or not sum(weights):
        raise UserError(f"--weights are {weights}: expected numbers, no negative one, and one that is not 0.")
    return functools.partial(ensemble.weighted_sum, weights_M=weights), weights


def combinations(
    flags: argparse.Namespace, readers: Sequence[scores.Reader], parts: Sequence[Part]
) -> dict[str, Combine]:
    """The function of `inference.ensemble` for each video; parts without weights get the method's own."""
    found: dict[str, Combine] = {}
    for part in parts:
        if flags.method == BY_CLASS:
            combine = of_groups(flags.groups, readers)
        else:
            combine, part.weights = combination(flags.method, part.weights, len(readers))
        found |= dict.fromkeys(part.videos, combine)
    return found


def of_groups(path: str | None, readers: Sequence[scores.Reader]) -> Combine:
    """The function of `inference.ensemble` for models of the groups of classes that a file names.

    Raises:
      UserError: no such file, or it is not of these models or classes; scores of some classes of a pixel alone.
    """
    if not path:
        raise UserError(f"--method={BY_CLASS} needs --groups=FILE: for each --scores a list of names of classes.")
    cropped = [reader.folder for reader in readers if reader.top < reader.num_classes]
    if cropped:
        raise UserError(
            f"{cropped[0]} holds the scores of each pixel's best classes alone, which may all be another model's. Save "
            "them with --config.evaluate.top_classes=0."
        )
    names = {name: number for number, name in enumerate(readers[0].classes.names)}
    try:
        groups = json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--groups={path} cannot be read as JSON ({str(error).splitlines()[0]}).") from error
    are_lists = isinstance(groups, list) and all(isinstance(group, list) for group in groups)
    if not are_lists or len(groups) != len(readers):
        raise UserError(
            f"--groups={path} holds {str(groups)[:80]}: expected {len(readers)} lists of names, one for each --scores."
        )
    unknown = [str(name) for group in groups for name in group if not isinstance(name, str) or name not in names]
    if unknown:
        raise UserError(f"--groups={path} names classes that the scores do not have: {listed(unknown)}.")
    counts = np.zeros((len(readers), len(names)), bool)
    for member, group in enumerate(groups):
        counts[member, [names[name] for name in group]] = True
    return functools.partial(ensemble.by_class, counts_MK=counts | ~counts.any(axis=0))


def combined(
    strips: Iterable[Strip], combine_by_video: Mapping[str, Combine]
) -> Iterator[predicted_videos.PredictedVideo]:
    """Yields the videos of strips, with predictions."""
    for video, of_video in itertools.groupby(strips, key=lambda strip: strip.video):
        yield video, combined_frames(of_video, combine_by_video[video])


def combined_frames(strips: Iterable[Strip], combine: Combine) -> Iterator[predicted_videos.PredictedFrame]:
    """Yields the frames of a video's strips, with predictions."""
    for frame, of_frame in itertools.groupby(strips, key=lambda strip: strip.frame):
        labels_of_strips = []
        for strip in of_frame:  # None is kept: their scores are what a large frame has most of.
            labels_of_strips.append(combine(strip.scores, ids_HWK=strip.ids))
        yield frame, strip.image, strip.label, np.concatenate(labels_of_strips)


def score(
    flags: argparse.Namespace,
    readers: Sequence[scores.Reader],
    combine_by_video: Mapping[str, Combine],
    masks: pathlib.Path,
) -> dict[str, Any] | None:
    """Combines all frames and writes their masks; returns the metrics, or None without --records."""
    total, classes = sum(map(len, readers[0].videos.values())), readers[0].classes
    scored = scored_strips(flags, readers, readers[0].videos)
    with read_ahead(scored, AHEAD) as strips, WriteBehind(THREADS, AHEAD) as write:
        videos = predicted_videos.stored(combined(strips, combine_by_video), masks, write, classes)
        if not flags.records:
            counting.run_through(videos, total)
            return None
        flow_of = temporal_consistency.flow_of_first(readers[0].videos, DisFlow)
        counts = counting.count_videos(videos, readers[0].num_classes, total, flow_of)
    return summarise(counts, classes)


def run(flags: argparse.Namespace) -> None:
    """Does what the command line asks for."""
    check_options(flags)
    flags.split = flags.split or SPLIT
    output = pathlib.Path(flags.output)
    check_folder(output, "--output=DIR")
    readers = [scores.Reader(folder) for folder in flags.scores]
    if len(readers) < 2:
        raise UserError("An ensemble has two members or more: give --scores=DIR for each.")
    check_members(readers)
    for note in notes(readers):
        print(note, file=sys.stderr)
    output.mkdir(parents=True, exist_ok=True)
    parts = sweeps(flags, readers, output) if flags.sweep else [Part(readers[0].videos, flags.weights)]
    result = score(flags, readers, combinations(flags, readers, parts), output / "masks")
    if result:
        same = "other videos of the same split" if flags.halves else "the same split"
        chosen = f", the weights chosen on {same}" if flags.sweep else ""
        print(f"Split {flags.split} of {flags.records}, in per cent{chosen}:\n\n{table.table(result)}\n")
    members = [{"scores": places.shown(reader.folder), **reader.identity} for reader in readers]
    about = {"members": members, "method": flags.method, "weights": None if flags.halves else parts[0].weights}
    about["halves"] = [{"videos": part.videos, "weights": part.weights} for part in parts] if flags.halves else None
    about |= {"groups": json.loads(pathlib.Path(flags.groups).read_text()) if flags.groups else None, "scores": result}
    with whole_file(output / "ensemble.json") as path:
        path.write_text(json.dumps(about, indent=2) + "\n")
    print(f"Masks:                {output / 'masks'}\nAll of it:            {output / 'ensemble.json'}")
    if flags.sweep:
        where = output / "half_{1,2}" if flags.halves else output
        print(f"Table, curve:         {where / 'sweep.json'}, {where / 'sweep.svg'}")


def _weights(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m vspw_jax.ensemble", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--scores", action="append", required=True, help="folder of saved scores; once a model")
    result.add_argument("--method", choices=("sum", *METHODS, BY_CLASS), default="sum")
    result.add_argument("--weights", type=_weights, help="of --method=sum, one a model, such as 0.4,0.6; default equal")
    result.add_argument("--groups", metavar="FILE", help=f"of --method={BY_CLASS}: JSON, a list of class names a model")
    result.add_argument("--sweep", help="START:STOP:STEP of a model's weight, such as 0:1:0.05")
    result.add_argument(
        "--halves", action="store_true", help="of --sweep: each half of the videos has the weights best on the other"
    )
    result.add_argument("--records", help="converted data whose masks the result is compared with")
    result.add_argument("--split", help=f"of --records (default {SPLIT})")
    result.add_argument("--output", required=True, help="folder to write")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the file's top."""
    options = parser().parse_args(argv)
    arguments.on_disk(options, read=("scores", "groups"), folders=("output",), opened=("records",))
    run(options)


if __name__ == "__main__":
    run_program(main, takes_addresses=True)
