"""Whether a file, or files of a folder, can be written, found out before the work whose result they are."""

import os
import pathlib
import tempfile

from vspw_jax.buckets import mirrors
from vspw_jax.console.errors import UserError

PROBE_BYTES = 64 * 1024


def check_folder(folder: pathlib.Path | str, flag: str) -> None:
    """Raises UserError where no file can be written to a folder; it need not be there yet, and is not made.

    Args:
      flag: names the folder, such as "--workdir=DIR".
    """
    folder = pathlib.Path(folder).absolute()
    nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    try:
        with tempfile.TemporaryFile(dir=nearest) as probe:  # To ask for permissions would not find a full disk.
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {nearest}: {error.strerror}. Make room or give the right to write there, "
            f"or choose another {flag}."
        ) from error
    mirror = mirrors.of(folder)
    if mirror:
        mirror.check_writable()


def check_file(path: pathlib.Path | str, flag: str) -> None:
    """Raises UserError where no file can be written to a path; its folder need not be there yet.

    Args:
      flag: names the file, such as "--output=X.json".
    """
    path = pathlib.Path(path).absolute()
    if path.is_dir():
        option, _, example = flag.partition("=")
        raise UserError(f"{path} is a folder: name a file in it, such as {option}={path / example}.")
    check_folder(path.parent, flag)


def check_parent(path: pathlib.Path | str, flag: str) -> None:
    """Raises UserError where the folder that a path lies in does not exist.

    Args:
      flag: names the path, such as "--output=X.zip".
    """
    if not pathlib.Path(path).absolute().parent.is_dir():
        raise UserError(f"The folder of {path} does not exist. Make it, or choose another {flag}.")
