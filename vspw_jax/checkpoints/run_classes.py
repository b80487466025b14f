"""The classes of a run: those of the records that it began with. Its workdir keeps them, so that it needs no data."""

import json
import pathlib

from ml_collections import ConfigDict

from vspw_jax.classes import vspw
from vspw_jax.classes.class_list import ClassList
from vspw_jax.classes.label_maps import from_metadata
from vspw_jax.console.errors import UserError, listed
from vspw_jax.data import records
from vspw_jax.files.whole_files import whole_file

FILE = "classes.json"


def note(workdir: pathlib.Path, classes: ClassList) -> None:
    """Writes them into a workdir."""
    with whole_file(workdir / FILE) as path:
        path.write_text(json.dumps(classes.to_json(), indent=1) + "\n")


def _kept(workdir: pathlib.Path) -> ClassList | None:
    path = workdir / FILE
    if not path.exists():
        return None
    try:
        return ClassList.from_json(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(
            f"{path} is damaged ({error}). Delete it, and name the data that the run began with: "
            "--config.data.records=DIR."
        ) from error


def of_run(config: ConfigDict, workdir: pathlib.Path) -> ClassList:
    """The classes that a workdir keeps; where it keeps none those of `config.data.records`, or VSPW's without data.

    Raises:
      UserError: the file in the workdir is damaged, or the records are of an older layout.
    """
    if kept := _kept(workdir):
        return kept
    path = config.data.records
    return from_metadata(records.read_metadata(path)).classes if records.exist(path) else vspw.classes()


def adopt(config: ConfigDict, classes: ClassList, is_stated: bool) -> None:
    """Gives a recipe as many classes as its data set's own.

    A recipe of VSPW's data may have a head of another number of classes, such as ADE20K's 150.

    Args:
      config: the whole config, locked; `model.num_classes` may change.
      is_stated: whether the user asked for that number of classes.

    Raises:
      UserError: the user asked for another number.
    """
    number = config.model.num_classes
    if classes == vspw.classes() or number == len(classes):
        return
    if is_stated:
        raise UserError(
            f"--config.model.num_classes={number}, but the data has {len(classes)} classes: "
            f"{listed(classes.names)}. Leave the flag out."
        )
    with config.unlocked():
        config.model.num_classes = len(classes)


def check_same(of_network: ClassList, of_data: ClassList, path: pathlib.Path | str) -> None:
    """Raises UserError where a network is to be scored on data of other classes; `path` is the data's."""
    if of_network.names != of_data.names:
        raise UserError(
            f"The network tells {len(of_network)} classes ({listed(of_network.names, 3)}), {path} has {len(of_data)} "
            f"others ({listed(of_data.names, 3)}): expected data of the same classes in --config.data.records."
        )
