"""ViT-Adapter around BEiT: a convolutional pyramid exchanges features with the transformer.

Source: czczup/ViT-Adapter segmentation/mmseg_custom/models/backbones/{beit_adapter,adapter_modules}.py.
Shapes: N images, H and W patches (1/16), S = H*W patch tokens, P = 21/4 * S pyramid tokens (1/8, 1/16, 1/32), C width.
"""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, check_divides
from vspw_jax.models import layers
from vspw_jax.models.convolution import depthwise
from vspw_jax.models.deformable_attention import DeformableAttention, cell_centres
from vspw_jax.models.encoders import beit, vit_adapter_rows

Pyramid = Float[Array, "N P C"]

INTERACTIONS_UNROLLED_ON: tuple[str, ...] = ("cpu",)
"""Platforms where the interactions are unrolled: around the blocks' loop, a loop of them would make the gradient take
1.8 times as long on CPU. On TPU a loop leaves a quarter of the program to compile. (On GPU `layers` unrolls all.)"""


def pyramid_shapes(window: layers.Size) -> tuple[layers.Size, layers.Size, layers.Size]:
    """Map sizes at 1/8, 1/16 and 1/32 for a window (H, W) of patches."""
    height, width = window
    return (2 * height, 2 * width), (height, width), (height // 2, width // 2)


def adapter_attention(config: ConfigDict, num_levels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> DeformableAttention:
    """The deformable attention of an injector or an extractor."""
    sizes = (config.dim, config.adapter_heads, num_levels, config.adapter_points, config.adapter_value_ratio)
    return DeformableAttention(*sizes, dtype=dtype, rngs=rngs)


class SpatialPrior(nnx.Module):
    """Convolutional stem and pyramid: maps of width C at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, dim: int, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        widths = (channels, 2 * channels, 4 * channels, 4 * channels)
        strides = (2, 1, 1)
        inputs = (3, channels, channels)
        self.stem = nnx.List(
            [
                layers.ConvNormRelu(width, channels, stride=stride, **options)
                for width, stride in zip(inputs, strides, strict=True)
            ]
        )
        self.convs = nnx.List(
            [
                layers.ConvNormRelu(low, high, stride=2, **options)
                for low, high in zip(widths[:-1], widths[1:], strict=True)
            ]
        )
        self.projections = nnx.List(
            [layers.linear(width, dim, kernel_init=layers.fan_out_normal, **options) for width in widths]
        )

    def __call__(self, image_NHWC: Float[Array, "N H*16 W*16 3"], train: bool) -> list[layers.Map]:
        x = image_NHWC
        for layer in self.stem:
            x = layer(x, train)
        maps = [nnx.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))]
        for layer in self.convs:
            maps.append(layer(maps[-1], train))
        return [project(x) for project, x in zip(self.projections, maps, strict=True)]


class ConvFeedForward(nnx.Module):
    """Linear, one depthwise 3x3 shared by the three maps, GELU, linear."""

    def __init__(self, dim: int, hidden: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.fc1 = layers.linear(dim, hidden, **options)
        self.depthwise = layers.conv(hidden, hidden, 3, use_bias=True, groups=hidden, **options)
        self.fc2 = layers.linear(hidden, dim, **options)

    def __call__(self, tokens_NPC: Pyramid, window: layers.Size) -> Pyramid:
        maps = layers.split_maps(self.fc1(tokens_NPC), pyramid_shapes(window))
        mixed = jnp.concatenate([layers.to_tokens(depthwise(self.depthwise, x)) for x in maps], axis=1)
        return self.fc2(jax.nn.gelu(mixed, approximate=False))


class Injector(nnx.Module):
    """Patch tokens look at the pyramid; the result enters scaled by gamma."""

    def __init__(self, config: ConfigDict, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        dim = config.dim
        self.query_norm = layers.layer_norm(dim, 1e-6, **options)
        self.feature_norm = layers.layer_norm(dim, 1e-6, **options)
        self.attn = adapter_attention(config, num_levels=3, **options)
        self.gamma = nnx.Param(jnp.full(dim, config.layer_scale, jnp.float32))

    def __call__(self, x_NSC: layers.Tokens, pyramid_NPC: Pyramid, window: layers.Size) -> layers.Tokens:
        attended = self.attn(
            self.query_norm(x_NSC), cell_centres([window]), self.feature_norm(pyramid_NPC), pyramid_shapes(window)
        )
        return x_NSC + self.gamma[...].astype(x_NSC.dtype) * attended


class Extractor(nnx.Module):
    """Pyramid tokens look at the patch tokens, then pass a convolutional feed-forward."""

    def __init__(self, config: ConfigDict, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        dim = config.dim
        self.drop_rate = config.drop_path
        self.query_norm = layers.layer_norm(dim, 1e-6, **options)
        self.feature_norm = layers.layer_norm(dim, 1e-6, **options)
        self.attn = adapter_attention(config, num_levels=1, **options)
        self.ffn_norm = layers.layer_norm(dim, 1e-6, **options)
        self.ffn = ConvFeedForward(dim, int(dim * config.adapter_ffn_ratio), **options)

    def __call__(
        self, pyramid_NPC: Pyramid, x_NSC: layers.Tokens, window: layers.Size, keys_N: layers.Keys = None
    ) -> Pyramid:
        centres = cell_centres(pyramid_shapes(window))
        pyramid_NPC += self.attn(self.query_norm(pyramid_NPC), centres, self.feature_norm(x_NSC), [window])
        branch = self.ffn(self.ffn_norm(pyramid_NPC), window)
        return pyramid_NPC + layers.drop_path(branch, self.drop_rate, keys_N)


class Interaction(nnx.Module):
    """Injector, a run of `depth` transformer blocks, extractor; the blocks' variables are stacked."""

    def __init__(
        self, config: ConfigDict, depth: int, window: layers.Size | None, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        """`window` is that of the blocks' relative positions, None where they have none."""
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.injector = Injector(config, **options)
        self.blocks = layers.stack_modules(
            lambda rngs: beit.Block(
                config.dim, config.heads, config.mlp_ratio, window, config.layer_scale, dtype=dtype, rngs=rngs
            ),
            depth,
            rngs,
        )
        self.extractor = Extractor(config, **options)

    def __call__(
        self,
        state: tuple[Float[Array, "N 1 C"], layers.Tokens, Pyramid],
        drop_rates: Float[Array, " depth"],
        window: layers.Size,
        keys_N: layers.Keys,
        remat: str,
    ) -> tuple[Float[Array, "N 1 C"], layers.Tokens, Pyramid]:
        """One exchange: (class token, patches, pyramid) before and after."""
        token, x, pyramid = state
        keys = layers.fold_keys(keys_N, 0)
        inject = layers.rematerialised(lambda x, pyramid: self.injector(x, pyramid, window), remat)
        extract = layers.rematerialised(lambda pyramid, x: self.extractor(pyramid, x, window, keys), remat)
        x = jnp.concatenate([token, inject(x, pyramid)], axis=1)

        def apply(block, x, layer):
            number, rate = layer
            return block(x, rate, layers.fold_keys(keys_N, 1 + number)), None

        x, _ = layers.scan_modules(self.blocks, apply, x, (jnp.arange(len(drop_rates)), drop_rates), remat)
        token, x = x[:, :1], x[:, 1:]
        return token, x, extract(pyramid, x)


class ViTAdapter(beit.BeitEncoder):
    """BEiT with ViT-Adapter: image to four maps of width `dim` at 1/4, 1/8, 1/16, 1/32.

    The blocks are divided into four interactions of equal length. Their variables are stacked: leading axes
    (interaction, block) under `interactions/blocks`, (interaction,) under the rest of `interactions`.

    Args:
      config: dim, depth, heads, mlp_ratio, layer_scale, drop_path, adapter_channels, adapter_heads,
        adapter_points, adapter_value_ratio, adapter_ffn_ratio, extra_extractors (`configs/parts/models.py` explains).
      image_size: (height, width) of the input in pixels, multiples of 32; fixes the relative position tables.
      remat: a key of `layers.REMAT_POLICIES`.
    """

    NUM_INTERACTIONS = 4

    FIELDS: ClassVar[tuple[str, ...]] = (
        *("dim", "depth", "heads", "mlp_ratio", "layer_scale", "drop_path"),
        *("adapter_channels", "adapter_heads", "adapter_points", "adapter_value_ratio", "adapter_ffn_ratio"),
        "extra_extractors",
    )
    BLOCKS = "interactions/blocks"
    STACKED = {"interactions": 1, "interactions/blocks": 2}
    TORCH_NAMES = vit_adapter_rows.NAMES

    @classmethod
    def check(cls, config: ConfigDict, image_size: layers.Size) -> None:
        check_divides("model.encoder.heads", config.heads, config.dim)
        values = int(config.dim * config.adapter_value_ratio)
        check_divides("model.encoder.adapter_heads", config.adapter_heads, values)
        if any(size % 32 for size in image_size):
            nearest = tuple(max(32, round(size / 32) * 32) for size in image_size)
            raise UserError(
                f"The crop is {tuple(image_size)} pixels, but ViT-Adapter needs multiples of 32 (its coarsest map is "
                f"at 1/32). Set --config.model.image_size='{nearest}'."
            )
        if config.depth % cls.NUM_INTERACTIONS:
            raise UserError(f"model.encoder.depth is {config.depth}: expected a multiple of {cls.NUM_INTERACTIONS}.")

    def __init__(
        self, config: ConfigDict, image_size: layers.Size, remat: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        super().__init__(config, image_size, remat, dtype=dtype, rngs=rngs)
        options = layers.Options(dtype=dtype, rngs=rngs)
        depth = config.depth // self.NUM_INTERACTIONS

        self.prior = SpatialPrior(config.dim, config.adapter_channels, **options)
        self.level_embed = nnx.Param(jax.random.normal(rngs.params(), (3, config.dim)))
        self.interactions = layers.stack_modules(
            lambda rngs: Interaction(config, depth, self.relative_window(config), dtype=dtype, rngs=rngs),
            self.NUM_INTERACTIONS,
            rngs,
        )
        self.extra_extractors = nnx.List([Extractor(config, **options) for _ in range(config.extra_extractors)])
        self.up = layers.Upsample2x(config.dim, config.dim, **options)
        self.norms = nnx.List([layers.batch_norm(config.dim, **options) for _ in range(4)])

    def relative_window(self, config: ConfigDict) -> layers.Size | None:
        """Patches (H, W) of the blocks' relative positions. A subclass may have blocks without."""
        return self.window

    def __call__(
        self, image_NHWC: Float[Array, "N H*16 W*16 3"], train: bool = False, keys_N: layers.Keys = None
    ) -> list[layers.Map]:
        """Four maps (N, h, w, dim) at 1/4, 1/8, 1/16, 1/32 of images (N, *image_size, 3)."""
        token, x = self.embed(image_NHWC)
        quarter, *pyramid = self.prior(image_NHWC.astype(self.dtype), train)
        level_embed = self.level_embed[...].astype(self.dtype)
        pyramid = [layers.to_tokens(x) + embed for x, embed in zip(pyramid, level_embed, strict=True)]

        def apply(interaction, state, layer):
            number, rates = layer
            keys = layers.fold_keys(keys_N, number)
            state = interaction(state, rates, self.window, keys, self.remat)
            return state, state[1]

        rates = jnp.linspace(0, self.drop_path, self.depth).reshape(self.NUM_INTERACTIONS, -1)
        numbers = jnp.arange(self.NUM_INTERACTIONS)
        state = (token, x, jnp.concatenate(pyramid, axis=1))
        unroll = jax.default_backend() in INTERACTIONS_UNROLLED_ON
        state, patches = layers.scan_modules(self.interactions, apply, state, (numbers, rates), unroll=unroll)
        _, x, pyramid = state
        for number, extractor in enumerate(self.extra_extractors):
            keys = layers.fold_keys(keys_N, self.NUM_INTERACTIONS + number)
            extract = functools.partial(extractor, window=self.window, keys_N=keys)
            pyramid = layers.rematerialised(extract, self.remat)(pyramid, x)

        eighth, *coarse = layers.split_maps(pyramid, pyramid_shapes(self.window))
        maps = [self.up(eighth) + quarter, eighth, *coarse]
        patches = patches.reshape(self.NUM_INTERACTIONS, x.shape[0], *self.window, -1)
        maps = [x + layers.resize_bilinear(patch, *x.shape[1:3]) for x, patch in zip(maps, patches, strict=True)]
        return [norm(x, use_running_average=not train) for norm, x in zip(self.norms, maps, strict=True)]
