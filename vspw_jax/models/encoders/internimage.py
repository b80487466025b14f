"""InternImage: stages of blocks of deformable convolution and feed-forward.

Sources: InternImage, arXiv 2211.05778; OpenGVLab/InternImage
segmentation/mmseg_custom/models/backbones/intern_image.py.
Shapes: N images, H and W pixels or cells, C channels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, check_divides
from vspw_jax.models import layers
from vspw_jax.models.encoders import beit, internimage_rows
from vspw_jax.models.encoders.deformable_convolution import DeformableConvolution
from vspw_jax.models.encoders.encoder import Encoder, FeatureMap

STAGES = 4
PATCH = 4


class Block(nnx.Module):
    """Deformable convolution and feed-forward, with norms before or behind them, layer scale and stochastic depth."""

    def __init__(self, dim: int, config: ConfigDict, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.post_norm = config.post_norm
        self.norm1 = layers.layer_norm(dim, 1e-6, **options)
        self.dcn = DeformableConvolution(dim, dim // config.group_width, config.reach, **options)
        self.gamma_1 = nnx.Param(jnp.full(dim, config.layer_scale, jnp.float32))
        self.norm2 = layers.layer_norm(dim, 1e-6, **options)
        self.mlp = beit.FeedForward(dim, int(dim * config.mlp_ratio), **options)
        self.gamma_2 = nnx.Param(jnp.full(dim, config.layer_scale, jnp.float32))

    def __call__(self, x_NHWC: layers.Map, drop_rate: Float[Array, ""], keys_N: layers.Keys) -> layers.Map:
        parts = ((self.norm1, self.dcn, self.gamma_1), (self.norm2, self.mlp, self.gamma_2))
        return layers.add_branches(x_NHWC, parts, drop_rate, keys_N, self.post_norm)


class Halving(nnx.Module):
    """A 3x3 convolution that strides by 2, and a norm: a side of n cells becomes one of ceil(n / 2)."""

    def __init__(self, channels_in: int, dim: int, use_bias: bool, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.conv = layers.conv(
            channels_in, dim, 3, stride=2, use_bias=use_bias, kernel_init=layers.torch_uniform, **options
        )
        self.norm = layers.layer_norm(dim, 1e-6, **options)

    def __call__(self, x_NHWC: Float[Array, "N H W C"]) -> layers.Map:
        return self.norm(self.conv(x_NHWC))


class InternImage(Encoder):
    """InternImage: image to four maps of width `dim`, 2, 4 and 8 times `dim` at 1/4, 1/8, 1/16, 1/32.

    The variables of a stage's blocks are stacked. Where norms stand before what they norm, each map goes through one
    more, which the next stage sees too.

    Args:
      config: dim (width of the first map), depths (blocks of the four stages), group_width (channels of a group),
        post_norm (norms stand behind what they norm), layer_scale (initial value), reach (see
        `DeformableConvolution`), mlp_ratio, drop_path (linear from 0 over all blocks).
      image_size: any.
      remat: a key of `layers.REMAT_POLICIES`, for blocks.
    """

    FIELDS = ("dim", "depths", "group_width", "post_norm", "layer_scale", "reach", "mlp_ratio", "drop_path")
    PUBLISHED = {
        "InternImage-T": dict(dim=64, depths=(4, 4, 18, 4), post_norm=False, reach=1.0),
        "InternImage-S": dict(dim=80, depths=(4, 4, 21, 4), post_norm=True, reach=1.0),
        "InternImage-B": dict(dim=112, depths=(4, 4, 21, 4), post_norm=True, reach=1.0),
        "InternImage-L": dict(dim=160, depths=(5, 5, 22, 5), post_norm=True, reach=2.0),
        "InternImage-XL": dict(dim=192, depths=(5, 5, 24, 5), post_norm=True, reach=2.0),
    }
    STACKED = {f"stages/{stage}": 1 for stage in range(STAGES)}
    NO_DECAY = r"(^|/)gamma_[12]$"
    TORCH_NAMES = internimage_rows.NAMES

    @classmethod
    def maps(cls, config: ConfigDict) -> tuple[FeatureMap, ...]:
        return tuple(FeatureMap(config.dim * 2**stage, PATCH * 2**stage) for stage in range(STAGES))

    @classmethod
    def check(cls, config: ConfigDict, image_size: layers.Size) -> None:
        if len(config.depths) != STAGES:
            raise UserError(
                f"model.encoder.depths is {tuple(config.depths)}: expected four counts of blocks, as (4, 4, 18, 4)."
            )
        check_divides("model.encoder.group_width", config.group_width, config.dim)
        if not config.layer_scale or config.reach <= 0:
            raise UserError(
                f"model.encoder.layer_scale is {config.layer_scale} and reach is {config.reach}: expected numbers "
                "above 0, such as 1.0. InternImage-H and G, which have no layer scale, are not built here."
            )

    @classmethod
    def num_layers(cls, config: ConfigDict) -> int:
        return sum(config.depths)

    @classmethod
    def layer_id(cls, config: ConfigDict, path: str, shape: tuple[int, ...]) -> int | np.ndarray | None:
        """0 for the stem, i + 1 for block i, counted over all stages; a halving and the norm of a map are with the
        block behind them, the norm of the last map with the first block of its stage.

        Source: segmentation/mmcv_custom/custom_layer_decay_optimizer_constructor.py.
        """
        part, _, rest = path.partition("/")
        if part in ("stem", "patch_embed"):
            return 0
        stage = int(rest.split("/")[0])
        if part in ("halvings", "norms"):
            return 1 + sum(config.depths[: min(stage + 1, STAGES - 1)])
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
        self.stem = Halving(3, config.dim // 2, True, **options)
        self.patch_embed = Halving(config.dim // 2, config.dim, True, **options)

        def stage(dim: int, depth: int) -> Block:
            return layers.stack_modules(lambda rngs: Block(dim, config, dtype=dtype, rngs=rngs), depth, rngs)

        self.stages = nnx.List([stage(*sizes) for sizes in zip(widths, config.depths, strict=True)])
        self.halvings = nnx.List([Halving(dim, 2 * dim, False, **options) for dim in widths[:-1]])
        normed = [] if config.post_norm else widths
        self.norms = nnx.List([layers.layer_norm(dim, 1e-6, **options) for dim in normed])

    def __call__(
        self, image_NHWC: Float[Array, "N H W 3"], train: bool = False, keys_N: layers.Keys = None
    ) -> list[layers.Map]:
        """The four maps; stochastic depth alone differs in training."""

        def apply(block, x, inputs):
            number, rate = inputs
            return block(x, rate, layers.fold_keys(keys_N, number)), None

        x, maps = jax.nn.gelu(self.stem(image_NHWC.astype(self.dtype)), approximate=False), []
        numbers, rates = jnp.arange(sum(self.depths)), jnp.linspace(0, self.drop_path, sum(self.depths))
        ends = np.cumsum(self.depths)
        for stage, (end, depth) in enumerate(zip(ends, self.depths, strict=True)):
            x = self.halvings[stage - 1](x) if stage else self.patch_embed(x)
            inputs = (numbers[end - depth : end], rates[end - depth : end])
            x, _ = layers.scan_modules(self.stages[stage], apply, x, inputs, self.remat)
            x = self.norms[stage](x) if self.norms else x
            maps.append(x)
        return maps
