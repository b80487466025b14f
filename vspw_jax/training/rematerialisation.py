"""What the backward pass computes again: with `model.remat="auto"` as little as the memory of the devices asks for.

To compute again takes time and to keep takes memory. The step is compiled with one policy of `layers.REMAT_POLICIES`
after the other until one fits.
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.observe.run_log import LOG
from vspw_jax.parallel import processes
from vspw_jax.training import train_state, train_step

AUTO = "auto"
FROM_LEAST = ("none", "dots", "full")
"""Policies that "auto" tries, from the least to the most rematerialisation."""

SHARE = 0.9
"""Of a device's memory that a step may need. The rest is for the next batch and for gaps between arrays."""


def with_policy(config: ConfigDict, policy: str) -> ConfigDict:
    """The whole config with another `model.remat`."""
    config = copy.deepcopy(config).unlock()
    config.model.remat = policy
    return config


def possible_steps(
    config: ConfigDict, graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation, mesh: Mesh
) -> dict[str, Any]:
    """The jitted steps, not compiled yet, that the run may take, by policy in the order of `FROM_LEAST`."""
    if config.model.remat != AUTO:
        return {config.model.remat: train_step.make_train_step(config, graphdef, optimizer, mesh)}
    made = {}
    for policy in FROM_LEAST:
        chosen = with_policy(config, policy)
        made[policy] = train_step.make_train_step(chosen, train_state.describe(chosen)[0], optimizer, mesh)
    return made


def bytes_limit(device: jax.Device) -> int | None:
    """Bytes that programs may use of a device; None where it does not say, as CPUs."""
    return (device.memory_stats() or {}).get("bytes_limit")


def least_limit(mesh: Mesh) -> int | None:
    """The least `bytes_limit` of a mesh's devices; None where one does not say. All processes must call it."""
    limits = processes.gathered([bytes_limit(device) for device in mesh.local_devices])
    flat = [limit for of_process in limits for limit in of_process]
    return None if None in flat else min(flat)


def step_bytes(program: jax.stages.Compiled) -> int:
    """What a compiled step needs of each device: state, batch, what it gives back and what it computes on the way."""
    memory: Any = program.memory_analysis()
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return kept + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes


def fitting_step(steps: Mapping[str, Any], compiled: Callable[..., Any], mesh: Mesh, *inputs: Any) -> Callable:
    """The first of `steps` that fits into the memory of the devices, compiled; an only one whether it fits or not.

    All processes must call it, and take the same policy. Where devices do not say how much memory they have, that is
    the last one. The last one may need all of the memory, the others `SHARE` of it.

    Args:
      steps: see `possible_steps`.
      compiled: makes a program of a jitted step and its inputs.

    Raises:
      UserError: none fits.
    """
    if len(steps) == 1:
        return compiled(*steps.values(), *inputs)
    last, limit = list(steps)[-1], least_limit(mesh)
    if limit is None:
        LOG.info("model.remat=auto: %s, as the devices do not say how much memory they have", last)
        return compiled(steps[last], *inputs)
    tries = []
    for policy, step in steps.items():
        program = _unless_too_large(compiled, step, *inputs)
        # Each process compiles for itself: what is too large in one is too large for all.
        needed = max(processes.gathered(step_bytes(program) if program else math.inf))
        tries.append(f"{policy} {_gib(needed)}" if needed < math.inf else f"{policy} too much to be compiled")
        if program and needed <= limit * (1 if policy == last else SHARE):
            LOG.info("model.remat=auto: %s. A step needs, of %s a device: %s", policy, _gib(limit), ", ".join(tries))
            return program
        del program  # Before the next one comes.
    raise UserError(
        f"The step does not fit into the {_gib(limit)} of a device, whatever it computes again (model.remat=auto): "
        f"{', '.join(tries)}.\nDivide the state among devices with --config.sharding.fsdp=0. Or, with another "
        "--workdir=DIR, set --config.train.accumulate=2 or more, or a smaller --config.train.batch or "
        "--config.model.image_size."
    )


def _unless_too_large(compiled: Callable[..., Any], step: Any, *inputs: Any) -> Any:
    """The program of a jitted step; None where the compiler itself finds it too large for a device."""
    try:
        return compiled(step, *inputs)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
