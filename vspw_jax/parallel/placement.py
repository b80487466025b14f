"""Where batches and training states lie on a mesh (see `mesh.py`)."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from vspw_jax.parallel.mesh import DATA_AXES, FSDP, local_mesh
from vspw_jax.parallel.weight_shards import Shard


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, P())


def by_clip(mesh: Mesh, accumulate: int = 1) -> NamedSharding:
    """The axis of clips lies over the devices: the first, or the second where the first counts accumulated parts."""
    return NamedSharding(mesh, clip_spec(accumulate))


def clip_spec(accumulate: int = 1) -> P:
    """See `by_clip`."""
    return P(DATA_AXES) if accumulate == 1 else P(None, DATA_AXES)


def map_with_path(function: Callable[[str, Any], Any], tree: PyTree) -> PyTree:
    """Maps function(path, leaf) over a tree of dicts, tuples and named tuples; slashes join the path's names."""
    named = lambda keys, leaf: function(jax.tree_util.keystr(keys, simple=True, separator="/"), leaf)
    return jax.tree_util.tree_map_with_path(named, tree)


@dataclasses.dataclass(frozen=True)
class StateLayout:
    """Where the leaves of a training state lie: weights, their gradients, the optimizer's state, an average of weights.

    The end of its path identifies a leaf, so the same rules hold for params/encoder/... and for the moments of the
    optimizer, opt_state/1/mu/encoder/...

    Attributes:
      mesh: of the devices.
      whole_below: an array is not divided if it has fewer elements than this in each module.
      stacked: paths of weights that are stacked for a scan, and the number of their stacked axes, as
        `segmenter.stacked` gives them. The stacked axes are never divided, because a scan takes the weights of one
        module after the other.
    """

    mesh: Mesh
    whole_below: int
    stacked: dict[str, int]

    def divided_axis(self, path: str, shape: tuple[int, ...]) -> tuple[int, int | None]:
        """(number of axes of one module's array, the divided axis counted from the end, or None).

        The first axis that divides evenly is divided. Parts are then runs of memory. A TPU, which pads the last axis to
        128, wastes no memory.
        """
        parts = self.mesh.shape[FSDP]
        fitting = [axes for stack, axes in self.stacked.items() if re.search(rf"(^|/){stack}/", path)]
        own = shape[max(fitting, default=0) :]
        if parts == 1 or math.prod(own) < self.whole_below:
            return len(own), None
        return len(own), next(
            (axis - len(own) for axis, length in enumerate(own) if length and length % parts == 0), None
        )

    def specs(self, state: PyTree) -> PyTree[P]:
        """Partition specs of a state or a part of it (arrays or shapes)."""

        def spec(path: str, leaf: Any) -> P:
            _, axis = self.divided_axis(path, leaf.shape)
            return P() if axis is None else P(*[None] * (len(leaf.shape) + axis), FSDP)

        return map_with_path(spec, state)

    def shardings(self, state: PyTree) -> PyTree[NamedSharding]:
        """Where a state or a part of it (arrays or shapes) lies."""
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), self.specs(state))

    def placed_shapes(self, state: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and types of a state, and where it shall lie: to restore into, or to compile for."""
        return placed_shapes(state, self.shardings(state))

    def as_shards(self, params: PyTree[Array], shapes: PyTree, dtype: jnp.dtype) -> PyTree:
        """A device's parts of weights as `Shard`s, inside a mapped function; what is not divided stays an array.

        Args:
          params: the device's parts.
          shapes: the same tree of the whole weights.
          dtype: of the computation.
        """

        def wrap(part: Array, place: tuple[int, int | None]) -> Array | Shard:
            rank, axis = place
            return part if axis is None else Shard(part, rank, axis, FSDP, dtype)

        return jax.tree.map(
            wrap, params, map_with_path(lambda path, whole: self.divided_axis(path, whole.shape), shapes)
        )


def added_up(gradients: PyTree) -> PyTree[Array]:
    """The sum over all devices of their gradients, as arrays; those of shards are already summed along "fsdp"."""

    def one(gradient: Array | Shard) -> Array:
        if isinstance(gradient, Shard):
            return lax.psum(gradient.part, DATA_AXES[0])
        return lax.psum(gradient, DATA_AXES)

    return jax.tree.map(one, gradients, is_leaf=lambda leaf: isinstance(leaf, Shard))


def placed_shapes(tree: PyTree, shardings: PyTree[NamedSharding]) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes and types of a tree, and where it shall lie: to restore into, or to compile for."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree, shardings
    )


def replicated_shapes(mesh: Mesh, tree: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes and types of a tree as arrays that every device holds, to restore into."""
    return placed_shapes(tree, jax.tree.map(lambda _: replicated(mesh), tree))


def to_global(mesh: Mesh, batch: dict[str, np.ndarray], accumulate: int = 1) -> dict[str, Array]:
    """This process's part of a batch (a dict of arrays) as global arrays; the devices share its clips.

    Where the batch is accumulated, arrays get a leading axis: its parts.
    """
    place = by_clip(mesh, accumulate)
    if accumulate > 1:
        batch = {name: array.reshape(accumulate, -1, *array.shape[1:]) for name, array in batch.items()}
    return {name: jax.make_array_from_process_local_data(place, array) for name, array in batch.items()}


def gathered(mesh: Mesh, tree: PyTree[Array]) -> PyTree[Array]:
    """The tree with every array whole on every device."""
    return jax.jit(_itself, out_shardings=replicated(mesh))(tree)


def local(mesh: Mesh, tree: PyTree[Array]) -> PyTree[Array]:
    """Arrays that every device of a mesh holds whole, as arrays on its `local_mesh`; nothing is copied."""
    place = replicated(local_mesh(mesh))

    def one(array: Array) -> Array:
        parts = [shard.data for shard in array.addressable_shards]
        return jax.make_array_from_single_device_arrays(array.shape, place, parts)

    return jax.tree.map(one, tree)


def _itself(tree: PyTree) -> PyTree:  # A function of the module, so it is compiled only once.
    return tree
