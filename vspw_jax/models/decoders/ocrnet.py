"""OCRNet: every cell attends to what the image has of each class, by an auxiliary head's first guess.

Sources: Object-Contextual Representations, arXiv 1909.11065, section 3.2; open-mmlab/mmsegmentation
mmseg/models/decode_heads/ocr_head.py and mmseg/models/utils/self_attention_block.py; HRNet/HRNet-Semantic-Segmentation
lib/models/seg_hrnet_ocr.py, branch HRNet-OCR.
Shapes: N images, H and W cells, K classes, C channels, D channels of keys.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, choose
from vspw_jax.models import layers
from vspw_jax.models.decoders import ocrnet_rows
from vspw_jax.models.decoders.classifier import Classifier
from vspw_jax.models.decoders.decoder import Decoder, Maps, Training, keys_of
from vspw_jax.models.decoders.fcn import FcnHead, check_auxiliary, check_conv_size
from vspw_jax.models.decoders.map_inputs import INPUTS
from vspw_jax.models.encoders.encoder import FeatureMap

Regions = Float[Array, "N K C"]


def gather_regions(features_NHWC: layers.Map, logits_NHWK: Float[Array, "N H W K"]) -> Regions:
    """Each class's mean feature over an image's cells, weighted by the softmax over cells of its logits."""
    shares_NSK = jax.nn.softmax(layers.to_tokens(logits_NHWK).astype(jnp.float32), axis=1)
    return jnp.einsum("nsk,nsc->nkc", shares_NSK.astype(features_NHWC.dtype), layers.to_tokens(features_NHWC))


class ObjectAttention(nnx.Module):
    """Cells attend to regions, and what they find joins their features."""

    def __init__(self, dim: int, key_dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.query = nnx.List([layers.ConvNormRelu(width, key_dim, 1, **options) for width in (dim, key_dim)])
        self.key = nnx.List([layers.ConvNormRelu(width, key_dim, 1, **options) for width in (dim, key_dim)])
        self.value = layers.ConvNormRelu(dim, key_dim, 1, **options)
        self.out = layers.ConvNormRelu(key_dim, dim, 1, **options)
        self.joining = layers.ConvNormRelu(2 * dim, dim, 1, **options)

    def __call__(self, x_NHWC: layers.Map, regions_NKC: Regions, train: bool) -> layers.Map:
        query_NHWD, key_NKD = x_NHWC, regions_NKC
        for of_query, of_key in zip(self.query, self.key, strict=True):
            query_NHWD, key_NKD = of_query(query_NHWD, train), of_key(key_NKD, train)
        value_NKD, scale = self.value(regions_NKC, train), key_NKD.shape[-1] ** -0.5
        seen_NSD = layers.attend(layers.to_tokens(query_NHWD), key_NKD, value_NKD, scale)
        context = self.out(seen_NSD.reshape(query_NHWD.shape), train)
        return self.joining(jnp.concatenate([context, x_NHWC], axis=-1), train)


class OcrNet(Decoder):
    """The encoder's maps to logits of every cell, by way of those of an auxiliary head, which training reads too.

    Nothing here is rematerialised: the pass itself updates the batch norms' running means.

    Args:
      maps: of any number, width and stride; those that the heads do not read are left out.
      num_classes: real classes.
      config: inputs (a key of `map_inputs.INPUTS`; under "all" the auxiliary head too reads all maps), align_corners
        (whether maps that are joined are resized so), dim, key_dim, dropout, dropped (a key of `layers.DROPPED`). Of
        the auxiliary head, an FCN of one convolution: auxiliary_dim, auxiliary_size (of the convolution),
        auxiliary_level (the map that it reads under "coarsest"), auxiliary_dropout.
    """

    FIELDS: ClassVar[tuple[str, ...]] = (
        *("inputs", "align_corners", "dim", "key_dim", "dropout", "dropped"),
        *("auxiliary_dim", "auxiliary_size", "auxiliary_level", "auxiliary_dropout"),
    )
    SEGMENTATION_LOSS = "per_pixel"
    TORCH_NAMES = ocrnet_rows.NAMES

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        choose(INPUTS, config.inputs, "model.decoder.inputs")
        check_conv_size("model.decoder.auxiliary_size", config.auxiliary_size)
        choose(layers.DROPPED, config.dropped, "model.decoder.dropped")
        check_auxiliary(config, maps)
        if not config.auxiliary_dim:
            raise UserError(
                "model.decoder.auxiliary_dim is 0: expected 1 or more, as OCRNet finds each class's region by its "
                "auxiliary head."
            )

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
        self.inputs, self.align_corners = config.inputs, config.align_corners
        self.auxiliary_level = config.auxiliary_level if config.inputs == "coarsest" else None
        width = INPUTS[config.inputs].width(maps)
        of_auxiliary = width if self.auxiliary_level is None else maps[self.auxiliary_level].width
        self.auxiliary = FcnHead(
            of_auxiliary,
            config.auxiliary_dim,
            1,
            config.auxiliary_size,
            False,
            num_classes,
            config.auxiliary_dropout,
            config.dropped,
            **options,
        )
        self.bottleneck = layers.ConvNormRelu(width, config.dim, 3, **options)
        self.attention = ObjectAttention(config.dim, config.key_dim, **options)
        self.classifier = Classifier(config.dim, num_classes, config.dropout, config.dropped, **options)

    def __call__(self, maps: Maps, training: Training | None = None) -> dict[str, Array]:
        """`logits_NHWC` and the `features_NHWC` of which they are made, with the size of what is read, and
        `auxiliary_logits_NHWC`."""
        features, guess = self.features(maps, training is not None), self.guess(maps, training)
        outputs = self.decoded(features, self.class_vectors(features, guess), training)
        return outputs | {"auxiliary_logits_NHWC": guess}

    def features(self, maps: Maps, train: bool) -> layers.Map:
        """Of every cell, before it attends to anything."""
        return self.bottleneck(INPUTS[self.inputs].read(maps, self.align_corners), train)

    def guess(self, maps: Maps, training: Training | None) -> layers.Map:
        """Logits of the auxiliary head."""
        level = self.auxiliary_level
        x = INPUTS[self.inputs].read(maps, self.align_corners) if level is None else maps[level]
        return self.auxiliary(x, training is not None, keys_of(training, 1))[1]

    def class_vectors(self, features_NHWC: layers.Map, guess_NhwK: layers.Map) -> Regions:
        """What images have of each class, by the guess."""
        return gather_regions(features_NHWC, layers.resize_bilinear(guess_NhwK, *features_NHWC.shape[1:3]))

    def decoded(self, features_NHWC: layers.Map, regions_NKC: Regions, training: Training | None) -> dict[str, Array]:
        """Logits, and the features of which they are made, of cells that attend to regions."""
        features = self.attention(features_NHWC, regions_NKC, training is not None)
        return {
            "features_NHWC": features.astype(jnp.float32),
            "logits_NHWC": self.classifier(features, keys_of(training, 0)),
        }
