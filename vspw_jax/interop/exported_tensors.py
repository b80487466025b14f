"""The tensors of a file that we write, made of our arrays."""

import collections
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from vspw_jax.interop import namings
from vspw_jax.interop.stored_tensors import NewTensor
from vspw_jax.models.torch_rows import Row


def joined_path(keys: Iterable[Any]) -> str:
    """A leaf's place in nested dicts, as names joined by slashes."""
    return "/".join(str(key.key) for key in keys)


def leaves_by_path(*trees: PyTree) -> dict[str, Any]:
    """Leaves of nested dicts by their slash-joined path."""
    return {joined_path(keys): leaf for tree in trees for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _joined(rows: Sequence[Row], leaves: dict[str, Any]) -> np.ndarray:
    """The whole tensor in PyTorch's axes, made of all rows that have its key."""
    parts = [row.view(np.asarray(leaves[row.ours])) for row in sorted(rows, key=lambda row: row.part or (0, 1))]
    whole = np.concatenate(parts) if rows[0].part else parts[0]
    return whole.reshape(rows[0].their_shape(leaves[rows[0].ours].shape))


def _dtype(ours: np.dtype) -> np.dtype:
    """The type that an array has in files, as PyTorch keeps its like."""
    if jnp.issubdtype(ours, jnp.bool_):
        return np.dtype(np.bool_)
    return np.dtype(np.int64 if jnp.issubdtype(ours, jnp.integer) else np.float32)


def new_tensors(config: ConfigDict, weights: Iterable[PyTree], naming: namings.Naming) -> dict[str, NewTensor]:
    """Tensors by name for a file of `naming`, from nested dicts of arrays of a network of `config.model`."""
    leaves = leaves_by_path(*weights)
    rows_by_key = collections.defaultdict(list)
    for row in naming.rows(config, ()):
        rows_by_key[row.theirs].append(row)
    tensors = {}
    for key, rows in rows_by_key.items():
        leaf = leaves[rows[0].ours]
        make = functools.partial(_joined, rows, leaves)
        tensors[key] = NewTensor(rows[0].their_shape(leaf.shape), _dtype(leaf.dtype), make)
        for buffer in rows[0].buffers(tuple(config.image_size)):
            tensors[buffer.theirs] = NewTensor(buffer.shape, buffer.dtype, buffer.make)
    return tensors
