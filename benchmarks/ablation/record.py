"""What is kept of a run: when it was started, how it ended, and the counts of its videos."""

import contextlib
import datetime
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.ablation import program, versions
from benchmarks.ablation.run import Run
from vspw_jax.files.whole_files import whole_file
from vspw_jax.metrics import predictions
from vspw_jax.metrics.counts import VideoCounts

LOG, FILE = "output.log", "ablation.json"


def read(run: Run) -> dict[str, Any]:
    """What is kept of a run: "starts", each with date, seconds, commit and exit status; "made_of", by arm the digests
    of the scores' files of the runs that it is made of; once it is done "evaluation", that of its own, and "counts" of
    its videos. A file that cannot be read counts as none."""
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads((run.workdir / FILE).read_text())
        if isinstance(kept, dict) and "starts" in kept:
            return kept
    return {"starts": []}


def is_done(run: Run) -> bool:
    """Whether its scores are there, and are those that its own start left, of the runs that it is made of as they are
    now: others were made by hand, or damaged, or are of weights that are there no more."""
    return read(run).get("evaluation", "none") == _digest(run.evaluation) and not _is_stale(run)


def _is_stale(run: Run) -> bool:
    """Whether a run was begun with what other runs had left before they were made anew."""
    return read(run).get("made_of", _origins(run)) != _origins(run)


def _origins(run: Run) -> dict[str, str | None]:
    return {other.arm: _digest(other.evaluation) for other in run.made_of()}


def _digest(path: pathlib.Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def counts(run: Run) -> list[VideoCounts]:
    """The counts of a run that is done, by video in the order of their names."""
    found = [VideoCounts.from_json(text) for text in read(run)["counts"]]
    return sorted(found, key=lambda video: video.video)


def start(run: Run, locks: Sequence[int]) -> None:
    """Makes a run, from where the last start left it.

    Args:
      locks: file descriptors that its programs keep open as long as they live.

    Raises:
      UserError: a program ended with status 2.
      RunFailed: with another one.
      KeyboardInterrupt: it, or this process, was asked to stop; it has saved its state.
    """
    if _is_stale(run):
        shutil.rmtree(run.workdir)
    run.workdir.mkdir(parents=True, exist_ok=True)
    # What is there afterwards is this start's.
    run.evaluation.unlink(missing_ok=True)
    status = _recorded(run, lambda: _execute(run, locks))
    if status:
        program.complain(f"{run.arm} with seed {run.seed}", status, run.workdir / LOG)
    _write(run, read(run) | {"evaluation": _digest(run.evaluation), "counts": _counted(run)})


def _execute(run: Run, locks: Sequence[int]) -> int:
    """The exit status of the first of its programs that failed, or 0."""
    for command in run.commands():
        status = program.execute(command, run.workdir / LOG, locks)
        if status:
            return status
    return 0


def _counted(run: Run) -> list[str]:
    opened, predicted = run.videos(), run.predicted()
    # One by one: counting several videos has a progress bar of its own, which is not for between two runs.
    found = [predictions.count_video(video, opened, predicted, None, lambda: None) for video in opened.videos]
    return [video.to_json() for video in found]


def _recorded(run: Run, execute: Callable[[], int]) -> int:
    """The exit status of `execute`, kept with when it was called and how long it took, also if it was interrupted."""
    date, began = datetime.datetime.now(datetime.UTC), time.monotonic()
    about = {"date": date.isoformat(timespec="seconds"), "commit": versions.commit(), "status": None}
    try:
        about["status"] = execute()
    finally:
        about["seconds"] = round(time.monotonic() - began, 1)
        _write(run, {"starts": [*read(run)["starts"], about], "made_of": _origins(run)})
    return about["status"]


def _write(run: Run, content: Mapping[str, Any]) -> None:
    with whole_file(run.workdir / FILE) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
