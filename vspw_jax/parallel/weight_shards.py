"""Weights that lie in parts on the devices, and are put together where they are used.

The scan over stacked modules puts together the weights of one module at a time, so no device ever holds all of them
(fully sharded data parallelism: Rajbhandari et al., ZeRO, arXiv 1910.02054, stage 3). On GPUs the modules follow each
other without a loop, and the compiler may hold those of many (benchmarks/RESULTS.md, "Compiled for GPUs").
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["part"], meta_fields=["rank", "axis", "over", "dtype"]
)
@dataclasses.dataclass(frozen=True)
class Shard:
    """This device's part of a weight, inside a function that is mapped over devices.

    Attributes:
      part: the array; a scan over stacked modules takes its leading axes off.
      rank: number of axes of one module's weight.
      axis: the divided axis, counted from the end, so it is negative.
      over: the mapped axis whose devices hold the parts.
      dtype: that of the computation; the whole has it.
    """

    part: Float[Array, "..."]
    rank: int
    axis: int
    over: str
    dtype: jnp.dtype


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def whole(part: Float[Array, "..."], axis: int, over: str, dtype: jnp.dtype) -> Float[Array, "..."]:
    """The weight: its axis `axis` is gathered from the devices along `over`, which send their parts in `dtype`.

    The gradient is summed over these devices in float32, and each keeps its part of the sum. In bfloat16 a sum over
    many devices would lose small parts.
    """
    return lax.all_gather(part.astype(dtype), over, axis=axis % part.ndim, tiled=True)


def _whole_forward(part: Array, axis: int, over: str, dtype: jnp.dtype) -> tuple[Array, None]:
    return whole(part, axis, over, dtype), None


def _whole_backward(axis: int, over: str, dtype: jnp.dtype, _: None, gradient: Array) -> tuple[Array]:
    gradient = gradient.astype(jnp.float32)
    return (lax.psum_scatter(gradient, over, scatter_dimension=axis % gradient.ndim, tiled=True),)


whole.defvjp(_whole_forward, _whole_backward)


def put_together(variables: PyTree) -> PyTree:
    """The tree with the weights of single modules in place of their shards; what is still stacked stays in parts."""

    def one(leaf: Array | Shard) -> Array | Shard:
        if isinstance(leaf, Shard) and leaf.part.ndim == leaf.rank:
            return whole(leaf.part, leaf.axis, leaf.over, leaf.dtype)
        return leaf

    return jax.tree.map(one, variables, is_leaf=lambda leaf: isinstance(leaf, Shard))
