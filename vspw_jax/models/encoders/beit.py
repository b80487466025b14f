"""BEiT vision transformer: patch embedding, blocks with layer scale.

Source: microsoft/unilm beit/semantic_segmentation/backbone/beit.py (BEiT, BEiTv2).
Shapes: N images, H and W patches, S = H*W + 1 tokens (class token first), G heads, D channels a head, C width.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vspw_jax.models import layers
from vspw_jax.models.encoders import relative_attention

PATCH = 16
NO_DECAY = r"(^|/)([qv]_bias|gamma(_[12])?)$"
"""Layer scales and the attention's biases: one-dimensional in the source, which decays no such parameter."""


def layer_id(path: str, shape: tuple[int, ...], blocks: str) -> int | np.ndarray | None:
    """The layer of an encoder's parameter, for layer-wise decay: 0 for patches and class token, i + 1 for block i.

    Source: microsoft/unilm beit/semantic_segmentation/mmcv_custom/layer_decay_optimizer_constructor.py.

    Args:
      path: in the encoder.
      shape: of the parameter.
      blocks: path of the blocks, which are stacked along two leading axes.
    """
    if path.startswith(f"{blocks}/"):
        return np.arange(1, shape[0] * shape[1] + 1).reshape(*shape[:2], *(1,) * (len(shape) - 2))
    return 0 if path == "cls_token" or path.startswith("patch_embed/") else None


class PatchEmbedding(nnx.Module):
    """16x16 patches to tokens: (N, H*16, W*16, 3) to (N, H*W, C)."""

    def __init__(self, dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.proj = nnx.Conv(
            3, dim, (PATCH, PATCH), PATCH, padding="VALID", kernel_init=layers.normal_02, dtype=dtype, rngs=rngs
        )

    def __call__(self, image_NHWC: Float[Array, "N H*16 W*16 3"]) -> Float[Array, "N H*W C"]:
        num_images, height, width, channels = image_NHWC.shape
        cells = image_NHWC.reshape(num_images, height // PATCH, PATCH, width // PATCH, PATCH, channels)
        patches_NSP = cells.transpose(0, 1, 3, 2, 4, 5).reshape(num_images, -1, PATCH * PATCH * channels)
        # One matrix product: on CPU the gradient of the same convolution takes six times as long.
        dtype = self.proj.dtype
        assert self.proj.bias is not None
        kernel_PC = self.proj.kernel[...].reshape(patches_NSP.shape[-1], -1).astype(dtype)
        return patches_NSP.astype(dtype) @ kernel_PC + self.proj.bias[...].astype(dtype)


class Attention(nnx.Module):
    """Global self-attention with biases on queries and values, none on keys, plus relative position bias."""

    def __init__(self, dim: int, heads: int, window: layers.Size, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.heads, self.window = heads, window
        self.qkv = layers.linear(dim, 3 * dim, use_bias=False, dtype=dtype, rngs=rngs)
        self.q_bias = nnx.Param(jnp.zeros(dim))
        self.v_bias = nnx.Param(jnp.zeros(dim))
        self.relative_position_bias_table = nnx.Param(jnp.zeros((relative_attention.num_rows(window), heads)))
        self.proj = layers.linear(dim, dim, dtype=dtype, rngs=rngs)

    def __call__(self, x_NSC: layers.Tokens) -> layers.Tokens:
        query, key, value = jnp.split(self.qkv(x_NSC), 3, axis=-1)
        query = query + self.q_bias[...].astype(query.dtype)
        value = value + self.v_bias[...].astype(value.dtype)
        query, key, value = (x.reshape(*x.shape[:2], self.heads, -1) for x in (query, key, value))
        output = relative_attention.attention(query, key, value, self.relative_position_bias_table[...], self.window)
        return self.proj(output.reshape(x_NSC.shape))


class FeedForward(nnx.Module):
    """Two linear layers with exact GELU between."""

    def __init__(self, dim: int, hidden: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.fc1 = layers.linear(dim, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = layers.linear(hidden, dim, dtype=dtype, rngs=rngs)

    def __call__(self, x_NSC: layers.Tokens) -> layers.Tokens:
        return self.fc2(jax.nn.gelu(self.fc1(x_NSC), approximate=False))


class Block(nnx.Module):
    """Pre-norm transformer block with layer scale (gamma_1, gamma_2) and stochastic depth."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float,
        window: layers.Size,
        layer_scale: float,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.norm1 = layers.layer_norm(dim, 1e-6, **options)
        self.attn = Attention(dim, heads, window, **options)
        self.gamma_1 = nnx.Param(jnp.full(dim, layer_scale, jnp.float32))
        self.norm2 = layers.layer_norm(dim, 1e-6, **options)
        self.mlp = FeedForward(dim, int(dim * mlp_ratio), **options)
        self.gamma_2 = nnx.Param(jnp.full(dim, layer_scale, jnp.float32))

    def __call__(
        self, x_NSC: layers.Tokens, drop_rate: float | Float[Array, ""], keys_N: layers.Keys = None
    ) -> layers.Tokens:
        branch = self.gamma_1[...].astype(x_NSC.dtype) * self.attn(self.norm1(x_NSC))
        x_NSC = x_NSC + layers.drop_path(branch, drop_rate, layers.fold_keys(keys_N, 0))
        branch = self.gamma_2[...].astype(x_NSC.dtype) * self.mlp(self.norm2(x_NSC))
        return x_NSC + layers.drop_path(branch, drop_rate, layers.fold_keys(keys_N, 1))
