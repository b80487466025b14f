"""What a workdir belongs to: the fields of a config that decide a run's result, and the data it was trained on."""

import json
import pathlib
import re
from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, differing
from vspw_jax.console.recipe_file import flatten
from vspw_jax.files.whole_files import whole_file
from vspw_jax.files.writable import check_folder

IDENTITY = ("seed", "task", "model", "loss", "optimizer", "schedule", "ema", "train", "data")
"""Sections of a config that decide a run's result; the others may change from one start to the next."""

MACHINE_FIELDS = {f"data.{name}" for name in ("workers", "threads", "prefetch", "eval_split")} | {"model.remat"}
"""Fields in those sections that do not."""

PLACES = re.compile(r"data\.((mixture\.\w+\.)?records|(.+\.)?generate\..+)")
"""Fields that say where data is: what was found there is compared instead."""

CLASS_WEIGHT = "loss.segmentation.class_weight"

IN_EPOCHS = {
    "train.steps": "train.epochs",
    "task.start_step": "task.start_epoch",
    "model.decoder.truth_steps": "model.decoder.truth_epochs",
    "loss.segmentation.memory_start_step": "loss.segmentation.memory_start_epoch",
}
"""Fields that count steps, and what counts epochs in their place where it is above 0: the data then decides them."""

MOMENTUM_POWER = "model.decoder.momentum_power"
"""Of an earlier version: the memory's momentum had a schedule of its own."""
RENAMED = {f"optimizer.{name}": f"schedule.{name}" for name in ("warmup_steps", "warmup_ratio", "power", "minimum")}
ONLY_CHOICES = {
    "task.name": "supervised",
    "optimizer.name": "adamw",
    "optimizer.decayed": "kernels",
    "schedule.name": "poly",
}
ADDED: dict[str, dict[str, Any]] = {
    "memory_a": {"model.decoder.memory_space": "pyramid"},
    "memory_b": {"model.decoder.memory_space": "pyramid", "model.decoder.past_frames": "last"},
    "mask2former": {"model.decoder.query_std": 1.0},
    "fcn": {"model.decoder.inputs": "coarsest", "model.decoder.align_corners": False, "model.decoder.conv_size": 3},
}
ADDED_BESIDE: dict[str, dict[str, Any]] = {
    "model.projection.dim": {"model.projection.layers": 2},
    **{steps: {epochs: 0} for steps, epochs in IN_EPOCHS.items()},
}
NEEDS = {
    "data.chosen": ("data.chosen", "first"),
    "data.reference_distance": ("data.reference_distance", []),
    "data.views": ("data.views", "one"),
    **{
        f"data.augment.{name}": ("data.views", "two")
        for name in ("base_size", "resize_ratio", "max_class_share", "photometric", "shrink_in_decoding")
    },
    **{
        f"model.projection.{name}": ("model.projection.dim", 0)
        for name in ("dim", "hidden", "layers", "input", "level")
    },
    **{f"data.{name}": ("data.labelled_frames", "all") for name in ("labelled_frames", "labels_seed")},
    "data.unlabelled_share": ("data.unlabelled_share", 0.0),
    "optimizer.embeddings_at_layer_0": ("model.decoder.name", "upernet"),
    "data.classes": ("data.classes", "main"),
    "loss.segmentation.class_weight_from": ("loss.segmentation.class_weight_from", ""),
}
"""How workdirs of earlier versions differ: names of fields, what had no field as there was no other choice (of all
recipes, by decoder, and by another field that is there), and fields that recipes had though another field made them
have no effect: (that field, its value)."""


def has_run(workdir: pathlib.Path) -> bool:
    """Whether a workdir is some run's."""
    return (pathlib.Path(workdir) / "config.json").exists()


def claim_workdir(workdir: pathlib.Path, config: ConfigDict, data: dict[str, Any]) -> None:
    """Makes the workdir this config's and this data's, or checks that it is.

    Args:
      data: what was read, a description by name of the data set; see `mixture.identity`.

    Raises:
      UserError: it holds a run of another config or on other data, cannot be written, or its config.json is damaged.
    """
    path = pathlib.Path(workdir) / "config.json"
    identity = _identity(config) | {f"data set {name!r}": description for name, description in data.items()}
    if not path.exists():
        check_folder(path.parent, "--workdir=DIR")
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text(json.dumps(identity, indent=2) + "\n")
    _check_same(path, _read_identity(path), identity)


def check_workdir(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Checks that a workdir's run is of this config, whatever the data: a trained model takes any.

    Raises:
      UserError: the workdir holds a run of another config, or its config.json is damaged.
    """
    path = pathlib.Path(workdir) / "config.json"
    if path.exists():
        _check_same(path, _but_data(_read_identity(path)), _but_data(_identity(config)))


def _but_data(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields but those that say what the data is, or come of it."""
    of_data = CLASS_WEIGHT if fields.get(f"{CLASS_WEIGHT}_from") else "data"
    return {name: value for name, value in fields.items() if not name.startswith("data") and name != of_data}


def model_of(workdir: pathlib.Path) -> ConfigDict:
    """`config.model` of a workdir's run.

    Raises:
      UserError: its config.json is missing or damaged.
    """
    path = pathlib.Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(f"{path} is missing, which says what network the run's checkpoints are of. Bring it back.")
    fields = {name: value for name, value in _read_identity(path).items() if name.startswith("model.")}
    whole: dict[str, Any] = {}
    for name, value in {**fields, "model.remat": "none"}.items():
        *sections, last = name.split(".")
        section = whole
        for part in sections:
            section = section.setdefault(part, {})
        section[last] = tuple(value) if isinstance(value, list) else value
    return ConfigDict(whole["model"])


def task_of(workdir: pathlib.Path) -> str:
    """`config.task.name` of a workdir's run, which `model_of` can read."""
    return str(_read_identity(pathlib.Path(workdir) / "config.json")["task.name"])


def steps_of(workdir: pathlib.Path, names: Collection[str]) -> dict[str, int]:
    """What a workdir's run has of some of the fields that `IN_EPOCHS` names; {} where there is no run.

    Raises:
      UserError: its config.json is damaged.
    """
    path = pathlib.Path(workdir) / "config.json"
    if not path.exists():
        return {}
    fields = _read_identity(path)
    # Every run has a length; one of another recipe may lack the others.
    found = {name: fields.get(name) for name in names if name in fields or name == "train.steps"}
    for name, steps in found.items():
        if not isinstance(steps, int):
            raise UserError(f"{path} is damaged: its {name} is {steps!r}, expected a number. Bring it back.")
    return found


def class_weight_of(workdir: pathlib.Path) -> tuple[float, ...]:
    """`loss.segmentation.class_weight` of a workdir's run; () where there is no run, or none of such a loss."""
    path = pathlib.Path(workdir) / "config.json"
    return tuple(_read_identity(path).get(CLASS_WEIGHT, ())) if path.exists() else ()


def _identity(config):
    """The fields that decide a run's result, as JSON gives them back."""
    fields = flatten(json.loads(config.to_json_best_effort()))
    return {
        name: value
        for name, value in fields.items()
        if name.split(".")[0] in IDENTITY and name not in MACHINE_FIELDS and not PLACES.fullmatch(name)
    }


def _read_identity(path):
    try:
        fields = json.loads(path.read_text())
        if not isinstance(fields, dict):
            raise ValueError(f"a {type(fields).__name__}")
        return of_this_version(fields)
    except ValueError as error:
        raise UserError(
            f"{path} is damaged: expected the JSON that a run writes, found {error}.\n"
            f"If {path.parent} holds a run of this config, delete that file and start again.\n"
            "Else choose another with --workdir=DIR."
        ) from error


def of_this_version(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config.json that an earlier version wrote, named and completed as this one has them."""
    if "task.name" not in fields:
        fields = {RENAMED.get(name, name): value for name, value in fields.items()} | ONLY_CHOICES
    # Of another power there is nothing like it now: the field stays, and differs.
    if MOMENTUM_POWER in fields and fields[MOMENTUM_POWER] in (0, fields.get("schedule.power")):
        fields = fields | {"model.decoder.momentum_follows_rate": bool(fields[MOMENTUM_POWER])}
        del fields[MOMENTUM_POWER]
    added = [new for name, new in ADDED_BESIDE.items() if name in fields]
    for new in (ADDED.get(fields.get("model.decoder.name", ""), {}), *added):
        fields = {**new, **fields}
    return fields


def _with_effect(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields but those that another field makes have no effect."""
    without = [name for name, (by, off) in NEEDS.items() if fields.get(by) == off]
    without += [steps for steps, epochs in IN_EPOCHS.items() if fields.get(epochs)]  # The data decides these.
    return {name: value for name, value in fields.items() if name not in without}


def _check_same(path, found, expected):
    lines = differing(_with_effect(found), _with_effect(expected))
    if not lines:
        return
    advice = "Choose another with --workdir=DIR, or delete it to start anew."
    if "  data set " in lines:
        advice += (
            "\nTo go on with it give back the data that it had: --config.data.records=DIR, or "
            "--config.data.mixture.NAME.records=DIR. Evaluating takes any data: --mode=evaluate."
        )
    if counted := [names for names in IN_EPOCHS.items() if names[0] in _with_effect(found) and expected.get(names[1])]:
        flags = " ".join(f"--config.{epochs}=0 --config.{steps}={found[steps]}" for steps, epochs in counted)
        advice += f"\nIts steps were counted, not its epochs. To go on with it: {flags}."
    raise UserError(f"The workdir {path.parent} holds a run of another config or on other data:\n{lines}\n{advice}")
