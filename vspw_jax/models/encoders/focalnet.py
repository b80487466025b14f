"""FocalNet: blocks that modulate each cell by its surroundings, seen through convolutions that grow, and by the mean.

Sources: Focal Modulation Networks, arXiv 2203.11926; microsoft/FocalNet classification/focalnet.py and
segmentation/mmseg/models/backbones/focalnet.py; FocalNet/FocalNet-DINO models/dino/focal.py, which has the options of
the larger sizes; huggingface/transformers models/focalnet/modeling_focalnet.py.
Shapes: N images, H and W pixels or cells, C channels, L levels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.models import layers
from vspw_jax.models.convolution import convolve, depthwise
from vspw_jax.models.encoders import beit, focalnet_rows
from vspw_jax.models.encoders.encoder import Encoder, FeatureMap

STAGES = 4
PATCH = 4


class Modulation(nnx.Module):
    """Each cell's query times what is around it: equations 4 to 6 of the paper.

    A level's convolution reads what the level before it gives; gates, which have no bounds, weigh the levels and the
    mean of the last one. As that is the mean of the whole map, a crop and its padding change every cell.
    """

    def __init__(self, dim: int, config: ConfigDict, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.levels, self.divisor = config.levels, config.levels + 1 if config.normalize_modulator else 1
        self.query_context_gates = layers.linear(dim, 2 * dim + config.levels + 1, **options)
        self.context_convs = nnx.List(
            [
                layers.conv(dim, dim, size, groups=dim, kernel_init=layers.torch_uniform, **options)
                for size in range(config.window, config.window + 2 * config.levels, 2)
            ]
        )
        self.modulator = layers.linear(dim, dim, kernel_init=layers.torch_uniform, **options)
        self.norm = layers.layer_norm(dim, 1e-5, **options) if config.modulation_norm else None
        self.proj = layers.linear(dim, dim, **options)

    def __call__(self, x_NHWC: layers.Map) -> layers.Map:
        dim = x_NHWC.shape[-1]
        query, context, gates = jnp.split(self.query_context_gates(x_NHWC), (dim, 2 * dim), axis=-1)
        seen = jnp.zeros_like(query)
        for level, conv in enumerate(self.context_convs):
            context = jax.nn.gelu(depthwise(conv, context), approximate=False)
            seen += context * gates[..., level, None]
        mean = jax.nn.gelu(context.mean((1, 2), keepdims=True), approximate=False)
        seen += mean * gates[..., -1, None]
        modulated = query * self.modulator(seen / self.divisor)
        return self.proj(modulated if self.norm is None else self.norm(modulated))


class Block(nnx.Module):
    """Modulation and feed-forward, with norms before or behind them, perhaps layer scale, and stochastic depth."""

    def __init__(self, dim: int, config: ConfigDict, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options, scale = layers.Options(dtype=dtype, rngs=rngs), config.layer_scale
        self.post_norm = config.post_norm
        self.norm1 = layers.layer_norm(dim, 1e-5, **options)
        self.modulation = Modulation(dim, config, **options)
        self.gamma_1 = nnx.Param(jnp.full(dim, scale, jnp.float32)) if scale else None
        self.norm2 = layers.layer_norm(dim, 1e-5, **options)
        self.mlp = beit.FeedForward(dim, int(dim * config.mlp_ratio), **options)
        self.gamma_2 = nnx.Param(jnp.full(dim, scale, jnp.float32)) if scale else None

    def __call__(self, x_NHWC: layers.Map, drop_rate: Float[Array, ""], keys_N: layers.Keys) -> layers.Map:
        parts = ((self.norm1, self.modulation, self.gamma_1), (self.norm2, self.mlp, self.gamma_2))
        return layers.add_branches(x_NHWC, parts, drop_rate, keys_N, self.post_norm)


class Embedding(nnx.Module):
    """A convolution that strides, and a norm; a side that the stride does not divide is padded with zeros at its end.

    Args:
      overlaps: whether patches overlap: of 7x7 pixels padded by 2 for a stride of 4, of 3x3 cells padded by 1 for a
        stride of 2; else they are as large as the stride.
    """

    def __init__(
        self, channels_in: int, dim: int, stride: int, overlaps: bool, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        size, padding = ({4: 7, 2: 3}[stride], stride // 2) if overlaps else (stride, 0)
        self.stride = stride
        self.proj = nnx.Conv(
            channels_in,
            dim,
            (size, size),
            stride,
            padding=padding,
            kernel_init=layers.torch_uniform,
            conv_general_dilated=convolve,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = layers.layer_norm(dim, 1e-5, dtype=dtype, rngs=rngs)

    def __call__(self, x_NHWC: Float[Array, "N H W C"]) -> layers.Map:
        bottom, right = (-side % self.stride for side in x_NHWC.shape[1:3])
        return self.norm(self.proj(jnp.pad(x_NHWC, ((0, 0), (0, bottom), (0, right), (0, 0)))))


OF_SMALL = dict(overlaps=False, post_norm=False, layer_scale=0.0, normalize_modulator=False)
OF_LARGE = dict(dim=192, depths=(2, 2, 18, 2), overlaps=True, post_norm=True, layer_scale=1e-4)


class FocalNet(Encoder):
    """FocalNet: image to four maps of width `dim`, 2, 4 and 8 times `dim` at 1/4, 1/8, 1/16, 1/32, each through a norm.

    The variables of a stage's blocks are stacked.

    Args:
      config: dim (width of the first map), depths (blocks of the four stages), levels (convolutions of a block), window
        (size of their first; each is larger by 2 than the one before), overlaps (see `Embedding`), post_norm (norms
        stand behind what they norm), layer_scale (initial value, 0 for none), modulation_norm (one more norm in the
        modulation), normalize_modulator (what is seen is divided by levels + 1), mlp_ratio, drop_path (linear from 0
        over all blocks).
      image_size: any.
      remat: a key of `layers.REMAT_POLICIES`, for blocks.
    """

    FIELDS = (
        *("dim", "depths", "levels", "window", "overlaps", "post_norm", "layer_scale", "modulation_norm"),
        *("normalize_modulator", "mlp_ratio", "drop_path"),
    )
    # L: classification/configs/focalnet_large_fl{3,4}.yaml. The others' window is another in segmentation networks.
    PUBLISHED = {
        "FocalNet-T (SRF)": dict(dim=96, depths=(2, 2, 6, 2), levels=2, **OF_SMALL),
        "FocalNet-T (LRF)": dict(dim=96, depths=(2, 2, 6, 2), levels=3, **OF_SMALL),
        "FocalNet-S (SRF)": dict(dim=96, depths=(2, 2, 18, 2), levels=2, **OF_SMALL),
        "FocalNet-S (LRF)": dict(dim=96, depths=(2, 2, 18, 2), levels=3, **OF_SMALL),
        "FocalNet-B (SRF)": dict(dim=128, depths=(2, 2, 18, 2), levels=2, **OF_SMALL),
        "FocalNet-B (LRF)": dict(dim=128, depths=(2, 2, 18, 2), levels=3, **OF_SMALL),
        "FocalNet-L (FL3)": dict(levels=3, window=5, normalize_modulator=False, **OF_LARGE),
        "FocalNet-L (FL4)": dict(levels=4, window=3, normalize_modulator=True, **OF_LARGE),
    }
    STACKED = {f"stages/{stage}": 1 for stage in range(STAGES)}
    NO_DECAY = r"(^|/)gamma_[12]$"
    TORCH_NAMES = focalnet_rows.NAMES

    @classmethod
    def maps(cls, config: ConfigDict) -> tuple[FeatureMap, ...]:
        return tuple(FeatureMap(config.dim * 2**stage, PATCH * 2**stage) for stage in range(STAGES))

    @classmethod
    def check(cls, config: ConfigDict, image_size: layers.Size) -> None:
        if len(config.depths) != STAGES:
            raise UserError(
                f"model.encoder.depths is {tuple(config.depths)}: expected four counts of blocks, such as (2, 2, 6, 2)."
            )
        if not config.window % 2:
            raise UserError(f"model.encoder.window is {config.window}: expected an odd number, such as 3.")

    @classmethod
    def num_layers(cls, config: ConfigDict) -> int:
        return sum(config.depths)

    @classmethod
    def layer_id(cls, config: ConfigDict, path: str, shape: tuple[int, ...]) -> int | np.ndarray | None:
        """As Swin's: 0 for patches, i + 1 for block i, counted over all stages; a halving is in the block before it.

        The norms of the maps have the full rate. Ours: no code decays FocalNet's rates by layer.
        """
        part, _, rest = path.partition("/")
        if part == "patch_embed":
            return 0
        if part == "norms":
            return None
        stage = int(rest.split("/")[0])
        if part == "halvings":
            return sum(config.depths[: stage + 1])
        blocks = sum(config.depths[:stage]) + np.arange(1, shape[0] + 1)
        return blocks.reshape(-1, *(1,) * (len(shape) - 1))

    def __init__(
        self, config: ConfigDict, image_size: layers.Size, remat: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.check(config, image_size)
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.dtype, self.remat = dtype, remat
        self.depths, self.drop_path = tuple(config.depths), config.drop_path
        widths = [x.width for x in self.maps(config)]
        self.patch_embed = Embedding(3, config.dim, PATCH, config.overlaps, **options)

        def stage(dim: int, depth: int) -> Block:
            return layers.stack_modules(lambda rngs: Block(dim, config, dtype=dtype, rngs=rngs), depth, rngs)

        self.stages = nnx.List([stage(*sizes) for sizes in zip(widths, config.depths, strict=True)])
        self.norms = nnx.List([layers.layer_norm(dim, 1e-5, **options) for dim in widths])
        self.halvings = nnx.List([Embedding(dim, 2 * dim, 2, config.overlaps, **options) for dim in widths[:-1]])

    def __call__(
        self, image_NHWC: Float[Array, "N H W 3"], train: bool = False, keys_N: layers.Keys = None
    ) -> list[layers.Map]:
        """The four maps; stochastic depth alone differs in training."""

        def apply(block, x, inputs):
            number, rate = inputs
            return block(x, rate, layers.fold_keys(keys_N, number)), None

        x, maps = self.patch_embed(image_NHWC.astype(self.dtype)), []
        numbers, rates = jnp.arange(sum(self.depths)), jnp.linspace(0, self.drop_path, sum(self.depths))
        ends = np.cumsum(self.depths)
        for stage, (end, depth) in enumerate(zip(ends, self.depths, strict=True)):
            x = self.halvings[stage - 1](x) if stage else x
            inputs = (numbers[end - depth : end], rates[end - depth : end])
            x, _ = layers.scan_modules(self.stages[stage], apply, x, inputs, self.remat)
            maps.append(self.norms[stage](x))
        return maps
