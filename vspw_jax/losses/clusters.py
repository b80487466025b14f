"""The loss that pulls a class's clusters to its class vectors: their squared distance, each vector's to the nearest.

Source: Simultaneously Short- and Long-Term Temporal Modeling for Semi-Supervised Video Semantic Segmentation (Lao et
al., CVPR 2023), supplementary, section 2.1, which names the loss. That only the nearest cluster is pulled, and that the
vectors are not, is a choice of this codebase.
Shapes: N images, K classes, G clusters of a class, C channels.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float


def nearest_mse(
    vectors_NKC: Float[Array, "N K C"],
    clusters_KGC: Float[Array, "K G C"],
    present_NK: Bool[Array, "N K"],
    total: Callable[[Array], Array] = lambda x: x,
) -> Float[Array, ""]:
    """The mean over the classes that images have of the mean squared difference to the nearest cluster.

    Args:
      vectors_NKC: class vectors; no gradient passes to them.
      present_NK: which of them count.
      total: adds over devices.

    Returns:
      A scalar, 0 where no image has a class. Where several devices share the batch, the loss is the sum of their parts.
    """
    difference = lax.stop_gradient(vectors_NKC)[:, :, None] - clusters_KGC
    nearest_NK = jnp.square(difference).mean(axis=-1).min(axis=-1)
    count = total(present_NK.sum().astype(jnp.float32))
    return jnp.where(present_NK, nearest_NK, 0.0).sum() / jnp.maximum(count, 1.0)
