"""The device mesh, and how batches and state lie on it.

The mesh has two axes, "data" and "fsdp", and a batch is shared among all its devices. Along "data" the state is
repeated, along "fsdp" each device holds a part of it: weights, gradients and optimizer state (fully sharded data
parallelism). With an axis of one device there is none of either.
"""

import math
import re

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vspw_jax.console.errors import UserError
from vspw_jax.models.layers import DATA_AXES
from vspw_jax.parallel.weight_shards import Shard

FSDP = DATA_AXES[1]

STACKED = (
    (r"(^|/)encoder/interactions/blocks/", 2),
    (r"(^|/)encoder/interactions/", 1),
    (r"(^|/)encoder/blocks/", 2),
    (r"(^|/)pixel_decoder/encoder/", 1),
)
"""Paths of weights that are stacked, and along how many leading axes; the first that is found in a path counts. Such
weights are never divided along those axes: a scan takes one module's after the other."""


def make_mesh(batch=None, nce_groups=0, devices=None, fsdp=1, accumulate=1):
    """A mesh of devices (default: all); given a training batch, checks that they can share it.

    Devices of one process stand side by side, so that each process has a run of the batch's clips.

    Args:
      batch: clips a step.
      nce_groups: contrastive groups of a step, or of one of its parts where it is accumulated.
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


def _check_shares(batch, nce_groups, count, accumulate):
    """Raises UserError where devices cannot share a batch or its contrastive groups evenly."""
    if accumulate < 1 or batch % (count * accumulate):
        parts = f" in {accumulate} parts one after the other (train.accumulate)" if accumulate != 1 else ""
        raise UserError(
            f"train.batch is {batch} clips, which {count} devices cannot share evenly{parts}. "
            f"Set --config.train.batch to a multiple of {count * max(accumulate, 1)}."
        )
    part = batch // accumulate
    if nce_groups and (part % nce_groups or (nce_groups % count and count % nce_groups)):
        raise UserError(
            f"loss.nce.groups is {nce_groups * accumulate}: expected a divisor of the batch of {batch} clips that is a "
            f"multiple or a divisor of the {count} devices{f' times {accumulate}' if accumulate > 1 else ''}. Set "
            f"--config.loss.nce.groups={count * accumulate} (its value changes what is contrasted with what)."
        )


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


def by_clip(mesh, accumulate=1):
    """The first axis lies over the devices; the second where a first counts the parts of an accumulated batch."""
    return NamedSharding(mesh, clip_spec(accumulate))


def clip_spec(accumulate=1):
    """See `by_clip`."""
    return P(DATA_AXES) if accumulate == 1 else P(None, DATA_AXES)


def map_with_path(function, tree):
    """Maps function(path, leaf) over a tree of dicts, tuples and named tuples, the path's names joined by slashes."""
    named = lambda keys, leaf: function(jax.tree_util.keystr(keys, simple=True, separator="/"), leaf)
    return jax.tree_util.tree_map_with_path(named, tree)


def divided_axis(path, shape, parts, whole_below):
    """(axes of one module's array, which of them is divided in `parts`, counted from the end, or None).

    It is the first that divides evenly: parts are then runs of memory, and a TPU, which pads the last axis to 128,
    wastes none. Arrays of fewer than `whole_below` elements, a module, are not divided.
    """
    stacked = next((count for pattern, count in STACKED if re.search(pattern, path)), 0)
    own = shape[stacked:]
    if parts == 1 or math.prod(own) < whole_below:
        return len(own), None
    return len(own), next((axis - len(own) for axis, length in enumerate(own) if length and length % parts == 0), None)


def state_specs(mesh, state, config):
    """Partition specs of a training state or a part of it (arrays or shapes); `config` is `config.sharding`."""

    def spec(path, leaf):
        _, axis = divided_axis(path, leaf.shape, mesh.shape[FSDP], config.whole_below)
        return P() if axis is None else P(*[None] * (len(leaf.shape) + axis), FSDP)

    return map_with_path(spec, state)


def state_shardings(mesh, state, config):
    """Where a training state or a part of it (arrays or shapes) lies; `config` is `config.sharding`."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), state_specs(mesh, state, config))


def as_shards(mesh, params, shapes, config, dtype):
    """A device's parts of weights, inside a mapped function, as `Shard`s; what is not divided stays an array.

    Args:
      params: the device's parts.
      shapes: the same tree of the whole weights.
      config: `config.sharding`.
      dtype: of the computation.
    """

    def shard(path, whole):
        return divided_axis(path, whole.shape, mesh.shape[FSDP], config.whole_below)

    def wrap(part, place):
        rank, axis = place
        return part if axis is None else Shard(part, rank, axis, FSDP, dtype)

    return jax.tree.map(wrap, params, map_with_path(shard, shapes))


def added_up(gradients):
    """A device's gradients added up over all; those of shards are already, along "fsdp". Gives arrays for shards."""

    def one(gradient):
        if isinstance(gradient, Shard):
            return lax.psum(gradient.part, DATA_AXES[0])
        return lax.psum(gradient, DATA_AXES)

    return jax.tree.map(one, gradients, is_leaf=lambda leaf: isinstance(leaf, Shard))


def placed_shapes(tree, shardings):
    """Shapes and types of a tree with where it is to lie, to restore into or to compile for."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree, shardings
    )


def replicated_shapes(mesh, tree):
    """Shapes and types of a tree as arrays that every device holds, to restore into."""
    return placed_shapes(tree, jax.tree.map(lambda _: replicated(mesh), tree))


def to_global(mesh, batch, accumulate=1):
    """This process's part of a batch (a dict of arrays) as global arrays, its clips shared by the devices.

    Where the batch is accumulated, arrays get a leading axis: its parts.
    """
    place = by_clip(mesh, accumulate)
    if accumulate > 1:
        batch = {name: array.reshape(accumulate, -1, *array.shape[1:]) for name, array in batch.items()}
    return {name: jax.make_array_from_process_local_data(place, array) for name, array in batch.items()}


def gathered(mesh, tree):
    """The tree with every array whole on every device."""
    return jax.jit(_itself, out_shardings=replicated(mesh))(tree)


def local_mesh(mesh):
    """The mesh of those of its devices that are this process's: what runs on it waits for no other process."""
    return make_mesh(devices=mesh.local_devices)


def local(mesh, tree):
    """Arrays that every device of a mesh holds whole, as arrays on its `local_mesh`; nothing is copied."""
    place = replicated(local_mesh(mesh))

    def one(array):
        parts = [shard.data for shard in array.addressable_shards]
        return jax.make_array_from_single_device_arrays(array.shape, place, parts)

    return jax.tree.map(one, tree)


def _itself(tree):  # Not made anew at every call, so that it is compiled once.
    return tree
