"""Self-attention inside windows over time, height and width, as Video Swin has it: shifted or not, with a bias.

Two things differ from its code. Cells that pad a clip to whole windows are masked out of the attention, so what they
hold changes nothing. And where a window is cut down to a smaller clip, each pair of cells still has the bias of its own
offset; there this holds only while time alone is cut.

Source: Video Swin Transformer, arXiv 2106.13230, section 3.1; SwinTransformer/Video-Swin-Transformer
mmaction/models/backbones/swin_transformer.py.
Shapes: N clips, T frames, H and W cells, M windows of a clip, d, h and w cells of a window, S = d*h*w, G heads,
C channels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float

from vspw_jax.models import layers
from vspw_jax.models.encoders.relative_attention import toeplitz

Clip = Float[Array, "N T H W C"]
Size3 = tuple[int, int, int]
"""Frames, height and width."""


def cut(x_NTHWC: Clip, window: Size3) -> Float[Array, "N M S C"]:
    """The windows of clips whose sides `window` divides, row-major."""
    d, h, w = window
    clips, frames, height, width, channels = x_NTHWC.shape
    cells = x_NTHWC.reshape(clips, frames // d, d, height // h, h, width // w, w, channels)
    return cells.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(clips, -1, d * h * w, channels)


def join(windows_NMSC: Float[Array, "N M S C"], size: Size3, window: Size3) -> Clip:
    """The clips of `size` whose windows these are."""
    d, h, w = window
    frames, height, width = size
    clips, *_, channels = windows_NMSC.shape
    cells = windows_NMSC.reshape(clips, frames // d, height // h, width // w, d, h, w, channels)
    return cells.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(clips, *size, channels)


def fitted(window: Size3, shift: Size3, size: Size3) -> tuple[Size3, Size3]:
    """(window, shift) for clips of `size`: along an axis that one window covers it is as long, and is not shifted."""
    covers = [side <= cells for side, cells in zip(size, window, strict=True)]
    d, h, w = map(min, window, size)
    of_time, of_height, of_width = (0 if one else by for one, by in zip(covers, shift, strict=True))
    return (d, h, w), (of_time, of_height, of_width)


def seen_cells(size: Size3, window: Size3, shift: Size3) -> Bool[Array, "M S S"] | None:
    """Whether a cell attends to another of its window; None where each does to all.

    None attends to a cell that pads the clip, or to one that the shift brought in from the clip's other end.
    """
    padded = [side + -side % cells for side, cells in zip(size, window, strict=True)]
    if tuple(padded) == size and not any(shift):
        return None
    region, is_real = np.zeros(padded, int), np.ones(padded, bool)
    for axis, (side, full, by) in enumerate(zip(size, padded, shift, strict=True)):
        place = np.arange(full)
        along = [full if number == axis else 1 for number in range(3)]
        # Only windows at the end hold two regions: what was there, and what came from the front.
        region = 2 * region + (place >= full - by).reshape(along)
        is_real = is_real & (np.roll(place, -by) < side).reshape(along)
    of_windows = lambda x: jnp.asarray(cut(x[None, ..., None], window)[0, ..., 0])
    region_MS, is_real_MS = of_windows(region), of_windows(is_real)
    return (region_MS[:, :, None] == region_MS[:, None]) & is_real_MS[:, None]


def window_bias(table_RG: Float[Array, "R G"], whole: Size3, window: Size3) -> Float[Array, "G S S"]:
    """What is added to the logits of a window's cells, from a table of the window that is `whole`.

    Row ((dt + d-1) * (2h-1) + dy + h-1) * (2w-1) + dx + w-1 is for query minus key (dt, dy, dx).
    """
    offsets = table_RG.T.reshape(-1, *(2 * cells - 1 for cells in whole))
    for axis, (full, cells) in enumerate(zip(whole, window, strict=True), start=1):
        offsets = lax.slice_in_dim(offsets, full - cells, full + cells - 1, axis=axis)
    d, h, w = window
    by_x = jnp.moveaxis(toeplitz(offsets, w), 2, -1)  # head, dt, query x, key x, dy
    by_xy = jnp.moveaxis(toeplitz(by_x, h), 1, -1)  # head, query x, key x, query y, key y, dt
    pairs = toeplitz(by_xy, d)  # The same, query t, key t.
    return pairs.transpose(0, 5, 3, 1, 6, 4, 2).reshape(-1, d * h * w, d * h * w)


class WindowAttention3d(nnx.Module):
    """Multi-head attention of a clip's cells inside their windows.

    Args:
      dim: channels, which `heads` divides.
      window: frames and cells a side.
      shift: by how many frames and cells the clip is rolled back, up and left before it is cut.
    """

    def __init__(self, dim: int, heads: int, window: Size3, shift: Size3, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = layers.linear(dim, 3 * dim, **options)
        rows = int(np.prod([2 * cells - 1 for cells in window]))
        self.relative_position_bias_table = nnx.Param(layers.normal_02(rngs.params(), (rows, heads)))
        self.proj = layers.linear(dim, dim, **options)

    def __call__(self, x_NTHWC: Clip, last: int) -> Clip:
        """What the `last` frames become."""
        _, frames, height, width, _ = x_NTHWC.shape
        size = frames, height, width
        window, shift = fitted(self.window, self.shift, size)
        ends = [(0, -side % cells) for side, cells in zip(size, window, strict=True)]
        x = jnp.pad(x_NTHWC, ((0, 0), *ends, (0, 0)))
        padded = x.shape[1], x.shape[2], x.shape[3]
        windows = cut(jnp.roll(x, tuple(-by for by in shift), (1, 2, 3)), window)
        output = self._attend(self.qkv(windows), window, seen_cells(size, window, shift))
        joined = jnp.roll(join(output, padded, window), shift, (1, 2, 3))
        return self.proj(joined[:, frames - last : frames, :height, :width])

    def _attend(
        self, qkv_NMSC: Float[Array, "N M S 3*C"], window: Size3, seen_MSS: Bool[Array, "M S S"] | None
    ) -> Float[Array, "N M S C"]:
        heads = qkv_NMSC.reshape(*qkv_NMSC.shape[:3], 3, self.heads, -1)
        bias = window_bias(self.relative_position_bias_table[...], self.window, window)[None].astype(heads.dtype)
        mask = None if seen_MSS is None else seen_MSS[:, None]

        def of_clip(parts_MS3GD: Array) -> Array:
            query, key, value = (parts_MS3GD[:, :, part] for part in range(3))
            return jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask)

        return jax.vmap(of_clip)(heads).reshape(*qkv_NMSC.shape[:3], -1)
