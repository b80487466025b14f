"""ResNet with bottleneck blocks, dilated where its output stride is less than 32.

Sources: Deep Residual Learning, arXiv 1512.03385; pytorch/vision torchvision/models/resnet.py, where a block's stride
is in its 3x3 convolution; open-mmlab/mmsegmentation mmseg/models/backbones/resnet.py for the deep stem (its ResNetV1c,
arXiv 1812.01187 section 4.2). Dilation: arXiv 1606.00915; the first block of a dilated stage has the dilation of the
stage before, as in both codes.
Shapes: N images, H and W pixels or cells, C channels.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, choose
from vspw_jax.models import layers
from vspw_jax.models.encoders import resnet_rows
from vspw_jax.models.encoders.encoder import Encoder, FeatureMap

STAGES = 4
OUTPUT_STRIDES = (8, 16, 32)
EXPANSION = 4
"""A block's output is so many times as wide as its 3x3 convolution."""


class Place(NamedTuple):
    """Of a stage: its first block's stride and dilation, the dilation of the others, and the stride of its map."""

    step: int
    first_dilation: int
    dilation: int
    stride: int


def places(output_stride: int) -> Iterator[Place]:
    """The stages, fine to coarse. A stage that may not halve its map doubles its dilation."""
    stride, dilation = 4, 1
    for stage in range(STAGES):
        before, step = dilation, 1
        if stage and stride < output_stride:
            step, stride = 2, 2 * stride
        elif stage:
            dilation *= 2
        yield Place(step, before, dilation, stride)


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolution, added to the input; where size or width change, another fits the input to it."""

    def __init__(
        self, channels_in: int, width: int, step: int, dilation: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        channels_out = EXPANSION * width
        self.step = step
        self.conv1 = layers.ConvNormRelu(channels_in, width, 1, **options)
        self.conv2 = layers.ConvNormRelu(width, width, 3, step, dilation, **options)
        # A scale of 0 at first, as mmseg's zero_init_residual (arXiv 1706.02677, 5.1): a fresh block is the identity.
        self.conv3 = layers.ConvNorm(width, channels_out, 1, scale_init=nnx.initializers.zeros, **options)
        changes = step > 1 or channels_in != channels_out
        self.shortcut = layers.ConvNorm(channels_in, channels_out, 1, **options) if changes else None

    def __call__(self, x_NHWC: layers.Map, train: bool) -> layers.Map:
        branch = self.conv3(self.conv2(self.conv1(x_NHWC, train), train), train)
        if self.shortcut is not None:
            x_NHWC = self.shortcut(x_NHWC[:, :: self.step, :: self.step], train)
        return jax.nn.relu(x_NHWC + branch)


class Stage(nnx.Module):
    """Blocks of one width: the first, and the others (`rest`), whose variables are stacked."""

    def __init__(
        self, channels_in: int, width: int, depth: int, place: Place, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.first = Bottleneck(channels_in, width, place.step, place.first_dilation, dtype=dtype, rngs=rngs)
        make = lambda rngs: Bottleneck(EXPANSION * width, width, 1, place.dilation, dtype=dtype, rngs=rngs)
        self.rest = layers.stack_modules(make, depth - 1, rngs) if depth > 1 else None

    def __call__(self, x_NHWC: layers.Map, train: bool, remat: str) -> layers.Map:
        x_NHWC = self.first(x_NHWC, train)
        if self.rest is not None:
            apply = lambda block, x, _: (block(x, train), None)
            x_NHWC, _ = layers.scan_modules(self.rest, apply, x_NHWC, remat=remat, changes=train)
        return x_NHWC


def plain_stem(width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> list[layers.ConvNormRelu]:
    """One 7x7 convolution of stride 2."""
    return [layers.ConvNormRelu(3, width, 7, 2, dtype=dtype, rngs=rngs)]


def deep_stem(width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> list[layers.ConvNormRelu]:
    """Three 3x3 convolutions, the first of stride 2 (V1c)."""
    sizes = ((3, width // 2, 2), (width // 2, width // 2, 1), (width // 2, width, 1))
    return [layers.ConvNormRelu(before, after, 3, step, dtype=dtype, rngs=rngs) for before, after, step in sizes]


STEMS = {"plain": plain_stem, "deep": deep_stem}
"""By `config.stem`."""


class ResNet(Encoder):
    """ResNet: image to four maps of width 4, 8, 16 and 32 times `width` at 1/4, 1/8 and as `output_stride` lets.

    Args:
      config: stem (a key of `STEMS`), width (of the stem; 64 in every published one), depths (blocks of the four
        stages; 3, 4, 6, 3 is ResNet-50 and 3, 4, 23, 3 is ResNet-101), output_stride (8, 16 or 32: pixels from one cell
        of the coarsest map to the next).
      image_size: any; a side that a stride does not divide is rounded up to the next cell.
      remat: a key of `layers.REMAT_POLICIES`, for all blocks but the first of each stage.
    """

    FIELDS = ("stem", "width", "depths", "output_stride")
    PUBLISHED = {
        "ResNet-50": dict(width=64, depths=(3, 4, 6, 3)),
        "ResNet-101": dict(width=64, depths=(3, 4, 23, 3)),
        "ResNet-152": dict(width=64, depths=(3, 8, 36, 3)),
    }
    STACKED = {f"stages/{stage}/rest": 1 for stage in range(STAGES)}
    TORCH_NAMES = resnet_rows.NAMES

    @classmethod
    def maps(cls, config: ConfigDict) -> tuple[FeatureMap, ...]:
        widths = (EXPANSION * config.width * 2**stage for stage in range(STAGES))
        strides = (place.stride for place in places(config.output_stride))
        return tuple(FeatureMap(*pair) for pair in zip(widths, strides, strict=True))

    @classmethod
    def check(cls, config: ConfigDict, image_size: layers.Size) -> None:
        choose(STEMS, config.stem, "model.encoder.stem")
        if config.stem == "deep" and config.width % 2:
            raise UserError(f"model.encoder.width is {config.width}: expected an even number, as the stem is deep.")
        if len(config.depths) != STAGES:
            raise UserError(
                f"model.encoder.depths is {tuple(config.depths)}: expected four counts of blocks, such as (3, 4, 6, 3)."
            )
        if config.output_stride not in OUTPUT_STRIDES:
            raise UserError(
                f"model.encoder.output_stride is {config.output_stride}: expected one of "
                f"{', '.join(map(str, OUTPUT_STRIDES))}."
            )

    def __init__(
        self, config: ConfigDict, image_size: layers.Size, remat: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.dtype, self.remat = dtype, remat
        self.stem = nnx.List(STEMS[config.stem](config.width, **options))
        inputs = (config.width, *(x.width for x in self.maps(config)))
        self.stages = nnx.List(
            [
                Stage(inputs[stage], config.width * 2**stage, config.depths[stage], place, **options)
                for stage, place in enumerate(places(config.output_stride))
            ]
        )

    def __call__(
        self, image_NHWC: Float[Array, "N H W 3"], train: bool = False, keys_N: layers.Keys = None
    ) -> list[layers.Map]:
        """The four maps; nothing here is random, so `keys_N` changes nothing."""
        x = image_NHWC.astype(self.dtype)
        for conv in self.stem:
            x = conv(x, train)
        x = nnx.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        maps = []
        for stage in self.stages:
            x = stage(x, train, self.remat)
            maps.append(x)
        return maps
