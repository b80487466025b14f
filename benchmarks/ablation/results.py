"""What a study found, as JSON: scores of arms and differences of pairs, of the runs that are done so far."""

import dataclasses
import datetime
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.ablation import bootstrap, record, versions
from benchmarks.ablation.arms import AnyArm, Study
from benchmarks.ablation.bootstrap import Resampled
from benchmarks.ablation.run import Run
from vspw_jax.console.errors import UserError
from vspw_jax.metrics import scores
from vspw_jax.metrics.counts import VideoCounts

SHOWN = (*scores.DEVKIT, *scores.CORRECT)


def results(name: str, study: Study, runs: Sequence[Run]) -> dict[str, Any]:
    """Everything for DIR/<study>.json.

    Args:
      runs: those that are asked for, done or not.

    Raises:
      UserError: runs that were evaluated on other videos than the rest.
    """
    done = [one for one in runs if record.is_done(one)]
    counts = {(one.arm, one.seed): record.counts(one) for one in done}
    _check_videos(counts)
    seeds = {arm: [one.seed for one in done if one.arm == arm] for arm in study.arms}
    return {
        "study": name,
        "claim": study.claim,
        "decides": study.decides,
        "complete": len(done) == len(runs),
        "runs_done": len(done),
        "runs_asked_for": len(runs),
        "arms": {
            arm: _arm([one for one in done if one.arm == arm], [counts[arm, seed] for seed in seeds[arm]])
            for arm in study.arms
            if seeds[arm]
        },
        "pairs": [
            _pair(arm, less, [seed for seed in seeds[arm] if seed in seeds[less]], counts)
            for arm, less in study.pairs
            if set(seeds[arm]) & set(seeds[less])
        ],
        "how": bootstrap.HOW,
        "resampling": {
            "over": ["seeds", "videos"],
            "level": scores.LEVEL,
            "replicates": bootstrap.REPLICATES,
            "seed": bootstrap.SEED,
        },
        "definition": _definition(study),
        "warnings": _warnings(done),
        "versions": versions.versions(),
        "commit": versions.commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _definition(study: Study) -> dict[str, Any]:
    return {"fields": dict(study.fields), "arms": {name: _said(arm) for name, arm in study.arms.items()}}


def _said(arm: AnyArm) -> dict[str, Any]:
    """What an arm's definition says, without what it leaves open."""
    return {name: value for name, value in dataclasses.asdict(arm).items() if value or name == "fields"}


def _arm(done: Sequence[Run], counts_S: Sequence[Sequence[VideoCounts]]) -> dict[str, Any]:
    """An arm's scores by seed, and their means with intervals."""
    by_seed = [one.scores() for one in done]
    return {
        "seeds": [one.seed for one in done],
        "scores": {name: [found.get(name) for found in by_seed] for name in (*SHOWN, "TC")},
        "means": _summaries(bootstrap.resample(counts_S)),
        "commonest_class": by_seed[0]["commonest_class"],
        "runs": [_about(one) for one in done],
    }


def _about(one: Run) -> dict[str, Any]:
    starts = record.read(one)["starts"]
    return {
        "seed": one.seed,
        "workdir": str(one.workdir.relative_to(one.folder.parent)),
        "seconds": round(sum(start["seconds"] for start in starts), 1),
        "starts": starts,
        "warnings": one.scores()["warnings"],
    }


def _pair(arm: str, less: str, seeds: Sequence[int], counts: Mapping) -> dict[str, Any]:
    """How much more `arm` scores than `less`, over the seeds that both have."""
    first, second = (bootstrap.resample([counts[name, seed] for seed in seeds]) for name in (arm, less))
    differences = _summaries({name: first[name].minus(second[name]) for name in first.keys() & second.keys()})
    for found in differences.values():
        found["excludes_0"] = _excludes_0(found["interval"])
        found["over_seeds_excludes_0"] = _excludes_0(found["over_seeds"])
        both = found["excludes_0"], found["over_seeds_excludes_0"]
        found["settled"] = None if None in both else all(both)
    return {"arm": arm, "less": less, "seeds": list(seeds), "differences": differences}


def _summaries(resampled: Mapping[str, Resampled]) -> dict[str, dict[str, Any]]:
    found = {name: resampled[name].summary() for name in SHOWN if name in resampled}
    return {name: summary for name, summary in found.items() if summary}


def _excludes_0(interval: Sequence[float] | None) -> bool | None:
    return None if interval is None else interval[0] > 0 or interval[1] < 0


def _check_videos(counts: Mapping[tuple[str, int], Sequence[VideoCounts]]) -> None:
    """Raises UserError where runs were not scored on the same videos, of which nothing could be paired."""
    seen = {key: [(video.video, int(video.frames[:, 0].sum())) for video in found] for key, found in counts.items()}
    for (arm, seed), videos in seen.items():
        first = next(iter(seen))
        if videos != seen[first]:
            raise UserError(
                f"Arm {arm!r} with seed {seed} was evaluated on other videos or masks than {first[0]!r} with seed "
                f"{first[1]}: expected the same data for all runs. Give it back and delete that run's folder."
            )


def _warnings(done: Sequence[Run]) -> list[str]:
    commits = {start["commit"] for one in done for start in record.read(one)["starts"]}
    if len(commits) > 1:
        return [f"Runs come from {len(commits)} states of the code: {', '.join(sorted(map(str, commits)))}."]
    return []


def file_of(folder: pathlib.Path, suffix: str) -> pathlib.Path:
    """DIR/<study><suffix>, of the study's folder DIR/<study>."""
    return folder.with_name(folder.name + suffix)
