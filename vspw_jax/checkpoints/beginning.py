"""What a workdir's run began from, in DIR/began.json: the file of `config.init_from`, or weights drawn at random.

Once there is a checkpoint that file is not read again. Whoever names another one would get other weights than he means.
"""

import dataclasses
import hashlib
import json
import pathlib

from vspw_jax.console.errors import UserError
from vspw_jax.files.whole_files import whole_file

FILE = "began.json"


@dataclasses.dataclass(frozen=True)
class Beginning:
    """The file that a run began from; both are empty where the weights were drawn.

    Attributes:
      sha256: of the file; of a folder, which may grow, there is none.
    """

    init_from: str
    sha256: str

    def __str__(self) -> str:
        return self.init_from or "weights drawn at random"


def _of(init_from: str) -> Beginning:
    if not init_from:
        return Beginning("", "")
    path = pathlib.Path(init_from).absolute()
    if not path.is_file():
        return Beginning(str(path), "")
    with path.open("rb") as file:
        return Beginning(str(path), hashlib.file_digest(file, "sha256").hexdigest())


def note(workdir: pathlib.Path, init_from: str) -> None:
    """Notes that a new run begins from a file, or from drawn weights where the name is empty."""
    with whole_file(pathlib.Path(workdir) / FILE) as partial:
        partial.write_text(json.dumps(dataclasses.asdict(_of(init_from)), indent=2) + "\n")


def _noted(workdir: pathlib.Path) -> Beginning | None:
    try:
        return Beginning(**json.loads((pathlib.Path(workdir) / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_same(noted: Beginning, init_from: str) -> bool:
    named = _of(init_from)
    return noted.sha256 == named.sha256 if named.sha256 else noted.init_from == named.init_from


def check_goes_on(workdir: pathlib.Path, init_from: str, step: int) -> None:
    """Checks that a checkpoint may be taken though `init_from` names a file: the run began from it.

    Raises:
      UserError: the run began from something else, or does not say from what.
    """
    noted = _noted(workdir)
    if not init_from or noted and _is_same(noted, init_from):
        return
    exists = "" if pathlib.Path(init_from).exists() else " (no such file)"
    raise UserError(
        f"{workdir} has a checkpoint of step {step}, of a run that began from "
        f"{noted or f'something that no {FILE} names'}, so that --config.init_from={init_from}{exists} would not be "
        "read.\nTo use that checkpoint, set --config.init_from=''. To use the file, choose another --workdir=DIR."
    )


def check_begins_again(workdir: pathlib.Path, init_from: str) -> None:
    """Raises UserError where `init_from` is not what the workdir's run began from, so that its first steps differ."""
    noted = _noted(workdir)
    if noted and not _is_same(noted, init_from):
        raise UserError(
            f"The run in {workdir} began from {noted}, not from {init_from or 'weights drawn at random'}, and no "
            f"checkpoint is older than this step. Set --config.init_from='{noted.init_from}'."
        )
