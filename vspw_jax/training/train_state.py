"""The training state: a plain dict, new or restored, and where it lies on the devices.

Its parts: params; model_state (batch norms' running statistics, memories: what is not trained); opt_state; step;
bad_steps (those in a row whose loss or gradient was no number; see `non_finite.py`); and ema where the config keeps an
average of the weights (see `weight_average.py`).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from vspw_jax.checkpoints.checkpoint import Checkpoints
from vspw_jax.models import segmenter
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh, quick_compilation
from vspw_jax.tasks import task
from vspw_jax.training import weight_average

State = dict[str, Any]
"""PyTrees by the names of the parts."""


def split_model(model: segmenter.Segmenter) -> tuple[nnx.GraphDef, dict, dict]:
    """A model as (graphdef, params, model_state), the latter two plain nested dicts."""
    parts: Any = nnx.split(model, nnx.Param, ...)
    graphdef, params, model_state = parts
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(model_state)


def describe(config: ConfigDict) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """(graphdef, params, model_state) of the model of `config`, shapes in place of arrays: allocates nothing."""
    return jax.eval_shape(lambda key: split_model(segmenter.build(config.model, key)), jax.random.key(0))


def init_state(config: ConfigDict, optimizer: optax.GradientTransformation, key: Key[Array, ""]) -> State:
    """The state before the first step."""
    _, params, model_state = split_model(segmenter.build(config.model, key))
    state = {
        "params": params,
        "model_state": model_state,
        "opt_state": optimizer.init(params),
        "step": jnp.zeros((), jnp.int32),
        "bad_steps": jnp.zeros((), jnp.int32),
    }
    return state | ({"ema": weight_average.begin(params, model_state)} if weight_average.keeps(config) else {})


def mesh_of_run(config: ConfigDict) -> Mesh:
    """The mesh of all devices that the training of `config` runs on; UserError where they cannot share it evenly."""
    groups = task.build(config).contrast_groups()
    return make_mesh(config.train.batch, groups, fsdp=config.sharding.fsdp, accumulate=config.train.accumulate)


def layout(config: ConfigDict, mesh: Mesh) -> placement.StateLayout:
    """Where a state of `config` lies on a mesh."""
    return placement.StateLayout(mesh, config.sharding.whole_below, segmenter.stacked(config.model))


def state_shapes(config: ConfigDict, optimizer: optax.GradientTransformation, mesh: Mesh) -> State:
    """Shapes and types of the state, and where on the mesh it lies."""
    like = jax.eval_shape(functools.partial(init_state, config, optimizer), jax.random.key(0))
    return layout(config, mesh).placed_shapes(like)


def new_state(config: ConfigDict, optimizer: optax.GradientTransformation, mesh: Mesh) -> State:
    """The state before the first step, its weights drawn from `config.seed`, where on the mesh it belongs."""
    init = jax.jit(
        functools.partial(init_state, config, optimizer),
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, state_shapes(config, optimizer, mesh)),
        compiler_options=quick_compilation(),
    )
    return init(jax.random.key(config.seed))


def restore_state(
    config: ConfigDict,
    optimizer: optax.GradientTransformation,
    checkpoints: Checkpoints,
    mesh: Mesh,
    at_most: float = math.inf,
) -> State:
    """The state of the newest checkpoint, of a step `at_most` or before, where on the mesh it belongs, whatever devices
    it was saved from."""
    return checkpoints.restore(state_shapes(config, optimizer, mesh), at_most)


def restore_weights(
    config: ConfigDict, checkpoints: Checkpoints, mesh: Mesh, at_most: float = math.inf
) -> tuple[nnx.GraphDef, State]:
    """(graphdef, params and model_state) of the newest checkpoint, of a step `at_most` or before.

    They are the trained ones, or their average where `evaluate.weights` is "ema".
    """
    graphdef, params, model_state = describe(config)
    like: State = {"params": params, "model_state": model_state}
    if config.evaluate.weights == "ema":
        return graphdef, checkpoints.restore(placement.replicated_shapes(mesh, {"ema": like}), at_most)["ema"]
    return graphdef, checkpoints.restore(placement.replicated_shapes(mesh, like), at_most)
