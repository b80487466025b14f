"""Weights between this codebase and PyTorch's checkpoint files.

    model = convert.load_torch(model, "X.pth")         strict; prints what was resized, mapped or left out
    model, config = convert.model_from_torch("X.pth")  sizes read off the tensors
    convert.save_torch(model, "Y.pth")                 loads in the original code with strict=True

Values are kept, precision is not: everything is float32 here and in exported files. Half precision survives that
exactly. The classes' names are kept; other content of a file (optimizer, meta) is not.
"""

import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import PyTree
from ml_collections import ConfigDict

from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, loading, namings, sizes
from vspw_jax.interop.exported_tensors import joined_path, leaves_by_path, new_tensors
from vspw_jax.models import segmenter


def plan(config: ConfigDict, weights: Iterable[PyTree], path: pathlib.Path | str, key: str = "") -> loading.Plan:
    """How the file at `path` fits weights of a network of `config.model`; see `loading.plan`.

    Args:
      weights: nested dicts of params and model_state, arrays or shapes.
      key: which of the file's networks, see `checkpoint_file.read`.
    """
    return loading.plan(config, leaves_by_path(*weights), checkpoint_file.read(path, key))


def fill(plan: loading.Plan, weights: Iterable[dict[str, Any]]) -> None:
    """Replaces in nested dicts of arrays what the plan's file has, one leaf at a time; shardings stay."""

    def replace(tree: dict[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                replace(value, f"{prefix}{key}/")
            elif f"{prefix}{key}" in plan.pieces:
                tree[key] = _loaded(plan, f"{prefix}{key}", value)

    for tree in weights:
        replace(tree, "")


def _loaded(plan: loading.Plan, path: str, old: jax.Array) -> jax.Array:
    """The array at `path` from the plan's file, with the sharding of the array `old`."""
    array = plan.leaf(path, old.shape, old.dtype, lambda: np.asarray(old))
    return jax.make_array_from_callback(old.shape, old.sharding, array.__getitem__).block_until_ready()


def read_weights(
    plan: loading.Plan, weights: Iterable[PyTree[jax.ShapeDtypeStruct]], sharding: jax.sharding.Sharding | None = None
) -> list[PyTree[jax.Array]]:
    """The arrays of the plan's file, in the places of their shapes in nested dicts.

    Raises:
      UserError: the file does not give all of them.
    """
    unsettled = plan.unsettled()
    if unsettled:
        raise UserError(
            f"{plan.file.path} leaves {len(unsettled)} variables as initialised, such as {unsettled[0]}, so that only "
            "training makes use of it.\n" + plan.report()
        )

    def read(keys: Iterable[Any], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = joined_path(keys)
        # For a count of batches that the file lacks, and for what predicting does not need.
        zeros = lambda: np.zeros(leaf.shape, leaf.dtype)
        array = plan.leaf(name, leaf.shape, leaf.dtype, zeros) if name in plan.pieces else zeros()
        # jnp.asarray would keep the NumPy array beside its copy. Waiting lets it go before the next one is read.
        return jax.device_put(array, sharding).block_until_ready()

    return [jax.tree_util.tree_map_with_path(read, tree) for tree in weights]


def _variable(model: nnx.Module, keys: Iterable[str | int]) -> nnx.Variable:
    """The variable of a module at a path of attribute names and list positions."""
    node: Any = model
    for key in keys:
        node = node[key] if isinstance(key, int) else getattr(node, key)
    return node


def load_torch(model: segmenter.Segmenter, path: pathlib.Path | str, key: str = "") -> segmenter.Segmenter:
    """Fills a model from a PyTorch checkpoint, in place; returns the model. Prints what was done.

    Args:
      key: which of the file's networks, see `checkpoint_file.read`.

    Raises:
      UserError: a file that cannot be read or does not fit. The model is unchanged then, except where a tensor's bytes
        are damaged: that is found after the first parameters were replaced.
    """
    state = nnx.to_pure_dict(nnx.state(model))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    del state  # Else every old leaf would live until the last new one is read.
    the_plan = plan(model.config, [shapes], path, key)
    print(the_plan.report())
    for keys, _ in jax.tree_util.tree_leaves_with_path(shapes):
        name = joined_path(keys)
        if name in the_plan.pieces:
            variable = _variable(model, [key.key for key in keys])
            variable.set_value(_loaded(the_plan, name, variable.get_value()))
    return model


def model_from_torch(path: pathlib.Path | str, key: str = "") -> tuple[segmenter.Segmenter, ConfigDict]:
    """Model and config of a checkpoint of a whole network; `config.model` has the sizes read off its tensors.

    Prints what the tensors do not say and had to be assumed.

    Args:
      key: which of the file's networks, see `checkpoint_file.read`.

    Raises:
      UserError: a file that cannot be read, or that holds no whole network.
    """
    file = checkpoint_file.read(path, key)
    config, assumed = sizes.read(file)
    print(f"{path}: sizes {config.to_dict()}\nAssumed, as the tensors do not say: {'; '.join(assumed)}.")
    build = lambda key: nnx.split(segmenter.build(config, key))
    try:
        graphdef, abstract = jax.eval_shape(build, jax.random.key(0))
    except (UserError, ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{path}: its tensors' sizes make no network ({str(error).splitlines()[0]}).") from error
    state = nnx.to_pure_dict(abstract)
    the_plan = loading.plan(config, leaves_by_path(state), file)
    print(the_plan.report())
    return nnx.merge(graphdef, *read_weights(the_plan, [state])), ConfigDict({"model": config})


def save_weights(
    config: ConfigDict,
    weights: Iterable[PyTree],
    path: pathlib.Path | str,
    naming: str = "mmseg",
    classes: ClassList | None = None,
) -> bool:
    """Writes nested dicts of arrays of a network of `config.model`; see `save_torch`.

    Returns:
      Whether the file names the classes: it has a place for them, and the head that they are of.
    """
    if naming not in namings.NAMINGS:
        raise UserError(f"The naming is {naming!r}: expected one of {', '.join(namings.NAMINGS)}.")
    chosen = namings.NAMINGS[naming]
    named = classes if chosen.decoder is not None and checkpoint_file.holds_names(path, chosen.wrapper) else None
    checkpoint_file.write(path, new_tensors(config, weights, chosen), chosen.wrapper, named)
    return named is not None


def save_torch(
    model: segmenter.Segmenter, path: pathlib.Path | str, naming: str = "mmseg", classes: ClassList | None = None
) -> None:
    """Writes a model as .pth or .safetensors, buffers included; PyTorch's original code loads it with strict=True.

    Args:
      path: its suffix chooses the format.
      naming: a key of `namings.NAMINGS`. The network's encoder and decoder must have names in such files; the file
        holds what they name.
      classes: whose names and colours go into the file, as mmsegmentation has them in `meta`, and into the header of
        safetensors; a .pth of tensors alone has no place for them.

    Raises:
      UserError: an unknown naming or suffix, a naming for another network, or the file cannot be written.
    """
    save_weights(model.config, [nnx.to_pure_dict(nnx.state(model))], path, naming, classes)
