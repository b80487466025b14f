"""DeepLabV3: dilated convolutions of several rates beside the image's mean (ASPP), and a classifier of every cell.

Sources: Rethinking Atrous Convolution, arXiv 1706.05587, section 3.3; open-mmlab/mmsegmentation
mmseg/models/decode_heads/aspp_head.py; pytorch/vision torchvision/models/segmentation/deeplabv3.py.
Shapes: N images, H and W cells, C channels or classes.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array
from ml_collections import ConfigDict

from vspw_jax.console.errors import choose
from vspw_jax.models import layers
from vspw_jax.models.decoders import deeplabv3_rows
from vspw_jax.models.decoders.classifier import Classifier
from vspw_jax.models.decoders.decoder import Decoder, Maps, Training, keys_of
from vspw_jax.models.decoders.fcn import AuxiliaryHead, check_auxiliary
from vspw_jax.models.encoders.encoder import FeatureMap


class Variant(NamedTuple):
    """What differs between the two codes.

    Attributes:
      mean_first: whether the image's mean stands before the convolutions where they are joined.
      joining_size: of the convolution that joins them.
      refines: whether one more 3x3 convolution follows; drop-out then stands before it, not before the classifier.
    """

    mean_first: bool
    joining_size: int
    refines: bool


VARIANTS = {"mmseg": Variant(True, 3, False), "torchvision": Variant(False, 1, True)}
"""By `config.variant`."""


class Aspp(nnx.Module):
    """Atrous spatial pyramid pooling: a 1x1 convolution, one 3x3 for each dilation and the mean, joined by another.

    Args:
      mean_first, joining_size: see `Variant`.
    """

    def __init__(
        self,
        channels_in: int,
        dim: int,
        dilations: tuple[int, ...],
        mean_first: bool,
        joining_size: int,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.mean_first = mean_first
        self.branches = nnx.List([layers.ConvNormRelu(channels_in, dim, 1, **options)])
        for dilation in dilations:
            self.branches.append(layers.ConvNormRelu(channels_in, dim, 3, dilation=dilation, **options))
        self.mean = layers.ConvNormRelu(channels_in, dim, 1, **options)
        joined = (len(dilations) + 2) * dim
        self.joining = layers.ConvNormRelu(joined, dim, joining_size, **options)

    def __call__(self, x_NHWC: layers.Map, train: bool) -> layers.Map:
        parts = [branch(x_NHWC, train) for branch in self.branches]
        mean = jnp.broadcast_to(self.mean(x_NHWC.mean(axis=(1, 2), keepdims=True), train), parts[0].shape)
        parts = [mean, *parts] if self.mean_first else [*parts, mean]
        return self.joining(jnp.concatenate(parts, axis=-1), train)


class DeepLabV3(Decoder):
    """The encoder's coarsest map to logits of every cell of it; an auxiliary head gives more logits for training.

    Nothing here is rematerialised: the pass itself updates the batch norms' running means.

    Args:
      maps: of any number, width and stride; all but the last and the auxiliary head's are left out. The dilations are
        in its cells: (12, 24, 36) is for a stride of 8.
      num_classes: real classes.
      config: variant (a key of `VARIANTS`), dim, dilations, dropout, dropped (a key of `layers.DROPPED`), auxiliary_dim
        (0 for no auxiliary head), auxiliary_level (the map that it reads), auxiliary_dropout.
    """

    AUXILIARY = "auxiliary"
    FIELDS = (
        *("variant", "dim", "dilations", "dropout", "dropped"),
        *("auxiliary_dim", "auxiliary_level", "auxiliary_dropout"),
    )
    SEGMENTATION_LOSS = "per_pixel"
    TORCH_NAMES = deeplabv3_rows.NAMES

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        choose(VARIANTS, config.variant, "model.decoder.variant")
        choose(layers.DROPPED, config.dropped, "model.decoder.dropped")
        check_auxiliary(config, maps)

    @classmethod
    def least_images(cls, config: ConfigDict) -> int:
        return 2

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
        self.dropout, self.dropped = config.dropout, config.dropped
        mean_first, joining_size, refines = VARIANTS[config.variant]
        self.aspp = Aspp(maps[-1].width, config.dim, tuple(config.dilations), mean_first, joining_size, **options)
        self.refining = layers.ConvNormRelu(config.dim, config.dim, 3, **options) if refines else None
        self.classifier = Classifier(
            config.dim, num_classes, 0.0 if refines else config.dropout, config.dropped, **options
        )
        self.auxiliary = AuxiliaryHead(maps, num_classes, config, **options) if config.auxiliary_dim else None

    def __call__(self, maps: Maps, training: Training | None = None) -> dict[str, Array]:
        """`logits_NHWC` and the `features_NHWC` of which they are made, with the size of the coarsest map, and
        `auxiliary_logits_NHWC`."""
        train, keys = training is not None, keys_of(training, 0)
        features = self.aspp(maps[-1], train)
        if self.refining is not None:
            features = self.refining(layers.DROPPED[self.dropped](features, self.dropout, keys), train)
        outputs = {"features_NHWC": features.astype(jnp.float32), "logits_NHWC": self.classifier(features, keys)}
        if self.auxiliary is not None:
            outputs |= self.auxiliary.outputs(maps, training)
        return outputs
