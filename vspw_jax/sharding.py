"""The device mesh, and how batches and state lie on it."""

import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from vspw_jax.errors import UserError
from vspw_jax.models.layers import DATA_AXIS


def make_mesh(batch=None, nce_groups=0, devices=None):
    """A mesh of devices (default: all) along the data axis; given a training batch, checks that they can share it.

    Raises:
      UserError: the batch, or the contrastive groups, do not divide evenly.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if batch is not None and batch % count:
        raise UserError(
            f"train.batch is {batch} clips, which {count} devices cannot share evenly. "
            f"Set --config.train.batch to a multiple of {count}."
        )
    if nce_groups and (batch % nce_groups or (nce_groups % count and count % nce_groups)):
        raise UserError(
            f"loss.nce.groups is {nce_groups}: expected a divisor of the batch of {batch} clips that is a multiple or "
            f"a divisor of the {count} devices. Set --config.loss.nce.groups={count} (its value changes what is "
            "contrasted with what)."
        )
    return jax.make_mesh((count,), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def compiler_options(mesh):
    """XLA's options for a program on the devices of a mesh.

    On CPU it would order operations for concurrency, which keeps many results alive at once: the base network's step
    at crop 480 then takes 3.7 GiB in place of 2.9, and a tenth more time.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if on_cpu else None


def quick_compilation():
    """XLA's options for a program that runs once, or never: on CPU compiling costs more than it saves."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


def replicated(mesh):
    """Every device holds the whole array."""
    return NamedSharding(mesh, P())


def by_clip(mesh):
    """The first axis lies over the devices."""
    return NamedSharding(mesh, P(DATA_AXIS))


def replicated_shapes(mesh, tree):
    """Shapes and types of a tree as arrays that every device holds, to restore into."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)), tree)


def to_global(mesh, batch):
    """This host's part of a batch (a dict of arrays) as global arrays, their first axis over the devices."""
    return {name: jax.make_array_from_process_local_data(by_clip(mesh), array) for name, array in batch.items()}
