"""Swin transformer: blocks that attend inside windows, which every second block shifts, and maps that halve.

Source: Swin Transformer, arXiv 2103.14030; SwinTransformer/Swin-Transformer-Semantic-Segmentation
mmseg/models/backbones/swin_transformer.py (mmsegmentation and Mask2Former have the same). Its code for classification
differs where a map is no larger than a window: there it does not shift.
Shapes: N images, H and W pixels or cells, C channels.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, check_divides
from vspw_jax.models import layers
from vspw_jax.models.encoders import beit, swin_rows
from vspw_jax.models.encoders.encoder import Encoder, FeatureMap
from vspw_jax.models.encoders.window_attention import WindowAttention

STAGES = 4
PATCH = 4


class Block(nnx.Module):
    """Pre-norm transformer block on a map, with stochastic depth."""

    def __init__(self, dim: int, config: ConfigDict, shift: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.norm1 = layers.layer_norm(dim, 1e-5, **options)
        self.attn = WindowAttention(dim, dim // config.head_dim, config.window, shift, **options)
        self.norm2 = layers.layer_norm(dim, 1e-5, **options)
        self.mlp = beit.FeedForward(dim, int(dim * config.mlp_ratio), **options)

    def __call__(self, x_NHWC: layers.Map, drop_rate: Float[Array, ""], keys_N: layers.Keys) -> layers.Map:
        branch = self.attn(self.norm1(x_NHWC))
        x_NHWC = x_NHWC + layers.drop_path(branch, drop_rate, layers.fold_keys(keys_N, 0))
        branch = self.mlp(self.norm2(x_NHWC))
        return x_NHWC + layers.drop_path(branch, drop_rate, layers.fold_keys(keys_N, 1))


class Pair(nnx.Module):
    """A block whose windows are not shifted and one whose windows are, by half a window."""

    def __init__(self, dim: int, config: ConfigDict, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.plain = Block(dim, config, 0, dtype=dtype, rngs=rngs)
        self.shifted = Block(dim, config, config.window // 2, dtype=dtype, rngs=rngs)

    def __call__(self, x_NHWC: layers.Map, drop_rates: Float[Array, " 2"], keys_N: layers.Keys) -> layers.Map:
        x_NHWC = self.plain(x_NHWC, drop_rates[0], layers.fold_keys(keys_N, 0))
        return self.shifted(x_NHWC, drop_rates[1], layers.fold_keys(keys_N, 1))


class Merging(nnx.Module):
    """Two by two cells to one of twice the width; a map of an odd side gets a row or column of zeros."""

    def __init__(self, dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.norm = layers.layer_norm(4 * dim, 1e-5, dtype=dtype, rngs=rngs)
        self.reduction = layers.linear(4 * dim, 2 * dim, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x_NHWC: layers.Map) -> layers.Map:
        num_images, height, width, channels = x_NHWC.shape
        x = jnp.pad(x_NHWC, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        cells = x.reshape(num_images, x.shape[1] // 2, 2, x.shape[2] // 2, 2, channels)
        # The four cells are joined column by column.
        joined = cells.transpose(0, 1, 3, 4, 2, 5).reshape(num_images, *cells.shape[1:4:2], 4 * channels)
        return self.reduction(self.norm(joined))


class PatchEmbedding(nnx.Module):
    """4x4 pixels to a cell and a norm; an image whose side 4 does not divide is padded with zeros."""

    def __init__(self, dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.proj = nnx.Conv(3, dim, (PATCH, PATCH), PATCH, padding="VALID", dtype=dtype, rngs=rngs)
        self.norm = layers.layer_norm(dim, 1e-5, dtype=dtype, rngs=rngs)

    def __call__(self, image_NHWC: Float[Array, "N H W 3"]) -> layers.Map:
        bottom, right = (-side % PATCH for side in image_NHWC.shape[1:3])
        padded = jnp.pad(image_NHWC, ((0, 0), (0, bottom), (0, right), (0, 0)))
        return self.norm(layers.by_patches(self.proj, padded))


class Swin(Encoder):
    """Swin: image to four maps of width `dim`, 2, 4 and 8 times `dim` at 1/4, 1/8, 1/16, 1/32, each through a norm.

    The variables of a stage's blocks are stacked in pairs.

    Args:
      config: dim (width of the first map), depths (blocks of the four stages, even), head_dim (channels of a head),
        window (cells a side), mlp_ratio, drop_path (linear from 0 over all blocks).
      image_size: any; maps that windows cannot tile are padded.
      remat: a key of `layers.REMAT_POLICIES`, for pairs of blocks.
    """

    FIELDS = ("dim", "depths", "head_dim", "window", "mlp_ratio", "drop_path")
    PUBLISHED = {
        "Swin-T": dict(dim=96, depths=(2, 2, 6, 2), window=7),
        "Swin-S": dict(dim=96, depths=(2, 2, 18, 2), window=7),
        "Swin-B": dict(dim=128, depths=(2, 2, 18, 2), window=7),
        "Swin-L": dict(dim=192, depths=(2, 2, 18, 2), window=7),
        # Of images of 384 pixels.
        "Swin-B with windows of 12": dict(dim=128, depths=(2, 2, 18, 2), window=12),
        "Swin-L with windows of 12": dict(dim=192, depths=(2, 2, 18, 2), window=12),
    }
    STACKED = {f"stages/{stage}": 1 for stage in range(STAGES)}
    NO_DECAY = r"(^|/)relative_position_bias_table$"
    TORCH_NAMES = swin_rows.NAMES

    @classmethod
    def maps(cls, config: ConfigDict) -> tuple[FeatureMap, ...]:
        return tuple(FeatureMap(config.dim * 2**stage, PATCH * 2**stage) for stage in range(STAGES))

    @classmethod
    def check(cls, config: ConfigDict, image_size: layers.Size) -> None:
        check_divides("model.encoder.head_dim", config.head_dim, config.dim)
        depths = tuple(config.depths)
        if len(depths) != STAGES or any(depth % 2 for depth in depths):
            raise UserError(
                f"model.encoder.depths is {depths}: expected four even counts of blocks, such as (2, 2, 6, 2), as "
                "every second block shifts its windows."
            )

    @classmethod
    def num_layers(cls, config: ConfigDict) -> int:
        return sum(config.depths)

    @classmethod
    def layer_id(cls, config: ConfigDict, path: str, shape: tuple[int, ...]) -> int | np.ndarray | None:
        """0 for patches, i + 1 for block i, counted over all stages; a merging is in the block before it.

        The norms of the maps have the full rate. Source: microsoft/SimMIM optimizer.py (get_swin_layer).
        """
        part, _, rest = path.partition("/")
        if part == "patch_embed":
            return 0
        if part == "mergings":
            return sum(config.depths[: int(rest.split("/")[0]) + 1])
        if part != "stages":
            return None
        stage, kind, *_ = rest.split("/")
        blocks = 2 * np.arange(shape[0]) + (kind == "shifted")
        return (sum(config.depths[: int(stage)]) + blocks + 1).reshape(-1, *(1,) * (len(shape) - 1))

    def __init__(
        self, config: ConfigDict, image_size: layers.Size, remat: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.dtype, self.remat = dtype, remat
        self.depths, self.drop_path = tuple(config.depths), config.drop_path
        widths = [x.width for x in self.maps(config)]
        self.patch_embed = PatchEmbedding(config.dim, **options)

        def stage(dim: int, depth: int) -> Pair:
            make = lambda rngs: Pair(dim, config, dtype=dtype, rngs=rngs)
            return layers.stack_modules(make, depth // 2, rngs)

        self.stages = nnx.List([stage(*sizes) for sizes in zip(widths, config.depths, strict=True)])
        self.norms = nnx.List([layers.layer_norm(dim, 1e-5, **options) for dim in widths])
        self.mergings = nnx.List([Merging(dim, **options) for dim in widths[:-1]])

    def __call__(
        self, image_NHWC: Float[Array, "N H W 3"], train: bool = False, keys_N: layers.Keys = None
    ) -> list[layers.Map]:
        """The four maps; stochastic depth alone differs in training."""

        def apply(pair, x, inputs):
            number, rates = inputs
            return pair(x, rates, layers.fold_keys(keys_N, number)), None

        x, maps, pairs = self.patch_embed(image_NHWC.astype(self.dtype)), [], 0
        rates_P2 = jnp.linspace(0, self.drop_path, sum(self.depths)).reshape(-1, 2)
        for stage, depth in enumerate(self.depths):
            if stage:
                x = self.mergings[stage - 1](x)
            first, pairs = pairs, pairs + depth // 2
            inputs = (jnp.arange(first, pairs), rates_P2[first:pairs])
            x, _ = layers.scan_modules(self.stages[stage], apply, x, inputs, self.remat)
            maps.append(self.norms[stage](x))
        return maps
