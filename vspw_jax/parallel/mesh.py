"""The device mesh, and XLA's options for programs on it.

The mesh has two axes, "data" and "fsdp". All its devices share a batch. Along "data" the state is repeated. Along
"fsdp" each device holds a part of it: weights, gradients and optimizer state (fully sharded data parallelism). An axis
of one device neither repeats nor divides.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from vspw_jax.console.errors import UserError

DATA_AXES = ("data", "fsdp")
"""Names of the mesh axes that share a batch; in training, batch statistics are averaged over them."""
FSDP = DATA_AXES[1]


def make_mesh(
    batch: int | None = None,
    nce_groups: int = 0,
    devices: Sequence[jax.Device] | None = None,
    fsdp: int = 1,
    accumulate: int = 1,
) -> Mesh:
    """A mesh of devices (default: all). Where a training batch is given, checks that they can share it.

    Devices of one process are neighbours, so each process has a run of the batch's clips.

    Args:
      batch: clips of a step.
      nce_groups: contrastive groups of a step, or of one part of it where the step is accumulated.
      fsdp: devices among which each copy of the state is divided; 0 is all.
      accumulate: parts of a batch that follow each other.

    Raises:
      UserError: the batch, the contrastive groups or the devices do not divide evenly.
    """
    devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    count = len(devices)
    fsdp = fsdp or count
    if fsdp < 0 or count % fsdp:
        raise UserError(
            f"sharding.fsdp is {fsdp}: expected a divisor of the {count} devices, or 0 for all. "
            f"Set --config.sharding.fsdp={math.gcd(count, fsdp)}."
        )
    if batch is not None:
        _check_shares(batch, nce_groups, count, accumulate)
    shape = (count // fsdp, fsdp)
    return Mesh(np.array(devices).reshape(shape), DATA_AXES, axis_types=(AxisType.Auto,) * 2)


def _check_shares(batch: int, nce_groups: int, count: int, accumulate: int) -> None:
    """Raises UserError where devices cannot share a batch or its contrastive groups evenly."""
    if accumulate < 1 or batch % (count * accumulate):
        parts = f" in {accumulate} parts one after the other (train.accumulate)" if accumulate != 1 else ""
        raise UserError(
            f"train.batch is {batch} clips, and {count} devices cannot share them evenly{parts}. "
            f"Set --config.train.batch to a multiple of {count * max(accumulate, 1)}."
        )
    part = batch // accumulate
    if nce_groups and (part % nce_groups or (nce_groups % count and count % nce_groups)):
        raise UserError(
            f"loss.nce.groups is {nce_groups * accumulate}: expected a divisor of the batch of {batch} clips that is a "
            f"multiple or a divisor of the {count} devices{f' times {accumulate}' if accumulate > 1 else ''}. Set "
            f"--config.loss.nce.groups={count * accumulate} (it decides which clips are contrasted with each other)."
        )


def local_mesh(mesh: Mesh) -> Mesh:
    """The mesh of this process's devices alone: what runs on it waits for no other process."""
    return make_mesh(devices=mesh.local_devices)


def compiler_options(mesh: Mesh) -> dict[str, str] | None:
    """XLA's options for a program on the devices of a mesh.

    On CPU, XLA by default orders operations for concurrency, which keeps many results in memory at once: the base
    network's step at crop 480 then takes 3.7 GiB in place of 2.9, and a tenth more time.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if on_cpu else None


def quick_compilation() -> dict[str, int] | None:
    """XLA's options for a program that runs once, or never: on CPU, optimisation takes longer than it saves."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
