"""The operation of a training step that made the first NaN, by JAX's checks of every operation's result."""

import pathlib
from typing import Any

import jax
from flax import nnx
from jax.experimental import checkify
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vspw_jax.parallel.mesh import quick_compilation
from vspw_jax.training import train_step
from vspw_jax.training.train_state import State

PACKAGE = pathlib.Path(__file__).parents[1]

SHOWN = 3
"""Lines of this package that are named, the innermost first."""


def _place(traceback: Any) -> str:
    """Where the operation stands: lines of this package, innermost first, or of JAX, which forgets who called it."""
    frames = [(pathlib.Path(frame.file_name), frame) for frame in traceback.frames]
    own = [(path, frame) for path, frame in frames if PACKAGE in path.parents]
    lines = [f"{path.parent.name}/{path.name}:{at.line_num} ({at.function_name})" for path, at in own or frames]
    return ", called at ".join(lines[:SHOWN] if own else lines[-1:])


def _first(error: Any) -> Any:
    """The error of one device, where several have one each."""
    while hasattr(error, "error_mapping"):
        error = next(iter(error.error_mapping.values()))
    return error


def describe(config: ConfigDict, graphdef: nnx.GraphDef, mesh: Mesh, state: State, batch: dict[str, jax.Array]) -> str:
    """A sentence that names the operation, in the loss or its gradient, and where it stands in the code.

    Args:
      state: before the step.
      batch: on the devices.
    """
    gradients = train_step.make_mapped_gradients(config, graphdef, mesh)
    checked = jax.jit(checkify.checkify(gradients, checkify.nan_checks), compiler_options=quick_compilation())
    error, _ = checked(*train_step.inputs_of(config, state, batch, train_step.seed_of(config)))
    found = _first(error.get_exception())
    if found is None:
        return "No operation of the loss or its gradient made a NaN: a number became infinite, or overflowed later on."
    return f"The first NaN came from {found.prim}, at {_place(found.traceback_info)}."
