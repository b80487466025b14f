"""The last layer of per-pixel decoders.

Shapes: N images, H and W cells, C channels or classes.
"""

import jax.numpy as jnp
from flax import nnx

from vspw_jax.models import layers


class Classifier(nnx.Module):
    """Drop-out in training, then a class of every cell; float32 logits.

    Args:
      dim: width of the features.
      dropout: the share that is dropped.
      dropped: what is dropped, a key of `layers.DROPPED`.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        dropout: float,
        dropped: str = "channels",
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.dropout, self.dropped = dropout, dropped
        self.conv = layers.linear(dim, num_classes, kernel_init=nnx.initializers.normal(0.01), dtype=dtype, rngs=rngs)

    def __call__(self, x_NHWC: layers.Map, keys_N: layers.Keys) -> layers.Map:
        return self.conv(layers.DROPPED[self.dropped](x_NHWC, self.dropout, keys_N)).astype(jnp.float32)
