"""A study held against the folder that it goes on in: every field of every arm must be as it was there."""

import difflib
import json
import pathlib
import runpy
from collections.abc import Iterator
from typing import Any

from flax import traverse_util

from benchmarks.ablation.studies import Arm, Study
from benchmarks.ablation.versions import ROOT
from vspw_jax.console.errors import UserError, differing
from vspw_jax.files.whole_files import whole_file

FILE = "study.json"
FREE = ("run.", "data.workers", "data.threads", "data.prefetch")
"""How fields begin that change no result."""


def recipe_fields(recipe: str) -> dict[str, Any]:
    """The fields of a recipe such as "configs/nce.py:demo" by dotted path, as JSON gives them back.

    Raises:
      UserError: there is no such file.
    """
    path, *size = recipe.split(":", 1)
    if not (ROOT / path).is_file():
        raise UserError(
            f"There is no recipe {path} in {ROOT}: expected one such as configs/nce.py:demo. "
            "Mend benchmarks/ablation/studies.py."
        )
    config = runpy.run_path(str(ROOT / path))["get_config"](*size)
    return traverse_util.flatten_dict(json.loads(config.to_json_best_effort()), sep=".")


def _trainings(study: Study) -> Iterator[tuple[str, Arm, dict[str, Any]]]:
    """(name, arm, the fields that are set) of every arm and its pretraining."""
    for name, arm in study.arms.items():
        yield name, arm, {**study.fields, **arm.fields}
        if arm.pretraining:
            yield f"{name}, pretraining", arm.pretraining, dict(arm.pretraining.fields)


def resolved(study: Study) -> dict[str, dict[str, Any]]:
    """Every field of every arm, as it is trained, and by "ARM, pretraining" of what it starts from.

    Raises:
      UserError: a field that the arm's recipe does not have, or an unknown recipe.
    """
    arms = {}
    for name, arm, set_here in _trainings(study):
        fields = recipe_fields(arm.recipe)
        for field in set_here.keys() - fields.keys():
            near = difflib.get_close_matches(field, fields, n=1) or ["a field that it has"]
            raise UserError(
                f"Arm {name!r} sets {field}, which {arm.recipe} does not have: expected {near[0]}. "
                "Mend benchmarks/ablation/studies.py."
            )
        arms[name] = fields | json.loads(json.dumps(set_here))
    return arms


def claim_folder(folder: pathlib.Path, study: Study) -> None:
    """Makes a folder this study's, or checks that it is.

    Raises:
      UserError: it holds a study of another definition, or its study.json is damaged.
    """
    path = folder / FILE
    fields = {
        f"{arm}: {name}": value
        for arm, fields in resolved(study).items()
        for name, value in fields.items()
        if not name.startswith(FREE)
    }
    if not path.exists():
        with whole_file(path) as partial:
            partial.write_text(json.dumps(fields, indent=2) + "\n")
    lines = differing(_read(path), fields)
    if lines:
        raise UserError(
            f"The study in {folder} was defined otherwise when it began:\n{lines}\n"
            "Choose another --output=DIR for the study as it is now, give back what it was, or delete that folder."
        )


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text())
        if isinstance(fields, dict):
            return fields
        found = type(fields).__name__
    except ValueError as error:
        found = str(error)
    raise UserError(
        f"{path} is damaged: expected the JSON object that the study's first start wrote, found {found}.\n"
        "If the study is as it was, delete that file and start again. Else choose another --output=DIR."
    )
