"""Self-attention inside windows of a map, as Swin has it: shifted or not, with a relative position bias.

Windows are cut by reshapes and the map is rolled by slices, so no pass gathers or scatters.

Source: Swin Transformer, arXiv 2103.14030, section 3.2; SwinTransformer/Swin-Transformer-Semantic-Segmentation
mmseg/models/backbones/swin_transformer.py.
Shapes: N images, H and W cells, M windows of a map, w cells a side of a window, S = w*w tokens, G heads, C channels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vspw_jax.models import layers
from vspw_jax.models.encoders.relative_attention import patch_bias

FORBIDDEN = -100.0
"""Added to the logit of a pair that a shift brought together; the source's value. It is finite: exp(-100) is not 0."""


def cut(x_NHWC: layers.Map, window: int) -> Float[Array, "N M S C"]:
    """The windows of a map whose sides `window` divides, row by row."""
    num_images, height, width, channels = x_NHWC.shape
    cells = x_NHWC.reshape(num_images, height // window, window, width // window, window, channels)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(num_images, -1, window * window, channels)


def join(windows_NMSC: Float[Array, "N M S C"], height: int, width: int, window: int) -> layers.Map:
    """The map of (height, width) cells whose windows these are."""
    num_images, *_, channels = windows_NMSC.shape
    cells = windows_NMSC.reshape(num_images, height // window, width // window, window, window, channels)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(num_images, height, width, channels)


def shift_mask(height: int, width: int, window: int, shift: int) -> Float[np.ndarray, "M S S"]:
    """What is added to logits after a shift: `FORBIDDEN` for cells that come from opposite ends of the map."""
    ends = lambda side: (np.arange(side) >= side - window).astype(int) + (np.arange(side) >= side - shift)
    region = 3 * ends(height)[:, None] + ends(width)
    cells = region.reshape(height // window, window, width // window, window)
    region_MS = cells.transpose(0, 2, 1, 3).reshape(-1, window * window)
    return np.where(region_MS[:, :, None] == region_MS[:, None], 0.0, FORBIDDEN).astype(np.float32)


class WindowAttention(nnx.Module):
    """Multi-head attention of a map's cells inside their windows.

    A map that windows cannot tile is padded with zeros at the bottom and right. These cells are attended to, as in the
    source: their keys and values are the biases.

    Args:
      window: cells a side.
      shift: by how many cells the map is rolled up and left before it is cut; 0 for none.
    """

    def __init__(self, dim: int, heads: int, window: int, shift: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = layers.linear(dim, 3 * dim, **options)
        table = layers.normal_02(rngs.params(), ((2 * window - 1) ** 2, heads))
        self.relative_position_bias_table = nnx.Param(table)
        self.proj = layers.linear(dim, dim, **options)

    def bias(self, height: int, width: int) -> Float[Array, "M G S S"]:
        """What is added to the logits; M is 1 where the map is not shifted."""
        side = 2 * self.window - 1
        offsets = self.relative_position_bias_table[...].T.reshape(self.heads, side, side)
        bias_GSS = patch_bias(offsets, (self.window, self.window))
        if not self.shift:
            return bias_GSS[None]
        return bias_GSS + shift_mask(height, width, self.window, self.shift)[:, None]

    def __call__(self, x_NHWC: layers.Map) -> layers.Map:
        _, height, width, channels = x_NHWC.shape
        bottom, right = -height % self.window, -width % self.window
        x = jnp.pad(x_NHWC, ((0, 0), (0, bottom), (0, right), (0, 0)))
        windows = cut(jnp.roll(x, (-self.shift, -self.shift), (1, 2)), self.window)
        heads = self.qkv(windows).reshape(*windows.shape[:3], 3, self.heads, -1)
        query, key, value = (heads[..., part, :, :] for part in range(3))
        bias = self.bias(height + bottom, width + right).astype(query.dtype)
        bias = jnp.broadcast_to(bias, (windows.shape[1], *bias.shape[1:]))
        attend = jax.vmap(lambda query, key, value: jax.nn.dot_product_attention(query, key, value, bias=bias))
        output = attend(query, key, value).reshape(*windows.shape[:3], channels)
        joined = join(output, height + bottom, width + right, self.window)
        joined = jnp.roll(joined, (self.shift, self.shift), (1, 2))
        return self.proj(joined[:, :height, :width])
