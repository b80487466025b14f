"""Multi-scale deformable pixel decoder of Mask2Former.

Source: czczup/ViT-Adapter segmentation/mmseg_custom/models/plugins/msdeformattn_pixel_decoder.py (after mmdet).
Shapes: N images, H and W cells of a map, S tokens of all maps but the finest, C width.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.models import layers
from vspw_jax.models.decoders.decoder import Maps
from vspw_jax.models.deformable_attention import DeformableAttention, cell_centres


def sine_position_encoding(height: int, width: int, dim: int) -> Float[np.ndarray, "H*W dim"]:
    """Position encoding of the cells: y in the first half of the channels, x in the second.

    Normalised to 2 pi with eps 1e-6, temperature 10000, sine and cosine interleaved (DETR; mmdet
    SinePositionalEncoding(normalize=True)).
    """
    features = dim // 2
    frequencies = 10000.0 ** (2 * (np.arange(features) // 2) / features)

    def encode(size: int) -> Float[np.ndarray, "size dim/2"]:
        position = (np.arange(1, size + 1) / (size + 1e-6) * 2 * np.pi)[:, None] / frequencies
        return np.stack([np.sin(position[:, 0::2]), np.cos(position[:, 1::2])], axis=-1).reshape(size, features)

    y = np.broadcast_to(encode(height)[:, None], (height, width, features))
    x = np.broadcast_to(encode(width)[None], (height, width, features))
    return np.concatenate([y, x], axis=-1).reshape(-1, dim).astype(np.float32)


class EncoderLayer(nnx.Module):
    """Post-norm layer: deformable self-attention over all levels, feed-forward with ReLU."""

    def __init__(
        self, dim: int, heads: int, levels: int, points: int, ffn_dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.attn = DeformableAttention(dim, heads, num_levels=levels, num_points=points, **options)
        self.norm1 = layers.layer_norm(dim, 1e-5, **options)
        self.fc1 = layers.linear(dim, ffn_dim, kernel_init=layers.xavier_uniform, **options)
        self.fc2 = layers.linear(ffn_dim, dim, kernel_init=layers.xavier_uniform, **options)
        self.norm2 = layers.layer_norm(dim, 1e-5, **options)

    def __call__(
        self, x_NSC: layers.Tokens, position_SC: Float[Array, "S C"], shapes: Sequence[layers.Size]
    ) -> layers.Tokens:
        attended = self.attn(x_NSC + position_SC, cell_centres(shapes), x_NSC, shapes)
        x_NSC = self.norm1(x_NSC + attended)
        return self.norm2(x_NSC + self.fc2(jax.nn.relu(self.fc1(x_NSC))))


class PixelDecoder(nnx.Module):
    """The encoder's maps to mask features at the finest scale and a memory at each other scale, all of width `dim`.

    Args:
      widths: of the encoder's maps, fine to coarse; the source has four, at 1/4 to 1/32.
      config: dim, heads, points, encoder_ffn_dim, encoder_layers, norm_groups (`configs/parts/models.py` explains).
      remat: a key of `layers.REMAT_POLICIES`.
    """

    def __init__(
        self, widths: Sequence[int], config: ConfigDict, remat: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        linear = functools.partial(layers.linear, kernel_init=layers.xavier_uniform, **options)
        self.dim, self.remat = config.dim, remat
        finest, *others = widths
        # The coarsest level comes first, in these lists and in the rows of level_encoding.
        self.input_convs = nnx.List([linear(width, config.dim) for width in reversed(others)])
        self.input_norms = nnx.List([layers.group_norm(config.dim, config.norm_groups, **options) for _ in others])
        self.level_encoding = nnx.Param(jax.random.normal(rngs.params(), (len(others), config.dim)))
        self.encoder = layers.stack_modules(
            lambda rngs: EncoderLayer(
                config.dim, config.heads, len(others), config.points, config.encoder_ffn_dim, dtype=dtype, rngs=rngs
            ),
            config.encoder_layers,
            rngs,
        )
        self.lateral_conv = linear(finest, config.dim, use_bias=False)
        self.lateral_norm = layers.group_norm(config.dim, config.norm_groups, **options)
        self.output_conv = layers.conv(config.dim, config.dim, 3, **options)
        self.output_norm = layers.group_norm(config.dim, config.norm_groups, **options)
        self.mask_feature = linear(config.dim, config.dim)

    def __call__(self, maps: Maps) -> tuple[layers.Map, list[layers.Map]]:
        """Mask features with the size of the finest map, and the memories, coarsest first."""
        finest, *coarse = maps
        coarse = coarse[::-1]
        shapes = [(x.shape[1], x.shape[2]) for x in coarse]
        tokens, positions = [], []
        for level, x in enumerate(coarse):
            tokens.append(layers.to_tokens(self.input_norms[level](self.input_convs[level](x))))
            positions.append(sine_position_encoding(*shapes[level], self.dim) + self.level_encoding[level])
        position_SC = jnp.concatenate(positions).astype(tokens[0].dtype)

        def apply(layer, x, _):
            return layer(x, position_SC, shapes), None

        x, _ = layers.scan_modules(self.encoder, apply, jnp.concatenate(tokens, axis=1), remat=self.remat)
        memories = layers.split_maps(x, shapes)
        top_down = layers.resize_bilinear(memories[-1], *finest.shape[1:3])
        merged = self.lateral_norm(self.lateral_conv(finest)) + top_down
        return self.mask_feature(jax.nn.relu(self.output_norm(self.output_conv(merged)))), memories
