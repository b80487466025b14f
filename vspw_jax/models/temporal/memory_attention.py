"""How paper 001 refines what was recalled from a memory: every pixel attends to what all pixels of its image recalled.

Source: Memory Based Video Scene Parsing (Jin et al., 2021), equations 5 and 6. The g are as in the SelfAttentionBlock
of SegmentationBLWX/sssegmentation ssseg/modules/models/segmentors/base/selfattention.py: 1x1 convolution, batch norm,
ReLU, two of them for queries and keys. Shapes: N images, H and W cells, Q and S cells of maps, C and D channels.
"""

import functools

import jax.numpy as jnp
from flax import nnx

from vspw_jax.models import layers


class MemoryAttention(nnx.Module):
    """C_bi from R and C'_bi, all `dim` wide; the attention is half as wide, so equation 5 divides by sqrt(C / 2).

    Args:
      remat: a key of `layers.REMAT_POLICIES`, for the attention's weights of every pair of cells.
    """

    def __init__(self, dim: int, remat: str, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        inner, self.remat = dim // 2, remat
        make = lambda width, to: layers.ConvNormRelu(width, to, 1, **options)
        self.query = nnx.List([make(dim, inner), make(inner, inner)])
        self.key = nnx.List([make(dim, inner), make(inner, inner)])
        self.value, self.out = make(dim, inner), make(inner, dim)

    def __call__(self, features_NHWC: layers.Map, recalled_NHWC: layers.Map, train: bool) -> layers.Map:
        """Equations 5 and 6."""
        query, key, value = features_NHWC, recalled_NHWC, self.value(recalled_NHWC, train)
        for of_query, of_key in zip(self.query, self.key, strict=True):
            query, key = of_query(query, train), of_key(key, train)
        scaled = functools.partial(layers.attend, scale=query.shape[-1] ** -0.5)
        attended = layers.rematerialised(scaled, self.remat)(*map(layers.to_tokens, (query, key, value)))
        return self.out(attended.reshape(value.shape), train)
