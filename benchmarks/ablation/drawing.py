"""Draws the data that recipes draw themselves before a study's runs: seeds that begin together would draw it twice.

python -m benchmarks.ablation.drawing --recipe=configs/nce.py:demo --fields='{"data.generate.val": 36}'
"""

import argparse
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.ablation.run import OfNetwork, Run, Training
from benchmarks.ablation.versions import ROOT
from data_prep import generate
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.data import records

OWN = ".generate.records"
"""How the field ends that says where a recipe draws its records."""


def draw(runs: Sequence[Run]) -> None:
    """Draws what is not there, in processes of their own: in this one JAX would keep a device from the runs.

    Raises:
      UserError: it could not be drawn; what was wrong is said on stderr.
    """
    wanted = {(one.recipe, json.dumps(_set_of_data(one), sort_keys=True)): one for one in _networks(runs)}
    for (recipe, fields), one in wanted.items():
        if not _is_missing(one):
            continue
        command = [sys.executable, "-m", __name__, f"--recipe={recipe}", f"--fields={fields}"]
        if subprocess.run(command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}).returncode:
            raise UserError(f"The data of {recipe} could not be drawn; see above. The same command goes on.")


def _networks(runs: Sequence[Run]) -> Iterator[OfNetwork]:
    for one in runs:
        if isinstance(one, Training) and one.pretraining:
            yield one.pretraining
        if isinstance(one, OfNetwork):
            yield one


def _set_of_data(one: OfNetwork) -> Mapping[str, Any]:
    """What a run sets of its data, with the study's own folder in it."""
    of_data = {name: value for name, value in one.set_fields.items() if name.startswith("data.")}
    return {name: one.placed(value) if isinstance(value, str) else value for name, value in of_data.items()}


def _is_missing(one: OfNetwork) -> bool:
    """Whether a run would draw records before it trains: as `generate.for_recipe`."""
    own = [name for name in one.fields if name.endswith(OWN)]
    drawn = [one.fields[name] for name in own if one.fields[name.removesuffix(OWN) + ".records"] == one.fields[name]]
    return not all(records.exist(ROOT / one.placed(path)) for path in drawn)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation.drawing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--recipe", required=True, help="as --config takes it")
    result.add_argument("--fields", type=json.loads, default={}, help="JSON: values by the fields' dotted paths")
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parser().parse_args(arguments)
    path, *size = options.recipe.split(":", 1)
    config = runpy.run_path(path)["get_config"](*size)
    config.update_from_flattened_dict(options.fields)
    generate.for_recipe(config)


if __name__ == "__main__":
    run_program(main)
