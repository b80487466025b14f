"""What a network remembers in the middle of a video, kept beside its predictions for an interrupted run to go on."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from vspw_jax.console.errors import UserError
from vspw_jax.files.whole_files import whole_file

FILE = "memory.npz"


@dataclasses.dataclass(frozen=True)
class KeptMemory:
    """What is remembered after the first frames of a video, all of which have their masks.

    Attributes:
      names: of these frames.
      shape: (height, width, 3) of the last of them.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    memory: PyTree[Array]


def save(folder: pathlib.Path, kept: KeptMemory) -> None:
    """Writes it into a folder of predictions, whole or not at all."""
    leaves = enumerate(jax.tree.leaves(kept.memory))
    arrays: dict[str, Any] = {f"leaf_{number}": np.asarray(leaf) for number, leaf in leaves}
    with whole_file(folder / FILE) as partial:
        np.savez(partial, names=np.array(kept.names), shape=np.array(kept.shape), **arrays)


def load(folder: pathlib.Path, first_memory: Callable[[int, int], PyTree[Array]]) -> KeptMemory | None:
    """What an earlier run has kept; None where there is none.

    Args:
      first_memory: see `Predictor.first_memory`; tells what the network's memory is made of.

    Raises:
      UserError: the file is damaged, or is no memory of this network.
    """
    path = folder / FILE
    if not path.exists():
        return None
    advice = f"Delete {path}: the video is then predicted anew from its first frame."
    try:
        with path.open("rb") as file, np.load(file) as stored:
            arrays = dict(stored)
        names, shape = tuple(arrays.pop("names").tolist()), tuple(arrays.pop("shape").tolist())
    except Exception as error:  # zipfile, zlib and NumPy each have their own.
        raise UserError(f"{path} is damaged ({error}). {advice}") from error
    like, tree = jax.tree.flatten(first_memory(*shape[:2]))
    leaves = [arrays[f"leaf_{number}"] for number in range(len(arrays))]
    found, expected = ([(leaf.shape, leaf.dtype.name) for leaf in some] for some in (leaves, like))
    if found != expected:
        raise UserError(f"{path} does not fit this network: found arrays {found}, expected {expected}. {advice}")
    return KeptMemory(names, shape, jax.tree.unflatten(tree, leaves))
