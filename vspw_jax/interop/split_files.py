"""Checkpoints in several files: the index that says which tensor is where, and folders that hold a checkpoint.

Format: huggingface/transformers `model.safetensors.index.json` and `pytorch_model.bin.index.json`, whose `weight_map`
gives the file for each name.
"""

import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

from vspw_jax.console.errors import UserError, listed
from vspw_jax.interop.stored_tensors import damaged

INDEX = ".index.json"
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".pth.tar", ".ckpt", ".pth.gz")
"""Of files that may be a checkpoint; a folder's first kind counts."""

MAX_INDEX = 2**26
PART = re.compile(r"-(\d{5})-of-(\d{5})\.\w+$")


def is_index(path: pathlib.Path) -> bool:
    """Whether a file is an index, by its name and its first character."""
    if not path.name.endswith(INDEX):
        return False
    with open(path, "rb") as file:
        return file.read(1) == b"{"


def check_whole(path: pathlib.Path) -> None:
    """Raises UserError where a file's name says that it is one of several."""
    part = PART.search(path.name)
    if part and int(part[2]) > 1:
        raise UserError(
            f"{path} is one of {int(part[2])} files of a checkpoint. Name its index or its folder: "
            f"--config.init_from={path.parent}"
        )


def in_folder(folder: pathlib.Path) -> pathlib.Path:
    """The index or the file that is a folder's checkpoint.

    Raises:
      UserError: there is none, or there are several.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    for suffix in SUFFIXES:
        kinds = [name for name in names if name.endswith(suffix + INDEX)]
        found = kinds or [name for name in names if name.endswith(suffix)]
        if len(found) > 1:
            raise UserError(
                f"{folder} holds {len(found)} checkpoints: {listed(found)}. Name one: "
                f"--config.init_from={folder / found[-1]}"
            )
        if found:
            return folder / found[0]
    raise UserError(
        f"{folder} holds no checkpoint: found {listed(names) or 'no file'}. Expected a run's workdir, or a folder with "
        f"one file {', '.join('*' + suffix for suffix in SUFFIXES)}, or with files and their *{INDEX}."
    )


def read(path: pathlib.Path, read_file: Callable[[pathlib.Path], Any]) -> dict[str, Any]:
    """Values by name, of all files of an index.

    Args:
      read_file: function of a file's path that gives its values by name.

    Raises:
      UserError: the index is damaged, or files or tensors of it are missing; all are listed.
    """
    places = _weight_map(path)
    files = sorted(set(places.values()))
    absent = [name for name in files if not (path.parent / name).is_file()]
    if absent:
        raise UserError(
            f"{path} lists {len(files)} files, of which {len(absent)} are missing beside it: {listed(absent)}. Fetch "
            "them too."
        )
    contents = {name: read_file(path.parent / name) for name in files}
    lost = [
        f"{name} in {file}"
        for name, file in places.items()
        if not isinstance(contents[file], dict) or name not in contents[file]
    ]
    if lost:
        raise damaged(path, f"its files lack {len(lost)} tensors that it lists: {listed(lost)}")
    return {name: contents[file][name] for name, file in places.items()}


def _weight_map(path: pathlib.Path) -> dict[str, str]:
    if path.stat().st_size > MAX_INDEX:
        raise damaged(path, f"it has more than {MAX_INDEX} bytes")
    try:
        places = json.loads(path.read_bytes())["weight_map"]
        outside = [file for file in places.values() if pathlib.PurePath(file).name != file]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, f"it has no weight_map of names and files ({error})") from error
    if outside or not places:
        raise damaged(path, f"it names files outside its folder: {listed(outside)}" if outside else "it names no file")
    return places
