"""SegFormer's feed-forward layers on a map, which tell it where its cells are."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from vspw_jax.models import layers
from vspw_jax.models.convolution import depthwise


class MixFeedForward(nnx.Module):
    """Linear, depthwise 3x3, exact GELU, linear.

    Source: arXiv 2105.15203, equation 3 but for the residual; NVlabs/SegFormer mmseg/models/backbones/
    mix_transformer.py.
    """

    def __init__(self, dim: int, hidden: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        init = nnx.initializers.normal(math.sqrt(2 / 9))  # The source: sqrt(2 / fan out), groups apart.
        self.fc1 = layers.linear(dim, hidden, **options)
        self.depthwise = layers.conv(hidden, hidden, 3, use_bias=True, groups=hidden, kernel_init=init, **options)
        self.fc2 = layers.linear(hidden, dim, **options)

    def __call__(self, x_NHWC: layers.Map) -> layers.Map:
        mixed = depthwise(self.depthwise, self.fc1(x_NHWC))
        return self.fc2(jax.nn.gelu(mixed, approximate=False))
