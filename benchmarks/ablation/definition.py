"""A study held against the folder that it goes on in: every field of every arm must be as it was there."""

import difflib
import json
import pathlib
import runpy
from collections.abc import Mapping
from typing import Any

from flax import traverse_util

from benchmarks.ablation.arms import AnyArm, Arm, Ensemble, Evaluated, Study
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


def resolved(study: Study) -> dict[str, dict[str, Any]]:
    """All that defines each arm: every field as it is trained or evaluated, the arms that it is made of, and by
    "ARM, pretraining" the fields of what it starts from.

    Raises:
      UserError: a field that the arm's recipe does not have, an unknown recipe, an arm made of one that does not stand
        before it or saves no scores, a pair of other arms.
    """
    arms: dict[str, dict[str, Any]] = {}
    for name, arm in study.arms.items():
        for other in made_of(arm):
            _check_before(name, other, study, arms, Arm | Evaluated if isinstance(arm, Ensemble) else Arm)
            if isinstance(arm, Ensemble) and not arms[other]["evaluate.save_scores"]:
                raise UserError(
                    f"Arm {name!r} is made of the scores of {other!r}, which saves none: expected evaluate.save_scores "
                    "True. Mend benchmarks/ablation/studies.py."
                )
        if isinstance(arm, Ensemble):
            arms[name] = {"members": list(arm.members), "method": arm.method}
        elif isinstance(arm, Evaluated):
            whole = study.arms[arm.weights_of]
            assert isinstance(whole, Arm)  # By `_check_before`.
            trained = {**study.fields, **whole.fields, **arm.fields}
            arms[name] = {**_fields(name, whole.recipe, trained), "weights_of": arm.weights_of}
        else:
            arms[name] = _fields(name, arm.recipe, {**study.fields, **arm.fields})
            if arm.labels_of:
                arms[name] |= {"labels_of": arm.labels_of, "surest": arm.surest}
            if arm.pretraining:
                first = arm.pretraining
                arms[f"{name}, pretraining"] = _fields(f"{name}, pretraining", first.recipe, first.fields)
    unknown = [name for pair in study.pairs for name in pair if name not in study.arms]
    if unknown:
        raise UserError(
            f"The study compares {unknown[0]!r}: expected one of its arms, {', '.join(study.arms)}. "
            "Mend benchmarks/ablation/studies.py."
        )
    return arms


def made_of(arm: AnyArm) -> tuple[str, ...]:
    """The arms that are run before this one, as it is made of what they leave."""
    if isinstance(arm, Ensemble):
        return arm.members
    other = arm.weights_of if isinstance(arm, Evaluated) else arm.labels_of
    return (other,) if other else ()


def _check_before(name: str, other: str, study: Study, before: Mapping[str, Any], kinds: Any) -> None:
    usable = [arm for arm, kind in study.arms.items() if arm in before and isinstance(kind, kinds)]
    if other not in usable:
        raise UserError(
            f"Arm {name!r} is made of {other!r}: expected one that stands before it and that it can be made of, "
            f"{', '.join(usable) or 'of which there is none'}. Mend benchmarks/ablation/studies.py."
        )


def _fields(name: str, recipe: str, set_here: Mapping[str, Any]) -> dict[str, Any]:
    fields = recipe_fields(recipe)
    for field in set_here.keys() - fields.keys():
        near = difflib.get_close_matches(field, fields, n=1) or ["a field that it has"]
        raise UserError(
            f"Arm {name!r} sets {field}, which {recipe} does not have: expected {near[0]}. "
            "Mend benchmarks/ablation/studies.py."
        )
    return fields | json.loads(json.dumps(dict(set_here)))


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
