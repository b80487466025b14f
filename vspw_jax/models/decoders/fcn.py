"""FCN: a few convolutions of a map and a classifier of its cells, alone or as another decoder's auxiliary head.

Sources: Fully Convolutional Networks, arXiv 1411.4038; HRNetV2, arXiv 1908.07919, section 3.3, for all maps joined;
open-mmlab/mmsegmentation mmseg/models/decode_heads/fcn_head.py; pytorch/vision
torchvision/models/segmentation/fcn.py.
Shapes: N images, H and W cells, C channels or classes.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, choose
from vspw_jax.models import layers
from vspw_jax.models.decoders import fcn_rows
from vspw_jax.models.decoders.classifier import Classifier
from vspw_jax.models.decoders.decoder import Decoder, Maps, Training, keys_of
from vspw_jax.models.decoders.map_inputs import INPUTS
from vspw_jax.models.encoders.encoder import FeatureMap


def check_auxiliary(config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
    """Raises UserError where a decoder's auxiliary head would read a map that the encoder does not give."""
    if config.auxiliary_dim and config.auxiliary_level not in range(len(maps)):
        raise UserError(
            f"model.decoder.auxiliary_level is {config.auxiliary_level}: expected one of the encoder's maps, "
            f"0 to {len(maps) - 1}, fine to coarse."
        )


def check_conv_size(field: str, size: int) -> None:
    """Raises UserError where a field is no size that a head's convolutions have in files."""
    if size not in fcn_rows.LAYOUTS:
        raise UserError(f"{field} is {size}: expected 1 or 3.")


class FcnHead(nnx.Module):
    """Convolutions with batch norm and ReLU, perhaps one more of input and output together, and a classifier.

    Args:
      channels_in: width of the map.
      dim: width of the convolutions.
      num_convs: how many there are.
      conv_size: their size.
      concat_input: whether there is one more, which reads the map beside what the others give.
      dropout, dropped: see `Classifier`.
    """

    def __init__(
        self,
        channels_in: int,
        dim: int,
        num_convs: int,
        conv_size: int,
        concat_input: bool,
        num_classes: int,
        dropout: float,
        dropped: str,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        inputs = [channels_in, *[dim] * (num_convs - 1)]
        self.convs = nnx.List([layers.ConvNormRelu(width, dim, conv_size, **options) for width in inputs])
        self.conv_joined = layers.ConvNormRelu(channels_in + dim, dim, conv_size, **options) if concat_input else None
        self.classifier = Classifier(dim, num_classes, dropout, dropped, **options)

    def __call__(self, x_NHWC: layers.Map, train: bool, keys_N: layers.Keys) -> tuple[layers.Map, layers.Map]:
        """(features that are classified, logits), with the size of the map."""
        features = x_NHWC
        for conv in self.convs:
            features = conv(features, train)
        if self.conv_joined is not None:
            features = self.conv_joined(jnp.concatenate([x_NHWC, features], axis=-1), train)
        return features, self.classifier(features, keys_N)


class AuxiliaryHead(FcnHead):
    """The head on a finer map that only training reads: one convolution."""

    def __init__(
        self,
        maps: tuple[FeatureMap, ...],
        num_classes: int,
        config: ConfigDict,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.level = config.auxiliary_level
        super().__init__(
            maps[self.level].width,
            config.auxiliary_dim,
            1,
            3,
            False,
            num_classes,
            config.auxiliary_dropout,
            config.dropped,
            dtype=dtype,
            rngs=rngs,
        )

    def outputs(self, maps: Maps, training: Training | None) -> dict[str, Array]:
        """`auxiliary_logits_NHWC`, with the size of its map."""
        _, logits = self(maps[self.level], training is not None, keys_of(training, 1))
        return {"auxiliary_logits_NHWC": logits}


class Fcn(Decoder):
    """The encoder's coarsest map, or all, to logits of every cell; an auxiliary head gives more logits for training.

    Nothing here is rematerialised: the pass itself updates the batch norms' running means.

    Args:
      maps: of any number, width and stride.
      num_classes: real classes.
      config: inputs (a key of `map_inputs.INPUTS`), align_corners (whether maps that are joined are resized so), dim,
        num_convs, conv_size, concat_input, dropout, dropped (see `FcnHead`), auxiliary_dim (0 for no auxiliary head),
        auxiliary_level (the map that it reads), auxiliary_dropout.
    """

    AUXILIARY = "auxiliary"
    FIELDS = (
        *("inputs", "align_corners", "dim", "num_convs", "conv_size", "concat_input", "dropout", "dropped"),
        *("auxiliary_dim", "auxiliary_level", "auxiliary_dropout"),
    )
    SEGMENTATION_LOSS = "per_pixel"
    TORCH_NAMES = fcn_rows.NAMES

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        choose(INPUTS, config.inputs, "model.decoder.inputs")
        check_conv_size("model.decoder.conv_size", config.conv_size)
        choose(layers.DROPPED, config.dropped, "model.decoder.dropped")
        check_auxiliary(config, maps)

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
        self.head = FcnHead(
            INPUTS[config.inputs].width(maps),
            config.dim,
            config.num_convs,
            config.conv_size,
            config.concat_input,
            num_classes,
            config.dropout,
            config.dropped,
            **options,
        )
        self.auxiliary = AuxiliaryHead(maps, num_classes, config, **options) if config.auxiliary_dim else None

    def __call__(self, maps: Maps, training: Training | None = None) -> dict[str, Array]:
        """`logits_NHWC` and the `features_NHWC` of which they are made, with the size of what is read, and
        `auxiliary_logits_NHWC`."""
        x = INPUTS[self.inputs].read(maps, self.align_corners)
        features, logits = self.head(x, training is not None, keys_of(training, 0))
        outputs = {"features_NHWC": features.astype(jnp.float32), "logits_NHWC": logits}
        if self.auxiliary is not None:
            outputs |= self.auxiliary.outputs(maps, training)
        return outputs
