"""Weights that lie in parts on the devices, and are put together where they are used.

A weight of stacked modules is put together inside the scan over them, one module's at a time, so that no device ever
holds them all (fully sharded data parallelism: Rajbhandari et al., ZeRO, arXiv 1910.02054, stage 3).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["part"], meta_fields=["rank", "axis", "over", "dtype"]
)
@dataclasses.dataclass(frozen=True)
class Shard:
    """This device's part of a weight, inside a function that is mapped over devices.

    Attributes:
      part: the array; a scan over stacked modules takes its leading axes off.
      rank: axes of one module's weight.
      axis: the one that is divided, counted from the end and so negative.
      over: the mapped axis whose devices hold the parts.
      dtype: what the whole is put together in, that of the computation.
    """

    part: jax.Array
    rank: int
    axis: int
    over: str
    dtype: jnp.dtype


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def whole(part, axis, over, dtype):
    """The weight, its axis `axis` gathered from the devices along `over`; they send it in `dtype`.

    The gradient is summed over them in float32 and each keeps its part: sums in bfloat16 would lose what many devices
    add to each other.
    """
    return lax.all_gather(part.astype(dtype), over, axis=axis % part.ndim, tiled=True)


def _whole_forward(part, axis, over, dtype):
    return whole(part, axis, over, dtype), None


def _whole_backward(axis, over, dtype, _, gradient):
    gradient = gradient.astype(jnp.float32)
    return (lax.psum_scatter(gradient, over, scatter_dimension=axis % gradient.ndim, tiled=True),)


whole.defvjp(_whole_forward, _whole_backward)


def put_together(variables):
    """The tree with the weights of single modules in place of their shards; what is still stacked stays in parts."""

    def one(leaf):
        due = isinstance(leaf, Shard) and leaf.part.ndim == leaf.rank
        return whole(leaf.part, leaf.axis, leaf.over, leaf.dtype) if due else leaf

    return jax.tree.map(one, variables, is_leaf=lambda leaf: isinstance(leaf, Shard))
