"""What a workdir's run began from, in DIR/began.json: weights of `config.init_from`, or weights drawn at random.

Once there is a checkpoint that file is not read again. Whoever names another one, or by `config.init_from_key` other
weights in it, would get other weights than he means.
"""

import dataclasses
import hashlib
import json
import pathlib

from ml_collections import ConfigDict

from vspw_jax.checkpoints.checkpoint import FOLDER
from vspw_jax.console import places
from vspw_jax.console.errors import UserError
from vspw_jax.files.whole_files import whole_file

FILE = "began.json"


@dataclasses.dataclass(frozen=True)
class Beginning:
    """The file or folder that a run began from; all is empty where the weights were drawn.

    Attributes:
      sha256: of the file; of a folder, which may grow, there is none.
      init_from_key: of the weights in it; empty for those that are rather meant.
    """

    init_from: str = ""
    sha256: str = ""
    init_from_key: str = ""

    def __str__(self) -> str:
        key = f", init_from_key={self.init_from_key}" if self.init_from_key else ""
        return self.init_from + key if self.init_from else "weights drawn at random"


def check(config: ConfigDict) -> None:
    """Raises UserError where a config chooses weights in a file and names no file."""
    if config.init_from_key and not config.init_from:
        raise UserError(
            f"init_from_key is {config.init_from_key!r} and init_from is empty: expected the file that holds those "
            "weights. Set --config.init_from=FILE."
        )


def check_there(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Raises UserError where a run would begin from a file that is not there. One with checkpoints goes on."""
    goes_on = any(place.name.isdecimal() for place in (pathlib.Path(workdir) / FOLDER).glob("*"))
    if config.init_from and not goes_on and not pathlib.Path(config.init_from).exists():
        raise UserError(
            f"init_from is {config.init_from!r}: expected a checkpoint's file or folder; there is none of that name. "
            "Set --config.init_from=FILE."
        )


def _of(config: ConfigDict) -> Beginning:
    if not config.init_from:
        return Beginning()
    path, digest = pathlib.Path(config.init_from).absolute(), ""
    if path.is_file():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Beginning(places.shown(path), digest, config.init_from_key)


def note(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Notes what a new run begins from."""
    with whole_file(pathlib.Path(workdir) / FILE) as partial:
        partial.write_text(json.dumps(dataclasses.asdict(_of(config)), indent=2) + "\n")


def _noted(workdir: pathlib.Path) -> Beginning | None:
    try:
        return Beginning(**json.loads((pathlib.Path(workdir) / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_same(noted: Beginning, config: ConfigDict) -> bool:
    named = _of(config)
    same_file = noted.sha256 == named.sha256 if named.sha256 else noted.init_from == named.init_from
    return same_file and noted.init_from_key == named.init_from_key


def _as_typed(config: ConfigDict) -> str:
    missing = "" if not config.init_from or pathlib.Path(config.init_from).exists() else " (no such file)"
    key = f" --config.init_from_key={config.init_from_key}" if config.init_from_key else ""
    return f"--config.init_from={config.init_from}{missing}{key}"


def check_goes_on(workdir: pathlib.Path, config: ConfigDict, step: int) -> None:
    """Checks that a checkpoint may be taken though `config.init_from` names a file: the run began from it.

    Raises:
      UserError: the run began from something else, or does not say from what.
    """
    noted = _noted(workdir)
    if not config.init_from or noted and _is_same(noted, config):
        return
    raise UserError(
        f"{workdir} has a checkpoint of step {step}, of a run that began from "
        f"{noted or f'something that no {FILE} names'}, so that {_as_typed(config)} would not be read.\n"
        "To use that checkpoint, set --config.init_from=''. To use the file, choose another --workdir=DIR."
    )


def check_begins_again(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Raises UserError where a config names another beginning than the workdir's run had: first steps differ."""
    noted = _noted(workdir)
    if noted and not _is_same(noted, config):
        raise UserError(
            f"The run in {workdir} began from {noted}, not from {_of(config)}, and no checkpoint is older than "
            f"this step. Set --config.init_from='{noted.init_from}' --config.init_from_key='{noted.init_from_key}'."
        )
