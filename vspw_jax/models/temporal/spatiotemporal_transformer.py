"""The spatial-temporal transformer (STT) of paper 002: what a frame becomes, given the frames just before it.

A block is attention inside 3D windows, then a Mix-FFN for each frame, whose depthwise convolution joins windows.

Source: Simultaneously Short- and Long-Term Temporal Modeling for Semi-Supervised Video Semantic Segmentation (Lao et
al., CVPR 2023), supplementary, section 1. The blocks are pre-norm, as in Video Swin.
Shapes: N clips, T frames, H and W cells, C channels.
"""

import jax.numpy as jnp
from flax import nnx

from vspw_jax.models import layers
from vspw_jax.models.mix_feed_forward import MixFeedForward
from vspw_jax.models.temporal.window_attention_3d import Clip, Size3, WindowAttention3d


class Block(nnx.Module):
    """Pre-norm: attention in windows, Mix-FFN. Arguments as `SpatiotemporalTransformer`'s; `shift` is of this block."""

    def __init__(
        self, dim: int, heads: int, window: Size3, shift: Size3, mlp_ratio: float, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.norm1 = layers.layer_norm(dim, 1e-5, **options)
        self.attn = WindowAttention3d(dim, heads, window, shift, **options)
        self.norm2 = layers.layer_norm(dim, 1e-5, **options)
        self.mlp = MixFeedForward(dim, int(dim * mlp_ratio), **options)

    def __call__(self, x_NTHWC: Clip, last: int) -> Clip:
        """What the `last` frames become."""
        x = x_NTHWC[:, x_NTHWC.shape[1] - last :] + self.attn(self.norm1(x_NTHWC), last)
        frames = self.norm2(x).reshape(-1, *x.shape[2:])
        return x + self.mlp(frames).reshape(x.shape)


class SpatiotemporalTransformer(nnx.Module):
    """Clips to maps of their last frame. Behind its attention the last block computes this frame alone.

    Args:
      dim: channels, which `heads` divides.
      window: frames and cells a side.
      blocks: how many.
      shift: whether every second block shifts its windows, by half of them, as Video Swin's do.
      mlp_ratio: how many times as wide the Mix-FFN is.
      remat: a key of `layers.REMAT_POLICIES`, for blocks.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        window: Size3,
        blocks: int,
        shift: bool,
        mlp_ratio: float,
        remat: str,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.remat = remat
        half = (window[0] // 2, window[1] // 2, window[2] // 2)

        def make(number: int) -> Block:
            by = half if shift and number % 2 else (0, 0, 0)
            return Block(dim, heads, window, by, mlp_ratio, dtype=dtype, rngs=rngs)

        self.blocks = nnx.List([make(number) for number in range(blocks)])

    def __call__(self, x_NTHWC: Clip) -> layers.Map:
        frames = x_NTHWC.shape[1]
        for number, block in enumerate(self.blocks, start=1):
            last = 1 if number == len(self.blocks) else frames
            x_NTHWC = layers.rematerialised(lambda x, block=block, last=last: block(x, last), self.remat)(x_NTHWC)
        return x_NTHWC[:, -1]
