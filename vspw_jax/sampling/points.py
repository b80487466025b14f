"""Maps at points that a loss draws: on TPUs by kernels, elsewhere by gathers.

A TPU takes as long for a gathered number as for thousands of products. Shapes: M maps or masks, H and W their cells,
P points of each as (x, y) in [0, 1].
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from vspw_jax.sampling import bilinear, point_kernel

Points = Float[Array, "M P 2"]
Wanted = Bool[Array, " M"] | bool
"""Whether what is at the points is asked for. If not it may be anything: a kernel spends no time on it."""

EXACT_UP_TO = 256
"""The largest integer up to which the two bytes of a bfloat16 hold all."""


def _has_kernels() -> bool:
    return jax.default_backend() == "tpu"


def _if(wanted_M: Wanted, points_MP2: Points) -> Points:
    return jnp.where(jnp.reshape(jnp.asarray(wanted_M), (-1, 1, 1)), points_MP2, point_kernel.OFF_THE_MAP)


def sample(
    map_MHW: Float[Array, "M H W"], points_MP2: Points, wanted_M: Wanted = True, exact: bool = True
) -> Float[Array, "M P"]:
    """Bilinear samples of each map at its points, as `bilinear.sample`; no gradient passes to the points.

    Args:
      exact: if not, no gradient passes to the maps either, and a TPU takes about 0.6 of the time for samples off by at
        most 5e-5 of the mean size of the cells around (see `point_kernel`): for what is only put into an order.
    """
    map_MHW, points_MP2 = map_MHW if exact else lax.stop_gradient(map_MHW), lax.stop_gradient(points_MP2)
    if _has_kernels():
        return point_kernel.sample(map_MHW, _if(wanted_M, points_MP2), exact)
    return jax.vmap(bilinear.sample)(map_MHW[..., None], points_MP2)[..., 0]


def sample_all(map_MHW: Float[Array, "M H W"], points_P2: Float[Array, "P 2"]) -> Float[Array, "M P"]:
    """The same of all maps at the same points, for the costs of a matching: not exact, and with no gradient."""
    map_MHW, points_P2 = lax.stop_gradient((map_MHW, points_P2))
    if _has_kernels():
        return point_kernel.sample_all(map_MHW, points_P2)
    return bilinear.sample(map_MHW.transpose(1, 2, 0), points_P2).T


def corner_values(
    map_HW: Int[Array, "H W"], points_MP2: Points, most: int, wanted_M: Wanted = True
) -> Int[Array, "M P 4"]:
    """The integers of one map, 0 to `most`, in the cells of `bilinear.corners`."""
    if not _has_kernels():
        index_MP4, _ = bilinear.corners(points_MP2, *map_HW.shape)
        return jnp.asarray(map_HW).reshape(-1).at[index_MP4].get(mode="clip")
    points_MP2 = _if(wanted_M, points_MP2)
    if most <= EXACT_UP_TO:
        return point_kernel.corner_values(map_HW, points_MP2)
    high, low = (point_kernel.corner_values(digit, points_MP2) for digit in jnp.divmod(map_HW, EXACT_UP_TO))
    return EXACT_UP_TO * high + low


def with_least(key_MP: Float[Array, "M P"], points_MP2: Points, count: int) -> Points:
    """Of each mask the `count` points with the least keys, in the order of these."""
    if not _has_kernels():
        _, index_MP = lax.top_k(-key_MP, count)
        return jnp.take_along_axis(points_MP2, index_MP[..., None], axis=1)
    _, *columns = lax.sort((key_MP, points_MP2[..., 0], points_MP2[..., 1]), dimension=1, num_keys=1)
    return jnp.stack(columns, axis=-1)[:, :count]  # They moved with their keys.
