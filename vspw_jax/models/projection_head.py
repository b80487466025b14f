"""Projection of features for a contrastive loss; training alone runs it.

Sources: tfzhou/ContrastiveSeg lib/models/modules/projection.py (as wide as its input, to 256 from 1/4);
jingw193/PNE_Loss mmseg/models/decode_heads/aspp_head.py (512 wide, to 256 from the decoder's last features).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.models import layers


class ProjectionHead(nnx.Module):
    """1x1 convolution, batch norm, ReLU, 1x1 convolution.

    Args:
      input_dim: width of the features.
      config: hidden (0 is `input_dim`), dim (width of the projection).
    """

    def __init__(self, input_dim: int, config: ConfigDict, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        hidden = config.hidden or input_dim
        self.conv = layers.linear(input_dim, hidden, kernel_init=layers.torch_uniform, **options)
        self.norm = layers.batch_norm(hidden, **options)
        self.out = layers.linear(hidden, config.dim, kernel_init=layers.torch_uniform, **options)

    def __call__(self, x_NHWC: Float[Array, "N H W input_dim"], train: bool) -> Float[Array, "N H W dim"]:
        return self.out(jax.nn.relu(self.norm(self.conv(x_NHWC), use_running_average=not train)))
