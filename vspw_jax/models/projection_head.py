"""Projection of features for a contrastive loss; training alone runs it.

Sources: tfzhou/ContrastiveSeg lib/models/modules/projection.py (as wide as its input, to 256 from 1/4);
jingw193/PNE_Loss mmseg/models/decode_heads/aspp_head.py (512 wide, to 256 from the decoder's last features); paper 003
(arXiv 2106.04121), section 4.1, has four layers behind the ASPP.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.models import layers


class Layer(nnx.Module):
    """1x1 convolution, batch norm, ReLU."""

    def __init__(self, dim_in: int, dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.conv = layers.linear(dim_in, dim, kernel_init=layers.torch_uniform, **options)
        self.norm = layers.batch_norm(dim, **options)

    def __call__(self, x_NHWC: Float[Array, "N H W C"], train: bool) -> Float[Array, "N H W dim"]:
        return jax.nn.relu(self.norm(self.conv(x_NHWC), use_running_average=not train))


class ProjectionHead(Layer):
    """1x1 convolutions, all but the last with batch norm and ReLU.

    Args:
      input_dim: width of the features.
      config: hidden (0 is `input_dim`), dim (width of the projection), layers (of convolutions, 2 or more).
    """

    def __init__(self, input_dim: int, config: ConfigDict, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        hidden = config.hidden or input_dim
        super().__init__(input_dim, hidden, **options)
        self.further = nnx.List([Layer(hidden, hidden, **options) for _ in range(config.layers - 2)])
        self.out = layers.linear(hidden, config.dim, kernel_init=layers.torch_uniform, **options)

    def __call__(self, x_NHWC: Float[Array, "N H W input_dim"], train: bool) -> Float[Array, "N H W dim"]:
        x_NHWC = super().__call__(x_NHWC, train)
        for layer in self.further:
            x_NHWC = layer(x_NHWC, train)
        return self.out(x_NHWC)
