"""UperNet: pyramid pooling on the coarsest map, a feature pyramid down to the finest, one classifier a pixel.

Sources: Unified Perceptual Parsing, arXiv 1807.10221; open-mmlab/mmsegmentation mmseg/models/decode_heads/
{uper_head,psp_head,fcn_head,decode_head}.py, as microsoft/unilm beit/semantic_segmentation configures them.
Shapes: N images, H and W cells, C channels or classes.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from vspw_jax.console.errors import UserError
from vspw_jax.models import layers
from vspw_jax.models.decoders import upernet_rows
from vspw_jax.models.decoders.decoder import Decoder


def pooling_matrix(size, bins):
    """Averages (bins, size) of torch's adaptive pooling: bin i holds cells floor(i size/bins) to ceil((i+1) size/bins).

    Where `bins` does not divide `size`, neighbouring bins share cells.
    """
    number = np.arange(bins)[:, None]
    first, end = number * size // bins, -((number + 1) * size // -bins)
    inside = (np.arange(size) >= first) & (np.arange(size) < end)
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)


def adaptive_average_pool(x_NHWC, bins):
    """torch's AdaptiveAvgPool2d(bins): (N, H, W, C) to (N, bins, bins, C)."""
    rows, columns = (pooling_matrix(size, bins).astype(x_NHWC.dtype) for size in x_NHWC.shape[1:3])
    return jnp.einsum("nhwc,ih,jw->nijc", x_NHWC, rows, columns)


class Classifier(nnx.Module):
    """Drops whole channels in training, then classifies every cell; float32 logits."""

    def __init__(self, dim, num_classes, dropout, *, dtype, rngs):
        self.dropout = dropout
        self.conv = layers.linear(dim, num_classes, kernel_init=nnx.initializers.normal(0.01), dtype=dtype, rngs=rngs)

    def __call__(self, x_NHWC, keys_N):
        return self.conv(layers.drop_channels(x_NHWC, self.dropout, keys_N)).astype(jnp.float32)


class UperNet(Decoder):
    """The encoder's maps to logits of every cell of the finest, and for training those of an auxiliary head.

    Nothing here is rematerialised: the batch norms' running means are updated as the pass goes.

    Args:
      maps: the encoder's `FeatureMap`s, of any number, width and stride.
      num_classes: real classes.
      config: dim, pool_scales, dropout, auxiliary_dim, auxiliary_level (the map that the auxiliary head reads).
    """

    FIELDS = ("dim", "pool_scales", "dropout", "auxiliary_dim", "auxiliary_level")
    SEGMENTATION_LOSS = "per_pixel"
    TORCH_NAMES = upernet_rows.NAMES

    @classmethod
    def check(cls, config, maps):
        if config.auxiliary_level not in range(len(maps)):
            raise UserError(
                f"model.decoder.auxiliary_level is {config.auxiliary_level}: expected one of the encoder's maps, "
                f"0 to {len(maps) - 1}, fine to coarse."
            )

    @classmethod
    def features_width(cls, config):
        return config.dim

    def __init__(self, maps, num_classes, config, remat, *, dtype, rngs):
        del remat
        self.check(config, maps)
        *finer, coarsest = [x.width for x in maps]
        options = dict(dtype=dtype, rngs=rngs)
        dim, scales = config.dim, tuple(config.pool_scales)
        self.pool_scales, self.auxiliary_level = scales, config.auxiliary_level
        self.pooled_convs = nnx.List([layers.ConvNormRelu(coarsest, dim, 1, **options) for _ in scales])
        self.bottleneck = layers.ConvNormRelu(coarsest + len(scales) * dim, dim, 3, **options)
        self.lateral_convs = nnx.List([layers.ConvNormRelu(width, dim, 1, **options) for width in finer])
        self.fpn_convs = nnx.List([layers.ConvNormRelu(dim, dim, 3, **options) for _ in finer])
        self.fpn_bottleneck = layers.ConvNormRelu(len(maps) * dim, dim, 3, **options)
        self.classifier = Classifier(dim, num_classes, config.dropout, **options)
        self.auxiliary_conv = layers.ConvNormRelu(maps[self.auxiliary_level].width, config.auxiliary_dim, 3, **options)
        self.auxiliary_classifier = Classifier(config.auxiliary_dim, num_classes, config.dropout, **options)

    def pool_pyramid(self, x_NHWC, train):
        """The coarsest map beside its averages over 1, 4, 9, ... bins, brought to the decoder's width."""
        parts = [x_NHWC]
        for scale, conv in zip(self.pool_scales, self.pooled_convs, strict=True):
            pooled = conv(adaptive_average_pool(x_NHWC, scale), train)
            parts.append(layers.resize_bilinear(pooled, *x_NHWC.shape[1:3]))
        return self.bottleneck(jnp.concatenate(parts, axis=-1), train)

    def fuse(self, maps, train):
        """The features (N, H, W, dim) at 1/4 that are classified."""
        levels = [conv(x, train) for conv, x in zip(self.lateral_convs, maps[:-1], strict=True)]
        levels.append(self.pool_pyramid(maps[-1], train))
        for fine in reversed(range(len(levels) - 1)):
            levels[fine] += layers.resize_bilinear(levels[fine + 1], *levels[fine].shape[1:3])
        levels = [conv(x, train) for conv, x in zip(self.fpn_convs, levels[:-1], strict=True)] + levels[-1:]
        levels = [layers.resize_bilinear(x, *levels[0].shape[1:3]) for x in levels]
        return self.fpn_bottleneck(jnp.concatenate(levels, axis=-1), train)

    def __call__(self, maps, train=False, keys_N=None):
        """`logits_NHWC` at 1/4, the `features_NHWC` that they are made of, `auxiliary_logits_NHWC` at its map's scale.

        `keys_N` is for drop-out, or None.
        """
        auxiliary, features = self.auxiliary_conv(maps[self.auxiliary_level], train), self.fuse(maps, train)
        return {
            "features_NHWC": features.astype(jnp.float32),
            "logits_NHWC": self.classifier(features, layers.fold_keys(keys_N, 0)),
            "auxiliary_logits_NHWC": self.auxiliary_classifier(auxiliary, layers.fold_keys(keys_N, 1)),
        }
