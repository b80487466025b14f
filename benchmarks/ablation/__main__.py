"""Makes every arm of a study with every seed and says how much the arms differ, with 95 % intervals.

    python -m benchmarks.ablation --list                                              the studies
    python -m benchmarks.ablation --study=contrast --seeds=5 --output=runs/ablation   train, evaluate, compare
    python -m benchmarks.ablation --study=pne --arms=hrnet,hrnet_pne                  of these alone, for now
    launch/slurm.sh --seeds=5 -- --study=contrast --output=runs/ablation              each seed as a job of SLURM

Each run has a workdir of its own, DIR/<study>/<arm>/seed_<s>, with its output in output.log. Most are trained and
evaluated by `python -m vspw_jax.main`; some arms are made of others, as an ensemble is. All runs have the same data; a
seed decides first weights, the data's order and augmentation. After every run DIR/<study>.json and DIR/<study>.svg are
written anew: scores by seed, and for each pair of arms that the study compares the difference with its interval, from
draws of seeds and videos that both arms share. Ctrl-C or SIGTERM ends it with what was trained saved; the same command
goes on, and a larger --seeds adds runs. With --seed=S a program makes the runs of one seed; others may make those of
other seeds meanwhile, into the same folder, and whoever is last completes the results.
"""

import argparse
import contextlib
import difflib
import json
import pathlib
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from benchmarks.ablation import definition, drawing, locks, picture, record, table
from benchmarks.ablation.arms import Study
from benchmarks.ablation.program import RunFailed
from benchmarks.ablation.results import file_of, results
from benchmarks.ablation.run import Run, make_runs
from benchmarks.ablation.studies import STUDIES
from vspw_jax.console import command, starting
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.console.progress import progress
from vspw_jax.files.whole_files import whole_file

BUG = 1
"""Exit status where a run ended with a traceback."""


def find_study(name: str) -> Study:
    """A study by its name; UserError names all of them, and the nearest."""
    if name in STUDIES:
        return STUDIES[name]
    near = difflib.get_close_matches(name, STUDIES, n=1, cutoff=0.0)
    raise UserError(f"There is no study {name!r}. Did you mean {near[0]}? Known: {', '.join(sorted(STUDIES))}.")


def listing() -> str:
    """The studies in words."""
    return "\n".join(f"{name}: {study.claim}\n  arms {', '.join(study.arms)}" for name, study in STUDIES.items())


@contextlib.contextmanager
def asked_to_stop() -> Iterator[None]:
    """Within the block SIGTERM, and a terminal that goes, are what Ctrl-C is, unless they are ignored, as by nohup."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write(folder: pathlib.Path, name: str, study: Study, runs: Sequence[Run]) -> dict[str, Any]:
    """The results of what is done, written beside the study's folder, as JSON and as a picture."""
    with locks.in_turn(folder):
        found = results(name, study, runs)
        with whole_file(file_of(folder, ".json")) as path:
            path.write_text(json.dumps(found, indent=2) + "\n")
        with whole_file(file_of(folder, ".svg")) as path:
            path.write_text(picture.picture(found))
    return found


def chosen(study: Study, names: str) -> set[str]:
    """The arms to run, of --arms: all where it is empty, else those named, and what they are made of."""
    arms = names.split(",") if names else list(study.arms)
    for arm in arms:
        if arm not in study.arms:
            raise UserError(f"--arms: the study has no arm {arm!r}. It has {', '.join(study.arms)}.")
    return study.with_what_they_need(arms)


def run_study(
    name: str, study: Study, arms: Collection[str], seeds: int, mine: Sequence[int], folder: pathlib.Path
) -> dict[str, Any]:
    """Runs what is not done yet, one run after the other; the results, written after each.

    Args:
      arms, seeds: those, and so many, that are wanted.
      mine: the seeds that this program runs.
    """
    with locks.in_turn(folder):
        definition.claim_folder(folder, study)
        runs = [one for one in make_runs(folder, study, seeds) if one.arm in arms]
        drawing.draw(runs)
    with locks.alone(folder, mine) as held:
        own = [one for one in runs if one.seed in mine]
        left = [one for one in own if not record.is_done(one)]
        bar = progress(description=name, unit="run", total=len(own), initial=len(own) - len(left))
        with contextlib.closing(bar):
            for one in left:
                bar.set_postfix_str(f"{one.arm}, seed {one.seed}")
                record.start(one, held)
                bar.update()
                write(folder, name, study, runs)
        return write(folder, name, study, runs)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 done, 2 for what you must mend, 130 stopped. A run that fails ends it and is quoted.",
    )
    result.add_argument("--study", metavar="NAME", help="one of --list")
    result.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1 of every arm (default 3)")
    result.add_argument("--arms", default="", metavar="A,B", help="only these, and what they are made of (default all)")
    result.add_argument(
        "--seed", type=int, metavar="S", help="make only this one of them, beside other programs that make the others"
    )
    result.add_argument("--output", default="runs/ablation", metavar="DIR", help="default runs/ablation")
    result.add_argument("--list", action="store_true", help="print the studies and end")
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the file's top.

    Raises:
      UserError: an unknown study, another one's folder, a run that ended with status 2.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = parser().parse_args(arguments)
    if options.list:
        print(listing())
        return
    if options.study is None:
        raise UserError(f"--study=NAME is missing. Known: {', '.join(sorted(STUDIES))}; --list says more.")
    if options.seeds < 1:
        raise UserError(f"--seeds={options.seeds}: expected 1 or more.")
    if options.seed is not None and not 0 <= options.seed < options.seeds:
        raise UserError(f"--seed={options.seed}: expected one of 0 to {options.seeds - 1}, as --seeds={options.seeds}.")
    study, mine = find_study(options.study), range(options.seeds) if options.seed is None else [options.seed]
    arms = chosen(study, options.arms)
    folder = pathlib.Path(options.output).absolute() / options.study
    try:
        with asked_to_stop():
            found = run_study(options.study, study, arms, options.seeds, mine, folder)
    except KeyboardInterrupt:
        again = command.as_typed("benchmarks.ablation", arguments)
        print(f"\nStopped; what is done stays in {folder}. To go on: {again}", file=sys.stderr)
        sys.exit(starting.INTERRUPTED)
    except RunFailed as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(BUG)
    print(f"\n{table.table(found)}\n")
    print(f"All of it: {file_of(folder, '.json')}\nPicture:   {file_of(folder, '.svg')}")


if __name__ == "__main__":
    run_program(main)
