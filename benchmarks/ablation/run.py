"""One run of a study: an arm trained with a seed and evaluated, and what is kept of it."""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.ablation import program, versions
from benchmarks.ablation.studies import FOLDER
from benchmarks.ablation.versions import ROOT
from vspw_jax.files.whole_files import whole_file
from vspw_jax.metrics import predictions, truth
from vspw_jax.metrics.counts import VideoCounts

LOG, RECORD, EVALUATION = "output.log", "ablation.json", "evaluation.json"


@dataclasses.dataclass(frozen=True)
class Run:
    """An arm with a seed.

    Attributes:
      folder: the study's.
      arm: its name.
      recipe: as --config takes it.
      set_fields: what the study sets of the recipe, by dotted path.
      fields: every field that it is trained with.
      seed: of weights, order of the data and augmentation; not of what is drawn.
      pretraining: what is trained before, without an evaluation, and started from.
    """

    folder: pathlib.Path
    arm: str
    recipe: str
    set_fields: Mapping[str, Any]
    fields: Mapping[str, Any]
    seed: int
    pretraining: "Run | None" = None

    @property
    def workdir(self) -> pathlib.Path:
        """Where it is trained."""
        return self.folder / self.arm / f"seed_{self.seed}"

    @property
    def evaluation(self) -> pathlib.Path:
        """The file of its scores."""
        return self.workdir / EVALUATION

    def arguments(self, afterwards: tuple[str, ...] = ("evaluate",)) -> list[str]:
        """Of the command line that trains and evaluates it, and goes on with it."""
        fields = {**self.set_fields, "seed": self.seed, "run.afterwards": afterwards}
        if self.pretraining:
            fields["init_from"] = self.pretraining.workdir
        flags = [f"--config.{name}={self._placed(value)}" for name, value in fields.items()]
        return [f"--config={self.recipe}", f"--workdir={self.workdir}", *flags]

    def videos(self) -> truth.RecordsTruth | truth.FilesTruth:
        """The videos that it is evaluated on."""
        return truth.open_truth(ROOT / self._placed(self.fields["data.records"]), self.fields["data.eval_split"])

    def predicted(self) -> predictions.Folder:
        """What it predicted of them."""
        return predictions.Folder(self.workdir / predictions.KEPT / self.fields["data.eval_split"])

    def _placed(self, value: Any) -> str:
        return str(value).replace(FOLDER, str(self.folder))


def record(run: Run) -> dict[str, Any]:
    """What is kept of a run: "starts", each with date, seconds, commit and exit status; once it is done "evaluation",
    the digest of its scores' file, and "counts" of its videos. A file that cannot be read counts as none."""
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads((run.workdir / RECORD).read_text())
        if isinstance(kept, dict) and "starts" in kept:
            return kept
    return {"starts": []}


def is_done(run: Run) -> bool:
    """Whether its scores are there, and are those that its own start left: others were made by hand, or damaged."""
    return record(run).get("evaluation", "none") == _digest(run.evaluation)


def _digest(path: pathlib.Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def scores(run: Run) -> dict[str, Any]:
    """What evaluation.json holds of a run that is done."""
    return json.loads(run.evaluation.read_text())


def counts(run: Run) -> list[VideoCounts]:
    """The counts of a run that is done, by video in the order of their names."""
    found = [VideoCounts.from_json(text) for text in record(run)["counts"]]
    return sorted(found, key=lambda video: video.video)


def start(run: Run, lock: int) -> None:
    """Trains and evaluates, from where the last start left it.

    Args:
      lock: a file descriptor that the program keeps open as long as it lives.

    Raises:
      UserError: the program ended with status 2.
      RunFailed: with another one.
      KeyboardInterrupt: it, or this process, was asked to stop; it has saved its state.
    """
    run.workdir.mkdir(parents=True, exist_ok=True)
    # What is there afterwards is this start's: a run that is asked to stop ends with status 0 too.
    run.evaluation.unlink(missing_ok=True)
    status = _recorded(run, lambda: _execute(run, lock))
    if status:
        program.complain(f"{run.arm} with seed {run.seed}", status, run.workdir / LOG)
    if not run.evaluation.exists():
        raise KeyboardInterrupt
    _write(run, record(run) | {"evaluation": _digest(run.evaluation), "counts": _counted(run)})


def _execute(run: Run, lock: int) -> int:
    """The exit status of the program, and of the pretraining before it.

    Raises:
      KeyboardInterrupt: one of them was asked to stop.
    """
    log, before = run.workdir / LOG, run.pretraining
    if before:
        status = program.execute(before.arguments(afterwards=()), log, lock)
        if status:
            return status
        if not (before.workdir / "checkpoints" / str(before.fields["train.steps"])).is_dir():
            raise KeyboardInterrupt
    return program.execute(run.arguments(), log, lock)


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
        _write(run, {"starts": [*record(run)["starts"], about]})
    return about["status"]


def _write(run: Run, content: Mapping[str, Any]) -> None:
    with whole_file(run.workdir / RECORD) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
