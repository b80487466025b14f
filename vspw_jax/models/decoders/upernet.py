"""UperNet: pyramid pooling on the coarsest map, a feature pyramid down to the finest, a classifier of every cell.

Sources: Unified Perceptual Parsing, arXiv 1807.10221; open-mmlab/mmsegmentation mmseg/models/decode_heads/
{uper_head,psp_head,fcn_head,decode_head}.py, as microsoft/unilm beit/semantic_segmentation configures them.
Shapes: N images, H and W cells, C channels or classes.
"""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.models import layers
from vspw_jax.models.decoders import upernet_rows
from vspw_jax.models.decoders.classifier import Classifier
from vspw_jax.models.decoders.decoder import Decoder, Maps, Training, keys_of
from vspw_jax.models.decoders.fcn import check_auxiliary
from vspw_jax.models.encoders.encoder import FeatureMap


def pooling_matrix(size: int, bins: int) -> Float[np.ndarray, "bins size"]:
    """The averages of torch's adaptive pooling: bin i holds cells floor(i size/bins) to ceil((i+1) size/bins).

    Where `bins` does not divide `size`, neighbouring bins share cells.
    """
    number = np.arange(bins)[:, None]
    first, end = number * size // bins, -((number + 1) * size // -bins)
    inside = (np.arange(size) >= first) & (np.arange(size) < end)
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)


def adaptive_average_pool(x_NHWC: layers.Map, bins: int) -> Float[Array, "N bins bins C"]:
    """torch's AdaptiveAvgPool2d(bins)."""
    rows, columns = (pooling_matrix(size, bins).astype(x_NHWC.dtype) for size in x_NHWC.shape[1:3])
    return jnp.einsum("nhwc,ih,jw->nijc", x_NHWC, rows, columns)


class Pyramid(Decoder):
    """UperNet but for what it makes of its features: a subclass adds how they are classified, and its auxiliary head.

    Nothing here is rematerialised: the pass itself updates the batch norms' running means.
    """

    AUXILIARY: ClassVar[str] = "auxiliary"
    FIELDS: ClassVar[tuple[str, ...]] = ("dim", "pool_scales", "dropout", "auxiliary_dim", "auxiliary_level")

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        check_auxiliary(config, maps)

    @classmethod
    def least_images(cls, config: ConfigDict) -> int:
        return 2 if 1 in config.pool_scales else 1

    def _add_pyramid(
        self, maps: tuple[FeatureMap, ...], config: ConfigDict, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        *finer, coarsest = [x.width for x in maps]
        options = layers.Options(dtype=dtype, rngs=rngs)
        dim, scales = config.dim, tuple(config.pool_scales)
        self.pool_scales = scales
        self.pooled_convs = nnx.List([layers.ConvNormRelu(coarsest, dim, 1, **options) for _ in scales])
        self.bottleneck = layers.ConvNormRelu(coarsest + len(scales) * dim, dim, 3, **options)
        self.lateral_convs = nnx.List([layers.ConvNormRelu(width, dim, 1, **options) for width in finer])
        self.fpn_convs = nnx.List([layers.ConvNormRelu(dim, dim, 3, **options) for _ in finer])
        self.fpn_bottleneck = layers.ConvNormRelu(len(maps) * dim, dim, 3, **options)

    def _add_auxiliary(
        self,
        maps: tuple[FeatureMap, ...],
        num_classes: int,
        config: ConfigDict,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.auxiliary_level, self.has_auxiliary = config.auxiliary_level, bool(config.auxiliary_dim)
        if not self.has_auxiliary:
            return
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.auxiliary_conv = layers.ConvNormRelu(maps[self.auxiliary_level].width, config.auxiliary_dim, 3, **options)
        self.auxiliary_classifier = Classifier(config.auxiliary_dim, num_classes, config.dropout, **options)

    def pool_pyramid(self, x_NHWC: layers.Map, train: bool) -> layers.Map:
        """Joins the coarsest map with its averages over 1, 4, 9, ... bins, and gives it the decoder's width."""
        parts = [x_NHWC]
        for scale, conv in zip(self.pool_scales, self.pooled_convs, strict=True):
            pooled = conv(adaptive_average_pool(x_NHWC, scale), train)
            parts.append(layers.resize_bilinear(pooled, *x_NHWC.shape[1:3]))
        return self.bottleneck(jnp.concatenate(parts, axis=-1), train)

    def fuse(self, maps: Maps, train: bool) -> layers.Map:
        """The features that are classified, with the size of the finest map."""
        levels = [conv(x, train) for conv, x in zip(self.lateral_convs, maps[:-1], strict=True)]
        levels.append(self.pool_pyramid(maps[-1], train))
        for fine in reversed(range(len(levels) - 1)):
            levels[fine] += layers.resize_bilinear(levels[fine + 1], *levels[fine].shape[1:3])
        levels = [conv(x, train) for conv, x in zip(self.fpn_convs, levels[:-1], strict=True)] + levels[-1:]
        levels = [layers.resize_bilinear(x, *levels[0].shape[1:3]) for x in levels]
        return self.fpn_bottleneck(jnp.concatenate(levels, axis=-1), train)

    def auxiliary_outputs(self, maps: Maps, training: Training | None) -> dict[str, layers.Map]:
        """`auxiliary_logits_NHWC`, of the size of the map at `auxiliary_level`; nothing where there is no such head."""
        if not self.has_auxiliary:
            return {}
        features = self.auxiliary_conv(maps[self.auxiliary_level], training is not None)
        return {"auxiliary_logits_NHWC": self.auxiliary_classifier(features, keys_of(training, 1))}


class UperNet(Pyramid):
    """The encoder's maps to logits of every cell of the finest one; an auxiliary head gives more logits for training.

    Args:
      maps: of any number, width and stride.
      num_classes: real classes.
      config: dim, pool_scales, dropout, auxiliary_dim (0 for no auxiliary head), auxiliary_level (the map that it
        reads).
    """

    SEGMENTATION_LOSS = "per_pixel"
    TORCH_NAMES = upernet_rows.NAMES

    @classmethod
    def features_width(cls, config: ConfigDict) -> int:
        return config.dim

    def __init__(
        self,
        maps: tuple[FeatureMap, ...],
        num_classes: int,
        config: ConfigDict,
        remat: str,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        del remat
        self.check(config, maps)
        options = layers.Options(dtype=dtype, rngs=rngs)
        self._add_pyramid(maps, config, **options)
        self.classifier = Classifier(config.dim, num_classes, config.dropout, **options)
        self._add_auxiliary(maps, num_classes, config, **options)

    def __call__(self, maps: Maps, training: Training | None = None) -> dict[str, Array]:
        """`logits_NHWC`, the `features_NHWC` of which they are made, and `auxiliary_logits_NHWC`.

        The first two have the size of the finest map; the last has the size of the map at `auxiliary_level`.
        """
        features = self.fuse(maps, training is not None)
        outputs = {
            "features_NHWC": features.astype(jnp.float32),
            "logits_NHWC": self.classifier(features, keys_of(training, 0)),
        }
        return outputs | self.auxiliary_outputs(maps, training)
