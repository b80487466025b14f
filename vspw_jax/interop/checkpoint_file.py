"""A PyTorch checkpoint file of any format: its tensors by name, not yet read."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from vspw_jax.console.errors import UserError
from vspw_jax.files.writable import check_folder
from vspw_jax.interop import safetensors_files, torch_files
from vspw_jax.interop.stored_tensors import NewTensor, StoredTensor

WRAPPERS = ("state_dict", "model", "module")
"""Keys under which checkpoints keep their tensors; the first that is there counts."""


@dataclasses.dataclass(frozen=True)
class CheckpointFile:
    """Tensors by name. They stood under the key `wrapper`; `others` are the keys beside it."""

    path: pathlib.Path
    tensors: dict[str, StoredTensor]
    wrapper: str | None = None
    others: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def _unwrap(path: pathlib.Path, value: Any) -> CheckpointFile:
    if not isinstance(value, dict):
        raise UserError(
            f"{path} holds a {type(value).__name__}; expected a dict of tensors, or one that has it inside."
        )
    wrapper = next((key for key in WRAPPERS if isinstance(value.get(key), dict)), None)
    tensors = value if wrapper is None else value[wrapper]
    strays = sorted(str(name) for name, tensor in tensors.items() if not isinstance(tensor, StoredTensor))
    if strays or not all(isinstance(name, str) for name in tensors):
        raise UserError(
            f"{path}: expected tensors by name under one of {', '.join(WRAPPERS)} or at the top, but there are other "
            f"things too: {', '.join(strays[:10])}."
        )
    others = () if wrapper is None else tuple(str(key) for key in value if key != wrapper)
    # DistributedDataParallel puts "module." before every name.
    inner = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if not all(name.startswith("module.") for name in tensors):
        inner = dict(tensors)
    return CheckpointFile(path, inner, wrapper, others)


def read(path: pathlib.Path | str) -> CheckpointFile:
    """Opens a .pth, .pth.tar or .safetensors file; its first bytes say which it is.

    Raises:
      UserError: it is not there, damaged, or holds something that a checkpoint of tensors does not need.
    """
    path = pathlib.Path(path)
    try:
        if safetensors_files.is_safetensors(path):
            return CheckpointFile(path, safetensors_files.read(path))
        return _unwrap(path, torch_files.read_zip(path) if torch_files.is_zip(path) else torch_files.read_legacy(path))
    except OSError as error:
        raise UserError(f"The checkpoint {path} cannot be read: {error.strerror}.") from error


def check_output(path: pathlib.Path | str) -> None:
    """Raises UserError where `write` could not write to a path: an unknown suffix, a folder, a place without room."""
    path = pathlib.Path(path)
    if not re.search(r"\.(pth|pt|pth\.tar|safetensors)$", path.name):
        raise UserError(f"{path}: expected a name that ends in .pth, .pt, .pth.tar or .safetensors.")
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it, such as --output={path / 'X.pth'}.")
    check_folder(path.parent, "--output=X.pth")


def write(path: pathlib.Path | str, tensors: Mapping[str, NewTensor], wrapper: str | None) -> None:
    """Writes tensors by name in the format of the path's suffix; under another name first, so that no half file stays.

    Raises:
      UserError: an unknown suffix, or the file cannot be written.
    """
    path = pathlib.Path(path)
    check_output(path)
    aside = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            safetensors_files.write(aside, tensors)
        else:
            torch_files.write(aside, tensors, wrapper)
        os.replace(aside, path)
    except OSError as error:
        raise UserError(f"The checkpoint {path} cannot be written: {error.strerror}.") from error
    finally:
        aside.unlink(missing_ok=True)
