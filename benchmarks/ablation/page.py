"""Writes docs/studies.md and its pictures from the results of the studies in benchmarks/results/.

    python -m benchmarks.ablation --study=NAME --output=runs/ablation
    cp runs/ablation/NAME.json benchmarks/results/
    python -m benchmarks.ablation.page

What a reader should make of a study stands beside its results, in benchmarks/results/NAME.md.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from benchmarks.ablation import bootstrap, picture, table
from benchmarks.ablation.versions import ROOT
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.files.whole_files import whole_file

RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"
PAGE, PICTURES = "studies.md", "studies"
BESIDE = ("VC8", "VC16")
"""Scores that stand beside the one that decides."""
WITH_INTERVALS = ("VC8",)
"""Those of them whose differences do so too."""
MOST_SEEDS = 1000
HEAD = """# What was found over several seeds

    python -m benchmarks.ablation.page

This command writes this page, from the results of `python -m benchmarks.ablation --study=NAME` in
`benchmarks/results/`. Each study trains every arm with the same seeds on the same data, and compares arms pair by pair.
All have the real architecture, narrow and shallow, on drawn video, and none starts from released weights: a result
tells what holds there. It neither proves nor refutes what a paper found with pretrained networks on real video.

Figures are in per cent, differences in points. The first interval holds 95 % of draws of as many seeds and as many
videos, the second is Student's over the seeds. A difference is "higher" or "lower" where neither interval holds 0, else
"open". For an open one "seeds to decide" says with how many the second interval would leave 0 out, if the mean and the
spread of the seeds stayed as they are; the videos may leave it open still. Differences in VC8 stand behind, with the
same two intervals; the verdict is not about them. Nothing is corrected for the number of pairs.
"""


def read(path: pathlib.Path) -> dict[str, Any]:
    """Results of a study; UserError where the file is damaged, or the study is not whole."""
    try:
        found = json.loads(path.read_text())
        complete = found["complete"]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged: expected results of benchmarks.ablation, found {error!r}.") from None
    if not complete:
        raise UserError(
            f"{path} has {found['runs_done']} of {found['runs_asked_for']} runs: expected a whole study. "
            f"python -m benchmarks.ablation --study={found['study']} goes on with it."
        )
    return found


def seeds_to_decide(mean: float, over_seeds: Sequence[float], seeds: int) -> int | None:
    """With how many seeds the interval over them would leave 0 out, with that mean and the present spread.

    Args:
      over_seeds: Student's interval of `seeds` differences around their mean.

    Returns:
      None where more than `MOST_SEEDS` would not do.
    """
    spread = (over_seeds[1] - over_seeds[0]) / 2 / bootstrap.student(seeds)
    enough = (number for number in range(2, MOST_SEEDS + 1) if bootstrap.student(number) * spread < abs(mean))
    return next(enough, None)


def section(found: dict[str, Any], remarks: str) -> str:
    """A study's part of the page."""
    name, decides = found["study"], found["decides"]
    seconds = sum(run["seconds"] for arm in found["arms"].values() for run in arm["runs"])
    seeds = max(len(arm["seeds"]) for arm in found["arms"].values())
    arms = f" --arms={','.join(found['arms'])}" if _not_run(found) else ""
    columns = (decides, *(score for score in BESIDE if score != decides))
    intervals = ("95 %, seeds and videos", "95 %, seeds")
    beside = [score for score in WITH_INTERVALS if score != decides]
    headers = [header for score in beside for header in (score, *(f"{score}: {interval}" for interval in intervals))]
    return "\n\n".join(
        [
            f"## {name}",
            found["claim"],
            f"    python -m benchmarks.ablation --study={name}{arms} --seeds={seeds} --output=runs/ablation",
            f"{found['runs_done']} runs, {seconds / 3600:.1f} hours by the clock, {found['date'][:10]}, JAX "
            f"{found['versions']['jax']}.",
            *(f"Note: {warning}" for warning in (*_not_run(found), *found["warnings"])),
            _rows(
                ("arm", f"{decides} of seeds", "mean", "95 %, seeds and videos", *columns[1:]),
                [_arm(arm, about, columns) for arm, about in found["arms"].items()],
            ),
            _rows(
                ("difference", decides, *intervals, "verdict", "seeds to decide", *headers),
                [_pair(pair, decides, beside) for pair in found["pairs"]],
            ),
            f"![The study's scores and differences]({PICTURES}/{name}.svg)",
            remarks.strip(),
        ]
    )


def _not_run(found: dict[str, Any]) -> list[str]:
    arms = [arm for arm in found["definition"]["arms"] if arm not in found["arms"]]
    return [f"not run yet: {', '.join(arms)}."] if arms else []


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def _arm(name: str, arm: dict[str, Any], columns: Sequence[str]) -> list[str]:
    decides = columns[0]
    mean = arm["means"][decides]
    by_seed = ", ".join(f"{100 * score:.2f}" for score in arm["scores"][decides])
    others = (arm["means"].get(score) for score in columns[1:])
    shown = [f"{100 * other['mean']:.1f}" if other else "-" for other in others]
    return [name, by_seed, f"{100 * mean['mean']:.2f}", table.between(mean["interval"], "{:.2f}"), *shown]


def _pair(pair: dict[str, Any], decides: str, beside: Sequence[str]) -> list[str]:
    found, seeds = pair["differences"][decides], len(pair["seeds"])
    verdict, needed = table.verdict(found), ""
    if verdict == "open":
        number = seeds_to_decide(found["mean"], found["over_seeds"], seeds)
        # With fewer the seeds alone would do: it is the videos that leave it open.
        needed = f"more than {MOST_SEEDS}" if number is None else str(number) if number > seeds else "more videos"
    others = [figure for score in beside for figure in table.figures(pair["differences"].get(score), "{:+.2f}")]
    return [f"{pair['arm']} less {pair['less']}", *table.figures(found, "{:+.2f}"), verdict, needed, *others]


def write(results: pathlib.Path, docs: pathlib.Path) -> pathlib.Path:
    """Writes the page and its pictures; the page.

    Raises:
      UserError: no results, or damaged ones.
    """
    paths = sorted(results.glob("*.json"))
    if not paths:
        raise UserError(f"{results} holds no results: expected <study>.json of benchmarks.ablation.")
    parts = [HEAD.strip()]
    (docs / PICTURES).mkdir(exist_ok=True)
    for path in paths:
        found, remarks = read(path), path.with_suffix(".md")
        parts.append(section(found, remarks.read_text() if remarks.exists() else ""))
        with whole_file(docs / PICTURES / f"{found['study']}.svg") as partial:
            partial.write_text(picture.picture(found))
    with whole_file(docs / PAGE) as partial:
        partial.write_text("\n\n".join(part.strip() for part in parts) + "\n")
    return docs / PAGE


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return argparse.ArgumentParser(
        prog="python -m benchmarks.ablation.page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser().parse_args(arguments)
    print(write(RESULTS, DOCS))


if __name__ == "__main__":
    run_program(main)
