"""MiT, the mix transformer of SegFormer: patches that overlap, and attention to a map whose cells are joined.

It knows no positions but those that the zeros around a map tell its convolutions, so that any size of image will do.

Sources: SegFormer, arXiv 2105.15203, sections 3.1 and 3.2; NVlabs/SegFormer mmseg/models/backbones/mix_transformer.py;
open-mmlab/mmsegmentation mmseg/models/backbones/mit.py; huggingface/transformers
models/segformer/modeling_segformer.py.
Shapes: N images, H and W pixels or cells, C channels, G heads, D channels a head, L blocks.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, check_divides, choose
from vspw_jax.models import layers
from vspw_jax.models.attention import softmax_attention
from vspw_jax.models.encoders import mit_rows
from vspw_jax.models.encoders.encoder import Encoder, FeatureMap
from vspw_jax.models.mix_feed_forward import MixFeedForward

STRIDES = (4, 8, 16, 32)
STAGES = len(STRIDES)
SIZES = (7, 3, 3, 3)
"""Of the patches."""


class Epsilons(NamedTuple):
    """What is added to the variances of layer norms: those of patches and of joined cells, and all others."""

    patches: float
    blocks: float


EPSILONS = {
    "nvlabs": Epsilons(1e-5, 1e-6),
    "mmseg": Epsilons(1e-6, 1e-6),
    "hugging_face": Epsilons(1e-5, 1e-5),
}
"""By `config.epsilons`: three codes for the same weights."""


class Embedding(nnx.Module):
    """Overlapping patches of a map to cells, and a norm."""

    def __init__(
        self,
        channels_in: int,
        dim: int,
        size: int,
        stride: int,
        epsilon: float,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.proj = layers.conv(channels_in, dim, size, stride, use_bias=True, dtype=dtype, rngs=rngs)
        self.norm = layers.layer_norm(dim, epsilon, dtype=dtype, rngs=rngs)

    def __call__(self, x_NHWC: layers.Map) -> layers.Map:
        return self.norm(self.proj(x_NHWC))


class Joining(nnx.Module):
    """So many by so many cells to one, and a norm; cells beyond the last whole patch are left out."""

    def __init__(self, dim: int, size: int, epsilon: float, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        init = layers.fan_out_normal
        self.conv = nnx.Conv(dim, dim, (size, size), size, padding="VALID", kernel_init=init, dtype=dtype, rngs=rngs)
        self.norm = layers.layer_norm(dim, epsilon, dtype=dtype, rngs=rngs)

    def __call__(self, x_NHWC: layers.Map) -> layers.Map:
        return self.norm(layers.by_patches(self.conv, x_NHWC))


class Attention(nnx.Module):
    """Attention of all cells to the cells that a `Joining` makes of them."""

    def __init__(
        self, dim: int, heads: int, reduction: int, epsilon: float, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.heads = heads
        self.query = layers.linear(dim, dim, **options)
        self.joining = Joining(dim, reduction, epsilon, **options) if reduction > 1 else None
        self.key_value = layers.linear(dim, 2 * dim, **options)
        self.proj = layers.linear(dim, dim, **options)

    def __call__(self, x_NHWC: layers.Map) -> layers.Map:
        seen = x_NHWC if self.joining is None else self.joining(x_NHWC)
        query, (key, value) = self.query(x_NHWC), jnp.split(self.key_value(seen), 2, axis=-1)
        output = softmax_attention(*(self.heads_of(x) for x in (query, key, value)))
        return self.proj(output.reshape(x_NHWC.shape))

    def heads_of(self, x_NHWC: layers.Map) -> Float[Array, "N H*W G D"]:
        """The cells of a map, each cut into heads."""
        return x_NHWC.reshape(len(x_NHWC), -1, self.heads, x_NHWC.shape[-1] // self.heads)


class Block(nnx.Module):
    """Pre-norm transformer block on a map, with stochastic depth."""

    def __init__(self, dim: int, reduction: int, config: ConfigDict, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options, epsilons = layers.Options(dtype=dtype, rngs=rngs), EPSILONS[config.epsilons]
        self.norm1 = layers.layer_norm(dim, epsilons.blocks, **options)
        self.attn = Attention(dim, dim // config.head_dim, reduction, epsilons.patches, **options)
        self.norm2 = layers.layer_norm(dim, epsilons.blocks, **options)
        self.mlp = MixFeedForward(dim, int(dim * config.mlp_ratio), **options)

    def __call__(self, x_NHWC: layers.Map, drop_rate: Float[Array, ""], keys_N: layers.Keys) -> layers.Map:
        branch = self.attn(self.norm1(x_NHWC))
        x_NHWC = x_NHWC + layers.drop_path(branch, drop_rate, layers.fold_keys(keys_N, 0))
        branch = self.mlp(self.norm2(x_NHWC))
        return x_NHWC + layers.drop_path(branch, drop_rate, layers.fold_keys(keys_N, 1))


class Stage(nnx.Module):
    """Patches, blocks whose variables are stacked, and a norm: a map to one of half its size, the first a quarter."""

    def __init__(self, number: int, config: ConfigDict, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options, epsilons = layers.Options(dtype=dtype, rngs=rngs), EPSILONS[config.epsilons]
        width, dim = (3, *config.dims)[number], config.dims[number]
        stride = STRIDES[number] // (1, *STRIDES)[number]
        self.patch_embed = Embedding(width, dim, SIZES[number], stride, epsilons.patches, **options)
        make = lambda rngs: Block(dim, config.reductions[number], config, dtype=dtype, rngs=rngs)
        self.blocks = layers.stack_modules(make, config.depths[number], rngs)
        self.norm = layers.layer_norm(dim, epsilons.blocks, **options)

    def __call__(
        self, x_NHWC: layers.Map, drop_rates_L: Float[Array, " L"], keys_N: layers.Keys, remat: str
    ) -> layers.Map:
        def apply(block, x, inputs):
            number, rate = inputs
            return block(x, rate, layers.fold_keys(keys_N, number)), None

        inputs = (jnp.arange(len(drop_rates_L)), drop_rates_L)
        x, _ = layers.scan_modules(self.blocks, apply, self.patch_embed(x_NHWC), inputs, remat)
        return self.norm(x)


class MiT(Encoder):
    """MiT: image to four maps of widths `dims` at 1/4, 1/8, 1/16, 1/32, each through a norm.

    The variables of a stage's blocks are stacked.

    Args:
      config: dims and depths (of the four stages), head_dim (channels of a head), reductions (cells a side that the
        stages' attention joins), mlp_ratio, epsilons (a key of `EPSILONS`), drop_path (linear from 0 over all blocks).
      image_size: any of which each map has as many cells a side as are joined; a side that a stride does not divide is
        rounded up.
      remat: a key of `layers.REMAT_POLICIES`, for blocks.
    """

    FIELDS = ("dims", "depths", "head_dim", "reductions", "mlp_ratio", "epsilons", "drop_path")
    PUBLISHED = {
        "MiT-B0": dict(dims=(32, 64, 160, 256), depths=(2, 2, 2, 2), head_dim=32),
        "MiT-B1": dict(dims=(64, 128, 320, 512), depths=(2, 2, 2, 2), head_dim=64),
        "MiT-B2": dict(dims=(64, 128, 320, 512), depths=(3, 4, 6, 3), head_dim=64),
        "MiT-B3": dict(dims=(64, 128, 320, 512), depths=(3, 4, 18, 3), head_dim=64),
        "MiT-B4": dict(dims=(64, 128, 320, 512), depths=(3, 8, 27, 3), head_dim=64),
        "MiT-B5": dict(dims=(64, 128, 320, 512), depths=(3, 6, 40, 3), head_dim=64),
    }
    STACKED = {f"stages/{stage}/blocks": 1 for stage in range(STAGES)}
    TORCH_NAMES = mit_rows.NAMES

    @classmethod
    def maps(cls, config: ConfigDict) -> tuple[FeatureMap, ...]:
        return tuple(FeatureMap(*pair) for pair in zip(config.dims, STRIDES, strict=True))

    @classmethod
    def check(cls, config: ConfigDict, image_size: layers.Size) -> None:
        choose(EPSILONS, config.epsilons, "model.encoder.epsilons")
        for name in ("dims", "depths", "reductions"):
            if len(config[name]) != STAGES:
                raise UserError(
                    f"model.encoder.{name} is {tuple(config[name])}: expected one number for each of the four stages."
                )
        for dim in config.dims:
            check_divides("model.encoder.head_dim", config.head_dim, dim)
        least = max(stride * (joined - 1) + 1 for stride, joined in zip(STRIDES, config.reductions, strict=True))
        if min(image_size) < least:
            raise UserError(
                f"model.image_size is {tuple(image_size)}: with model.encoder.reductions={tuple(config.reductions)} a "
                f"side needs at least {least} pixels, as so many cells a side of a map are joined."
            )

    @classmethod
    def num_layers(cls, config: ConfigDict) -> int:
        return sum(config.depths)

    @classmethod
    def layer_id(cls, config: ConfigDict, path: str, shape: tuple[int, ...]) -> int | np.ndarray | None:
        """0 for the first patches, i + 1 for block i, counted over all stages; a stage's other parts are in the block
        before them. Ours: no code decays MiT's rates by layer."""
        _, stage, part, *_ = path.split("/")
        before = sum(config.depths[: int(stage)])
        if part == "blocks":
            return (before + np.arange(1, shape[0] + 1)).reshape(-1, *(1,) * (len(shape) - 1))
        return before + (config.depths[int(stage)] if part == "norm" else 0)

    def __init__(
        self, config: ConfigDict, image_size: layers.Size, remat: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.check(config, image_size)
        self.dtype, self.remat = dtype, remat
        self.depths, self.drop_path = tuple(config.depths), config.drop_path
        self.stages = nnx.List([Stage(number, config, dtype=dtype, rngs=rngs) for number in range(STAGES)])

    def __call__(
        self, image_NHWC: Float[Array, "N H W 3"], train: bool = False, keys_N: layers.Keys = None
    ) -> list[layers.Map]:
        """The four maps; stochastic depth alone differs in training."""
        ends = np.cumsum(self.depths)[:-1].tolist()
        rates = jnp.split(jnp.linspace(0, self.drop_path, sum(self.depths)), ends)
        maps: list[layers.Map] = [image_NHWC.astype(self.dtype)]
        for number, stage in enumerate(self.stages):
            maps.append(stage(maps[-1], rates[number], layers.fold_keys(keys_N, number), self.remat))
        return maps[1:]
