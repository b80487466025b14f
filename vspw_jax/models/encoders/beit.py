"""BEiT vision transformer: patch embedding, blocks with layer scale, and what the encoders around them share.

Source: microsoft/unilm beit/semantic_segmentation/backbone/beit.py (BEiT, BEiTv2).
Shapes: N images, H and W patches, S = H*W + 1 tokens (class token first), G heads, D channels a head, C width.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.models import layers
from vspw_jax.models.attention import Heads, softmax_attention
from vspw_jax.models.encoders import relative_attention
from vspw_jax.models.encoders.encoder import Encoder, FeatureMap

PATCH = 16


class PatchEmbedding(nnx.Module):
    """16x16 patches to tokens: (N, H*16, W*16, 3) to (N, H*W, C)."""

    def __init__(self, dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.proj = nnx.Conv(
            3, dim, (PATCH, PATCH), PATCH, padding="VALID", kernel_init=layers.normal_02, dtype=dtype, rngs=rngs
        )

    def __call__(self, image_NHWC: Float[Array, "N H*16 W*16 3"]) -> Float[Array, "N H*W C"]:
        return layers.to_tokens(layers.by_patches(self.proj, image_NHWC))


class Attention(nnx.Module):
    """Global self-attention with biases on queries and values, none on keys; a subclass may know positions."""

    def __init__(self, dim: int, heads: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.qkv = layers.linear(dim, 3 * dim, use_bias=False, dtype=dtype, rngs=rngs)
        self.q_bias = nnx.Param(jnp.zeros(dim))
        self.v_bias = nnx.Param(jnp.zeros(dim))
        self.proj = layers.linear(dim, dim, dtype=dtype, rngs=rngs)

    def __call__(self, x_NSC: layers.Tokens) -> layers.Tokens:
        query, key, value = jnp.split(self.qkv(x_NSC), 3, axis=-1)
        query = query + self.q_bias[...].astype(query.dtype)
        value = value + self.v_bias[...].astype(value.dtype)
        query, key, value = (x.reshape(*x.shape[:2], self.heads, -1) for x in (query, key, value))
        return self.proj(self.attend(query, key, value).reshape(x_NSC.shape))

    def attend(self, query_NSGD: Heads, key_NSGD: Heads, value_NSGD: Heads) -> Heads:
        """Softmax attention of every head."""
        return softmax_attention(query_NSGD, key_NSGD, value_NSGD)


class RelativeAttention(Attention):
    """The same with a bias by relative position."""

    def __init__(self, dim: int, heads: int, window: layers.Size, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        super().__init__(dim, heads, dtype=dtype, rngs=rngs)
        self.window = window
        self.relative_position_bias_table = nnx.Param(jnp.zeros((relative_attention.num_rows(window), heads)))

    def attend(self, query_NSGD: Heads, key_NSGD: Heads, value_NSGD: Heads) -> Heads:
        table = self.relative_position_bias_table[...]
        return relative_attention.attention(query_NSGD, key_NSGD, value_NSGD, table, self.window)


class FeedForward(nnx.Module):
    """Two linear layers with exact GELU between."""

    def __init__(self, dim: int, hidden: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.fc1 = layers.linear(dim, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = layers.linear(hidden, dim, dtype=dtype, rngs=rngs)

    def __call__(self, x_NSC: layers.Tokens) -> layers.Tokens:
        return self.fc2(jax.nn.gelu(self.fc1(x_NSC), approximate=False))


class Block(nnx.Module):
    """Pre-norm transformer block with stochastic depth.

    Args:
      window: patches (H, W) of the relative positions; None for an attention without.
      layer_scale: initial value of gamma_1 and gamma_2; 0 for a block without.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float,
        window: layers.Size | None,
        layer_scale: float,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.norm1 = layers.layer_norm(dim, 1e-6, **options)
        self.attn = RelativeAttention(dim, heads, window, **options) if window else Attention(dim, heads, **options)
        self.gamma_1 = nnx.Param(jnp.full(dim, layer_scale, jnp.float32)) if layer_scale else None
        self.norm2 = layers.layer_norm(dim, 1e-6, **options)
        self.mlp = FeedForward(dim, int(dim * mlp_ratio), **options)
        self.gamma_2 = nnx.Param(jnp.full(dim, layer_scale, jnp.float32)) if layer_scale else None

    def __call__(
        self, x_NSC: layers.Tokens, drop_rate: float | Float[Array, ""], keys_N: layers.Keys = None
    ) -> layers.Tokens:
        parts = ((self.norm1, self.attn, self.gamma_1), (self.norm2, self.mlp, self.gamma_2))
        return layers.add_branches(x_NSC, parts, drop_rate, keys_N)


class BeitEncoder(Encoder):
    """What the encoders around BEiT's blocks share: class token and patches, four maps of width `dim`, decay by layers.

    Args:
      config: dim, depth, drop_path, and what a subclass asks for.
      image_size: (height, width) of the input in pixels; fixes the relative position tables.
      remat: a key of `layers.REMAT_POLICIES`.

    Raises:
      UserError: what `check` finds.
    """

    PUBLISHED = {
        "BEiT-B": dict(dim=768, depth=12, heads=12),
        "BEiT-L": dict(dim=1024, depth=24, heads=16),
    }
    BLOCKS: ClassVar[str]
    """Path of the blocks in the encoder. Their variables are stacked along two leading axes."""

    NO_DECAY = r"(^|/)([qv]_bias|gamma(_[12])?)$"
    """Layer scales and the attention's biases: one-dimensional in the source, which decays no such parameter."""

    @classmethod
    def maps(cls, config: ConfigDict) -> tuple[FeatureMap, ...]:
        return tuple(FeatureMap(config.dim, stride) for stride in (4, 8, 16, 32))

    @classmethod
    def num_layers(cls, config: ConfigDict) -> int:
        return config.depth

    @classmethod
    def layer_id(cls, config: ConfigDict, path: str, shape: tuple[int, ...]) -> int | np.ndarray | None:
        """0 for patches and class token, i + 1 for block i.

        Source: microsoft/unilm beit/semantic_segmentation/mmcv_custom/layer_decay_optimizer_constructor.py.
        """
        if path.startswith(f"{cls.BLOCKS}/"):
            return np.arange(1, shape[0] * shape[1] + 1).reshape(*shape[:2], *(1,) * (len(shape) - 2))
        return 0 if path == "cls_token" or path.startswith("patch_embed/") else None

    def __init__(
        self, config: ConfigDict, image_size: layers.Size, remat: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.check(config, image_size)
        self.image_size, self.remat, self.dtype = tuple(image_size), remat, dtype
        self.window = image_size[0] // PATCH, image_size[1] // PATCH
        self.depth, self.drop_path = config.depth, config.drop_path
        self.cls_token = nnx.Param(layers.normal_02(rngs.params(), (1, 1, config.dim)))
        self.patch_embed = PatchEmbedding(config.dim, dtype=dtype, rngs=rngs)

    def embed(self, image_NHWC: Float[Array, "N H*16 W*16 3"]) -> tuple[Float[Array, "N 1 C"], layers.Tokens]:
        """(class token, patches) of images (N, *image_size, 3). Raises UserError for images of another size."""
        if image_NHWC.shape[1:3] != self.image_size:
            raise UserError(
                f"The images are {image_NHWC.shape[1:3]} pixels, but the model was built for {self.image_size}: its "
                "positions fix the size. Build it for the images' size, crop them, or slide over them."
            )
        patches = self.patch_embed(image_NHWC.astype(self.dtype))
        token = jnp.broadcast_to(self.cls_token[...].astype(self.dtype), (patches.shape[0], 1, patches.shape[2]))
        return token, patches
