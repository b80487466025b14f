"""EVA-02 as a pyramid: a vision transformer with rotary positions and gated feed-forwards, in BEiT's pyramid.

Source: EVA-02, arXiv 2303.11331, section 2.1; baaivision/EVA EVA-02/seg/backbone/eva2.py.
Shapes: N images, H and W patches (1/16), S = H*W + 1 tokens (class token first), G heads, D channels a head, C width.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, check_divides
from vspw_jax.models import layers
from vspw_jax.models.encoders import beit, beit_pyramid, eva_rows, rotary_position


class RotaryAttention(beit.Attention):
    """BEiT's attention with queries and keys of patches turned by their place."""

    def __init__(self, config: ConfigDict, window: layers.Size, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        super().__init__(config.dim, config.heads, dtype=dtype, rngs=rngs)
        self.window, self.pretrained_side = window, config.pretrained_side

    def turned(self, x_NSGD: beit.Heads) -> beit.Heads:
        """Queries or keys; those of the class token stay."""
        angles = rotary_position.angles(self.window, x_NSGD.shape[-1], self.pretrained_side)
        return jnp.concatenate([x_NSGD[:, :1], rotary_position.rotate(x_NSGD[:, 1:], angles)], axis=1)

    def attend(self, query_NSGD: beit.Heads, key_NSGD: beit.Heads, value_NSGD: beit.Heads) -> beit.Heads:
        return super().attend(self.turned(query_NSGD), self.turned(key_NSGD), value_NSGD)


class GatedFeedForward(nnx.Module):
    """SwiGLU with a norm before its last layer: equation 1 of the paper and sub-LN."""

    def __init__(self, dim: int, hidden: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.gate = layers.linear(dim, hidden, **options)
        self.value = layers.linear(dim, hidden, **options)
        self.norm = layers.layer_norm(hidden, 1e-6, **options)
        self.proj = layers.linear(hidden, dim, **options)

    def __call__(self, x_NSC: layers.Tokens) -> layers.Tokens:
        return self.proj(self.norm(jax.nn.silu(self.gate(x_NSC)) * self.value(x_NSC)))


class Block(nnx.Module):
    """Pre-norm transformer block with stochastic depth."""

    def __init__(self, config: ConfigDict, window: layers.Size, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.norm1 = layers.layer_norm(config.dim, 1e-6, **options)
        self.attn = RotaryAttention(config, window, **options)
        self.norm2 = layers.layer_norm(config.dim, 1e-6, **options)
        self.mlp = GatedFeedForward(config.dim, config.hidden, **options)

    def __call__(
        self, x_NSC: layers.Tokens, drop_rate: float | Float[Array, ""], keys_N: layers.Keys = None
    ) -> layers.Tokens:
        parts = ((self.norm1, self.attn, None), (self.norm2, self.mlp, None))
        return layers.add_branches(x_NSC, parts, drop_rate, keys_N)


class Eva(beit_pyramid.BeitPyramid):
    """EVA-02: image to four maps of width `dim` at 1/4, 1/8, 1/16, 1/32, without a norm at the end.

    Args:
      config: dim, depth, heads, hidden (width of the feed-forwards), pretrained_side (patches a side of the grid of
        pre-training), drop_path (linear from 0 over the blocks), out_blocks (as `BeitPyramid`'s).
      image_size: (height, width) of the input in pixels, multiples of 16; fixes the positions.
      remat: a key of `layers.REMAT_POLICIES`, for the blocks.
    """

    FIELDS = ("dim", "depth", "heads", "hidden", "pretrained_side", "drop_path", "out_blocks")
    PUBLISHED = {
        "EVA-02-B": dict(dim=768, depth=12, heads=12, hidden=2048, out_blocks=(4, 6, 8, 12)),
        "EVA-02-L": dict(dim=1024, depth=24, heads=16, hidden=2730, out_blocks=(8, 12, 16, 24)),
    }
    NO_DECAY = r"(^|/)[qv]_bias$"
    """The attention's biases. The source means to spare positions and class token too, but its check misses their names
    under `backbone.`, as that of BEiT's code does."""
    TORCH_NAMES = eva_rows.NAMES

    @classmethod
    def check(cls, config: ConfigDict, image_size: layers.Size) -> None:
        check_divides("model.encoder.heads", config.heads, config.dim)
        if config.dim // config.heads % 4:
            raise UserError(
                f"model.encoder.heads is {config.heads}: heads of {config.dim // config.heads} channels cannot be "
                "turned by row and column. Choose so many that a head's channels are a multiple of 4."
            )
        beit_pyramid.check_sizes(config, image_size)

    @classmethod
    def layer_id(cls, config: ConfigDict, path: str, shape: tuple[int, ...]) -> int | np.ndarray | None:
        """As BEiT's; the positions are with the patches."""
        return 0 if path == "pos_embed" else super().layer_id(config, path, shape)

    def __init__(
        self, config: ConfigDict, image_size: layers.Size, remat: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        super().__init__(config, image_size, remat, dtype=dtype, rngs=rngs)
        tokens = self.window[0] * self.window[1] + 1
        self.pos_embed = nnx.Param(layers.normal_02(rngs.params(), (1, tokens, config.dim)))

    def make_block(self, config: ConfigDict, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> Block:
        return Block(config, self.window, dtype=dtype, rngs=rngs)

    def embed(self, image_NHWC: Float[Array, "N H*16 W*16 3"]) -> tuple[Float[Array, "N 1 C"], layers.Tokens]:
        """As BEiT's, with the learned positions added to both."""
        token, patches = super().embed(image_NHWC)
        positions = self.pos_embed[...].astype(self.dtype)
        return token + positions[:, :1], patches + positions[:, 1:]
