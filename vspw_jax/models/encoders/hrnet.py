"""HRNet: branches at 1/4 to 1/32 side by side, each of which becomes, time and again, the sum of all.

Sources: Deep High-Resolution Representation Learning, arXiv 1908.07919 (HRNetV2: section 3.3); HRNet/HRNet-Semantic-
Segmentation lib/models/seg_hrnet_ocr.py; open-mmlab/mmsegmentation mmseg/models/backbones/hrnet.py;
huggingface/pytorch-image-models timm/models/hrnet.py. The same weights give other maps in these codes, which resize
coarser branches each in a way of its own: see `UPSAMPLINGS`.
Shapes: N images, H and W pixels or cells, C channels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, choose
from vspw_jax.models import layers
from vspw_jax.models.encoders import hrnet_rows, resnet
from vspw_jax.models.encoders.encoder import Encoder, FeatureMap

BRANCHES = 4
STRIDES = (4, 8, 16, 32)


def bilinear(x_NHWC: layers.Map, factor: int, size: layers.Size) -> layers.Map:
    """By the factor, then to the size, which differs where a side is odd: mmseg."""
    height, width = x_NHWC.shape[1:3]
    return layers.resize_bilinear(layers.resize_bilinear(x_NHWC, factor * height, factor * width), *size)


def aligned(x_NHWC: layers.Map, factor: int, size: layers.Size) -> layers.Map:
    """With corners aligned: HRNet's own code for segmentation, in the releases."""
    return layers.resize_aligned(x_NHWC, *size)


def once(x_NHWC: layers.Map, factor: int, size: layers.Size) -> layers.Map:
    """To the size at once, without corners aligned: the same code where its config has `ALIGN_CORNERS: False`."""
    return layers.resize_bilinear(x_NHWC, *size)


def nearest(x_NHWC: layers.Map, factor: int, size: layers.Size) -> layers.Map:
    """Cells repeated: HRNet's own code for classification, and timm's. No side may be odd."""
    return jnp.repeat(jnp.repeat(x_NHWC, factor, axis=1), factor, axis=2)


UPSAMPLINGS = {"bilinear": bilinear, "aligned": aligned, "once": once, "nearest": nearest}
"""By `config.upsampling`."""


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions, added to the input."""

    def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.conv1 = layers.ConvNormRelu(width, width, 3, **options)
        # Ours, as in `resnet.Bottleneck`: a scale of 0 at first, so that a fresh block is the identity.
        self.conv2 = layers.ConvNorm(width, width, 3, scale_init=nnx.initializers.zeros, **options)

    def __call__(self, x_NHWC: layers.Map, train: bool) -> layers.Map:
        return jax.nn.relu(x_NHWC + self.conv2(self.conv1(x_NHWC, train), train))


class FromCoarser(nnx.Module):
    """A coarser branch as a summand of another: a 1x1 convolution and an upsampling by a factor."""

    def __init__(
        self, width: int, target: int, factor: int, upsampling: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.factor, self.upsampling = factor, upsampling
        self.conv = layers.ConvNorm(width, target, 1, dtype=dtype, rngs=rngs)

    def __call__(self, x_NHWC: layers.Map, size: layers.Size, train: bool) -> layers.Map:
        return UPSAMPLINGS[self.upsampling](self.conv(x_NHWC, train), self.factor, size)


class FromFiner(nnx.Module):
    """A finer branch as a summand of another: 3x3 convolutions of stride 2, of which the last changes the width."""

    def __init__(self, width: int, target: int, halvings: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.convs = nnx.List([layers.ConvNormRelu(width, width, 3, 2, **options) for _ in range(halvings - 1)])
        self.last = layers.ConvNorm(width, target, 3, 2, **options)

    def __call__(self, x_NHWC: layers.Map, train: bool) -> layers.Map:
        for conv in self.convs:
            x_NHWC = conv(x_NHWC, train)
        return self.last(x_NHWC, train)


class Fusion(nnx.Module):
    """All branches to the one of a number."""

    def __init__(
        self, widths: Sequence[int], number: int, upsampling: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.number, target = number, widths[number]
        self.finer = nnx.List(
            [FromFiner(width, target, number - other, **options) for other, width in enumerate(widths[:number])]
        )
        self.coarser = nnx.List(
            [
                FromCoarser(width, target, 2**steps, upsampling, **options)
                for steps, width in enumerate(widths[number + 1 :], start=1)
            ]
        )

    def __call__(self, maps: Sequence[layers.Map], train: bool) -> layers.Map:
        own, finer, coarser = maps[self.number], maps[: self.number], maps[self.number + 1 :]
        summands = [module(x, train) for module, x in zip(self.finer, finer, strict=True)]
        size = own.shape[1], own.shape[2]
        summands += [module(x, size, train) for module, x in zip(self.coarser, coarser, strict=True)]
        return jax.nn.relu(sum(summands, own))


class Exchange(nnx.Module):
    """Blocks on every branch, whose variables are stacked, and the branches' fusions: "HRModule" of the sources."""

    def __init__(
        self, widths: Sequence[int], blocks: int, upsampling: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        def branch(width: int) -> BasicBlock:
            return layers.stack_modules(lambda rngs: BasicBlock(width, dtype=dtype, rngs=rngs), blocks, rngs)

        self.branches = nnx.List([branch(width) for width in widths])
        numbers = range(len(widths))
        self.fusions = nnx.List([Fusion(widths, number, upsampling, dtype=dtype, rngs=rngs) for number in numbers])

    def __call__(self, maps: Sequence[layers.Map], train: bool) -> list[layers.Map]:
        apply = lambda block, x, _: (block(x, train), None)
        maps = [
            layers.scan_modules(branch, apply, x, changes=train)[0]
            for branch, x in zip(self.branches, maps, strict=True)
        ]
        return [fusion(maps, train) for fusion in self.fusions]


class HRNet(Encoder):
    """HRNetV2: image to four maps of 1, 2, 4 and 8 times `width` at 1/4, 1/8, 1/16, 1/32.

    The variables of a stage's modules are stacked, and in each those of a branch's blocks.

    Args:
      config: width (of the finest map; 48 is HRNet-W48), stem_width (64 in every published one), bottleneck_width (of
        the 3x3 convolutions of the first stage), bottlenecks (its blocks), modules (of the three stages of two, three
        and four branches), blocks (of a branch in a module), upsampling (a key of `UPSAMPLINGS`).
      image_size: any, but multiples of 32 for "nearest"; a side that a stride does not divide is rounded up.
      remat: a key of `layers.REMAT_POLICIES`, for the modules and for all blocks of the first stage but the first.
    """

    FIELDS = ("width", "stem_width", "bottleneck_width", "bottlenecks", "modules", "blocks", "upsampling")
    PUBLISHED = {
        "HRNetV2-W18": dict(width=18, modules=(1, 4, 3), blocks=4),
        "HRNetV2-W32": dict(width=32, modules=(1, 4, 3), blocks=4),
        "HRNetV2-W48": dict(width=48, modules=(1, 4, 3), blocks=4),
    }
    STACKED = {
        "bottlenecks/rest": 1,
        **{f"stages/{stage}": 1 for stage in range(BRANCHES - 1)},
        **{f"stages/{stage}/branches": 2 for stage in range(BRANCHES - 1)},
    }
    TORCH_NAMES = hrnet_rows.NAMES

    @classmethod
    def maps(cls, config: ConfigDict) -> tuple[FeatureMap, ...]:
        return tuple(FeatureMap(config.width * 2**number, stride) for number, stride in enumerate(STRIDES))

    @classmethod
    def check(cls, config: ConfigDict, image_size: layers.Size) -> None:
        choose(UPSAMPLINGS, config.upsampling, "model.encoder.upsampling")
        if len(config.modules) != BRANCHES - 1:
            raise UserError(
                f"model.encoder.modules is {tuple(config.modules)}: expected three counts of modules, of the stages of "
                "two, three and four branches, such as (1, 4, 3)."
            )
        if config.upsampling == "nearest" and any(side % STRIDES[-1] for side in image_size):
            raise UserError(
                f"model.image_size is {tuple(image_size)}: model.encoder.upsampling='nearest' repeats cells, so it "
                f"needs multiples of {STRIDES[-1]}. Choose such a size, or 'bilinear'."
            )

    def __init__(
        self, config: ConfigDict, image_size: layers.Size, remat: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.check(config, image_size)
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.dtype, self.remat = dtype, remat
        widths = [x.width for x in self.maps(config)]
        self.stem = nnx.List(
            [layers.ConvNormRelu(width, config.stem_width, 3, 2, **options) for width in (3, config.stem_width)]
        )
        place = resnet.Place(step=1, first_dilation=1, dilation=1, stride=4)
        self.bottlenecks = resnet.Stage(
            config.stem_width, config.bottleneck_width, config.bottlenecks, place, **options
        )
        inputs = (resnet.EXPANSION * config.bottleneck_width, *widths[1:-1])
        self.finest = layers.ConvNormRelu(inputs[0], widths[0], 3, **options)
        self.halvings = nnx.List(
            [layers.ConvNormRelu(*pair, 3, 2, **options) for pair in zip(inputs, widths[1:], strict=True)]
        )

        def stage(branches: int, modules: int) -> Exchange:
            make = lambda rngs: Exchange(widths[:branches], config.blocks, config.upsampling, dtype=dtype, rngs=rngs)
            return layers.stack_modules(make, modules, rngs)

        self.stages = nnx.List([stage(number, count) for number, count in enumerate(config.modules, start=2)])

    def __call__(
        self, image_NHWC: Float[Array, "N H W 3"], train: bool = False, keys_N: layers.Keys = None
    ) -> list[layers.Map]:
        """The four maps; nothing here is random, so `keys_N` changes nothing."""
        x = image_NHWC.astype(self.dtype)
        for conv in self.stem:
            x = conv(x, train)
        coarsest = self.bottlenecks(x, train, self.remat)
        maps = [self.finest(coarsest, train)]
        apply = lambda module, maps, _: (module(maps, train), None)
        for halving, stage in zip(self.halvings, self.stages, strict=True):
            maps = [*maps, halving(coarsest, train)]
            maps, _ = layers.scan_modules(stage, apply, maps, remat=self.remat, changes=train)
            coarsest = maps[-1]
        return maps
