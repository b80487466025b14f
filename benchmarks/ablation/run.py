"""One run of a study: an arm with a seed, the programs that make it, and where they leave its scores."""

import abc
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.ablation import definition
from benchmarks.ablation.arms import FOLDER, AnyArm, Arm, Ensemble, Evaluated, Study
from benchmarks.ablation.program import Command
from benchmarks.ablation.versions import ROOT
from vspw_jax.data import records
from vspw_jax.evaluation.evaluate import SAVED_SCORES_FOLDER, SCORES_FILE
from vspw_jax.metrics import predictions, truth

MAIN = "vspw_jax.main"
METHODS = {
    "mean": ("--method=mean",),
    "vote": ("--method=vote",),
    "weighted": ("--sweep=0:1:0.1", "--halves"),  # The steps are those of arXiv 2306.03508, table 4.
}
"""Options of vspw_jax.ensemble, by what `Ensemble.method` says."""


@dataclasses.dataclass(frozen=True)
class Run(abc.ABC):
    """An arm with a seed.

    Attributes:
      folder: the study's.
      arm: its name.
      seed: of weights, order of the data and augmentation; not of what is drawn.
    """

    folder: pathlib.Path
    arm: str
    seed: int

    @property
    def workdir(self) -> pathlib.Path:
        """Where it is made."""
        return self.folder / self.arm / f"seed_{self.seed}"

    @property
    @abc.abstractmethod
    def evaluation(self) -> pathlib.Path:
        """The file of its scores."""

    def made_of(self) -> tuple["Run", ...]:
        """The runs that are done before it, as it is made of what they leave."""
        return ()

    @abc.abstractmethod
    def commands(self) -> Iterator[Command]:
        """The programs that make it, in their order; the last one leaves `evaluation`."""

    def scores(self) -> dict[str, Any]:
        """What was scored of a run that is done, as `metrics.scores.summarise` has it."""
        return json.loads(self.evaluation.read_text())

    @abc.abstractmethod
    def videos(self) -> truth.RecordsTruth | truth.FilesTruth:
        """The videos that it is evaluated on."""

    @abc.abstractmethod
    def predicted(self) -> predictions.Folder:
        """What it predicted of them."""


@dataclasses.dataclass(frozen=True)
class OfNetwork(Run):
    """A run that a network predicts.

    Attributes:
      recipe: as --config takes it.
      set_fields: what the study sets of the recipe, by dotted path.
      fields: every field that it has.
    """

    recipe: str
    set_fields: Mapping[str, Any]
    fields: Mapping[str, Any]

    @property
    def evaluation(self) -> pathlib.Path:
        """See `Run`."""
        return self.workdir / SCORES_FILE

    @property
    def saved_scores(self) -> pathlib.Path:
        """Its scores of every pixel, where evaluate.save_scores asks for them."""
        return self.workdir / SAVED_SCORES_FOLDER / self.split

    @property
    def split(self) -> str:
        """That it is evaluated on."""
        return self.fields["data.eval_split"]

    @property
    def records(self) -> pathlib.Path:
        """Those with all labels, to evaluate on."""
        return ROOT / self.placed(self.fields["data.records"])

    def videos(self) -> truth.RecordsTruth | truth.FilesTruth:
        """See `Run`."""
        return truth.open_truth(self.records, self.split)

    def predicted(self) -> predictions.Folder:
        """See `Run`."""
        return predictions.Folder(self.workdir / predictions.KEPT / self.split)

    def command(self, leaves: pathlib.Path, mode: str, workdir: pathlib.Path, **more: Any) -> Command:
        """`vspw_jax.main` with the recipe, its fields, the seed, and such fields beside or in place of them, in whose
        names "__" stands for a dot."""
        fields = {**self.set_fields, "seed": self.seed}
        fields |= {name.replace("__", "."): value for name, value in more.items()}
        flags = [f"--config.{name}={self.placed(value)}" for name, value in fields.items()]
        return Command(MAIN, [f"--config={self.recipe}", f"--workdir={workdir}", f"--mode={mode}", *flags], leaves)

    def weights_scored(self) -> dict[str, Any]:
        """Fields by which another run starts from the weights that this one's scores are of."""
        key = "ema" if self.fields["evaluate.weights"] == "ema" else ""
        return {"init_from": self.workdir, "init_from_key": key, "evaluate__weights": "trained"}

    def placed(self, value: Any) -> str:
        """A field's value, with the study's own folder in it."""
        return str(value).replace(FOLDER, str(self.folder))


@dataclasses.dataclass(frozen=True)
class Training(OfNetwork):
    """A run that is trained, then evaluated.

    Attributes:
      pretraining: what is trained before, without an evaluation, and started from.
      labeller: what labels the frames without labels before it.
      surest: see `Arm`.
    """

    pretraining: "Training | None" = None
    labeller: "Training | None" = None
    surest: float = 0.0

    def made_of(self) -> tuple[Run, ...]:
        """See `Run`; its pretraining is its own."""
        return (self.labeller,) if self.labeller else ()

    def commands(self) -> Iterator[Command]:
        """See `Run`."""
        more: dict[str, Any] = {"run__afterwards": ("evaluate",)}
        if self.pretraining:
            yield self.pretraining.without_evaluation()
            more["init_from"] = self.pretraining.workdir
        if self.labeller:
            if not records.exist(self._labels):
                yield from self._labelled()
            more |= {"data__records": self._labels, "data__labelled_frames": "all"}
        yield self.command(self.evaluation, "train", self.workdir, **more)

    def without_evaluation(self) -> Command:
        """Its training alone."""
        trained = self.workdir / "checkpoints" / str(self.fields["train.steps"])
        return self.command(trained, "train", self.workdir, run__afterwards=())

    @property
    def _labels(self) -> pathlib.Path:
        return self.workdir / "labels"

    def _labelled(self) -> Iterator[Command]:
        """The training split is predicted, and the predictions become labels."""
        split, workdir, labeller = self.fields["data.train_split"], self.workdir / "labeller", self.labeller
        assert labeller is not None  # Its caller asks.
        keeps = {"evaluate__save_scores": bool(self.surest), "evaluate__top_classes": int(bool(self.surest))}
        yield labeller.command(
            workdir / SCORES_FILE,
            "evaluate",
            workdir,
            data__eval_split=split,
            **labeller.weights_scored(),
            **keeps,
        )
        arguments = [
            f"--records={self.records}",
            f"--predictions={workdir / predictions.KEPT / split}",
            f"--output={self._labels}",
            f"--labelled-frames={self.fields['data.labelled_frames']}",
            f"--labels-seed={self.fields['data.labels_seed']}",
            f"--split={split}",
        ]
        if self.surest:
            arguments += [f"--scores={workdir / SAVED_SCORES_FOLDER / split}", f"--threshold={self.surest}"]
        yield Command("data_prep.pseudo_labels", arguments, self._labels)


@dataclasses.dataclass(frozen=True)
class Evaluation(OfNetwork):
    """A run's weights, evaluated in another way.

    Attributes:
      weights: that run.
    """

    weights: Training

    def made_of(self) -> tuple[Run, ...]:
        """See `Run`."""
        return (self.weights,)

    def commands(self) -> Iterator[Command]:
        """See `Run`."""
        yield self.command(self.evaluation, "evaluate", self.workdir, **self.weights.weights_scored())


@dataclasses.dataclass(frozen=True)
class Combination(Run):
    """One prediction of the scores of runs.

    Attributes:
      members: those.
      method: a key of METHODS.
    """

    members: tuple[OfNetwork, ...]
    method: str

    @property
    def evaluation(self) -> pathlib.Path:
        """See `Run`."""
        return self.workdir / "ensemble.json"

    def made_of(self) -> tuple[Run, ...]:
        """See `Run`."""
        return self.members

    def commands(self) -> Iterator[Command]:
        """See `Run`."""
        scores = [f"--scores={member.saved_scores}" for member in self.members]
        first = self.members[0]
        about = [f"--records={first.records}", f"--split={first.split}", f"--output={self.workdir}"]
        yield Command("vspw_jax.ensemble", [*scores, *METHODS[self.method], *about], self.evaluation)

    def scores(self) -> dict[str, Any]:
        """See `Run`."""
        return super().scores()["scores"]

    def videos(self) -> truth.RecordsTruth | truth.FilesTruth:
        """See `Run`."""
        return self.members[0].videos()

    def predicted(self) -> predictions.Folder:
        """See `Run`."""
        return predictions.Folder(self.workdir / "masks")


def make_runs(folder: pathlib.Path, study: Study, seeds: int) -> list[Run]:
    """All runs, each seed's arms together: what is there early can be compared.

    Raises:
      UserError: see `definition.resolved`.
    """
    fields = definition.resolved(study)
    runs: list[Run] = []
    for seed in range(seeds):
        of_seed: dict[str, Any] = {}
        for name, arm in study.arms.items():
            of_seed[name] = _run(folder, study, name, arm, seed, fields, of_seed)
        runs += of_seed.values()
    return runs


def _run(
    folder: pathlib.Path,
    study: Study,
    name: str,
    arm: AnyArm,
    seed: int,
    fields: Mapping[str, Mapping[str, Any]],
    before: Mapping[str, Any],
) -> Run:
    """`fields`: of `definition.resolved`; `before`: runs of the same seed, by arm."""
    if isinstance(arm, Ensemble):
        return Combination(folder, name, seed, tuple(before[member] for member in arm.members), arm.method)
    if isinstance(arm, Evaluated):
        weights = before[arm.weights_of]
        set_fields = {**weights.set_fields, **arm.fields}
        return Evaluation(folder, name, seed, weights.recipe, set_fields, fields[name], weights)
    first: Arm | None = arm.pretraining
    pretraining = first and Training(
        folder, f"{name}/pretraining", seed, first.recipe, first.fields, fields[f"{name}, pretraining"]
    )
    set_fields, labeller = {**study.fields, **arm.fields}, before.get(arm.labels_of)
    return Training(folder, name, seed, arm.recipe, set_fields, fields[name], pretraining, labeller, arm.surest)
