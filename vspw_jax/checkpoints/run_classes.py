"""The classes of a run: those of the data that it began with. Its workdir keeps them, so that it needs no data.

A workdir without such a file has a run on VSPW's.
"""

import json
import pathlib
from typing import NamedTuple

from ml_collections import ConfigDict

from vspw_jax.checkpoints import run_identity
from vspw_jax.classes import class_union, vspw
from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError, listed
from vspw_jax.data import mixture, records
from vspw_jax.files.whole_files import whole_file

FILE = "classes.json"


class Known(NamedTuple):
    """Classes, and where they come from."""

    classes: ClassList
    place: str


def note(workdir: pathlib.Path, classes: ClassList) -> None:
    """Writes them into a workdir, if they are not VSPW's."""
    if vspw.are(classes):
        (workdir / FILE).unlink(missing_ok=True)
        return
    with whole_file(workdir / FILE) as path:
        path.write_text(json.dumps(classes.to_json(), indent=1) + "\n")


def kept(workdir: pathlib.Path) -> ClassList:
    """Those of the run in a workdir; UserError where its file is damaged."""
    path = workdir / FILE
    if not path.exists():
        return vspw.classes()
    try:
        return class_union.from_json(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(
            f"{path} is damaged ({error}). Delete the workdir, or bring the file back: it names the classes that the "
            "run tells apart."
        ) from error


def of_run(config: ConfigDict, workdir: pathlib.Path, trains: bool = False) -> Known:
    """The classes of the run in a workdir; where there is none yet those of `config.data`, or VSPW's.

    Args:
      trains: whether the run goes on with these records, whose classes it must then have.

    Raises:
      UserError: the workdir's run has other classes than the data that it is to train on; the file in the workdir is
        damaged; the records are of an older layout.
    """
    path = config.data.records
    of_data = mixture.classes_of(config.data) if trains or not run_identity.has_run(workdir) else None
    if not run_identity.has_run(workdir):
        place = "config.data" if isinstance(of_data, class_union.ClassUnion) else path
        return Known(of_data or vspw.classes(), place if of_data else "the recipe")
    of_network = kept(workdir)
    if trains and of_data and of_data.names != of_network.names:
        own, others = (f"({listed(some.names, 3)})" for some in (of_network, of_data))
        raise UserError(
            f"{workdir} has a run that tells apart {len(of_network)} classes {own}, {path} has {len(of_data)} others "
            f"{others}. Choose another --workdir=DIR for these data."
        )
    return Known(of_network, str(workdir))


def of_records(config: ConfigDict) -> ClassList | None:
    """The classes that `config.data.records` are scored by, None where there are no records."""
    path, own = config.data.records, mixture.has_own_classes(config.data)
    return records.labels_of(records.read_metadata(path), own).classes if records.exist(path) else None


def with_parts(config: ConfigDict, classes: ClassList) -> ClassList:
    """Classes that a file names, as a union where they are those of `config.data`'s data sets together."""
    of_data = mixture.classes_of(config.data)
    if not isinstance(of_data, class_union.ClassUnion):
        return classes
    return of_data.numbered_as(classes) or classes


def adopt(config: ConfigDict, known: Known, is_stated: bool) -> None:
    """Gives a recipe as many classes as its data set's own.

    A recipe of VSPW's data may have a head of another number of classes, such as ADE20K's 150.

    Args:
      config: the whole config, locked; `model.num_classes` may change.
      is_stated: whether the user asked for that number of classes.

    Raises:
      UserError: the user asked for another number.
    """
    number, classes = config.model.num_classes, known.classes
    if vspw.are(classes) or number == len(classes):
        return
    if is_stated:
        raise UserError(
            f"--config.model.num_classes={number}, but {known.place} has {len(classes)} classes: "
            f"{listed(classes.names)}. Leave the flag out."
        )
    with config.unlocked():
        config.model.num_classes = len(classes)
