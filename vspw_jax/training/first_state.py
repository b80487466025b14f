"""The state that a run begins with: of its newest checkpoint, of released weights, or drawn."""

import math

from vspw_jax.interop import convert
from vspw_jax.training import train_step


def first_state(config, transformation, checkpoints, mesh, at_most=math.inf):
    """The newest checkpoint of a step `at_most` or before; where there is none, `config.init_from` on drawn weights.

    Raises:
      UserError: a checkpoint cannot be read, all are damaged, or `config.init_from` does not fit.
    """
    if checkpoints.intact_step(at_most) is not None:
        return train_step.restore_state(config, transformation, checkpoints, mesh, at_most)
    released = None
    if config.init_from:
        _, *weights = train_step.describe(config)
        released = convert.plan(config.model, weights, config.init_from)  # Before anything is allocated.
        print(released.report())
    state = train_step.new_state(config, transformation, mesh)
    if released:
        convert.fill(released, [state["params"], state["model_state"]])
    return state
