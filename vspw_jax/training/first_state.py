"""The state that a run begins with: of its newest checkpoint, of released weights, or drawn."""

import math

import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vspw_jax.checkpoints.checkpoint import Checkpoints
from vspw_jax.interop import convert
from vspw_jax.training import non_finite, train_state, weight_average


def first_state(
    config: ConfigDict,
    optimizer: optax.GradientTransformation,
    checkpoints: Checkpoints,
    mesh: Mesh,
    at_most: float = math.inf,
) -> train_state.State:
    """The newest checkpoint of a step `at_most` or before; where there is none, `config.init_from` on drawn weights.

    Raises:
      UserError: a checkpoint cannot be read, all are damaged, or `config.init_from` does not fit or holds NaN.
    """
    if checkpoints.intact_step(at_most) is not None:
        return train_state.restore_state(config, optimizer, checkpoints, mesh, at_most)
    released = None
    if config.init_from:
        _, *weights = train_state.describe(config)
        released = convert.plan(
            config.model, weights, config.init_from, config.init_from_key
        )  # Before anything is allocated.
        print(released.report())
    state = train_state.new_state(config, optimizer, mesh)
    if released:
        convert.fill(released, [state["params"], state["model_state"]])
        non_finite.check_weights({name: state[name] for name in ("params", "model_state")}, config.init_from)
        if weight_average.keeps(config):
            state["ema"] = weight_average.begin(state["params"], state["model_state"])
    return state
