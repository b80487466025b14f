"""What decoders with a feature memory share: masks that it is read by, a head that classifies its rows too, learning.

Source: Memory Based Video Scene Parsing (Jin et al., 2021), section 3; SegmentationBLWX/sssegmentation
ssseg/modules/models/segmentors/mcibi/mcibi.py for what the paper leaves open.
Shapes: N images, H and W cells of a map of logits, h and w of the memory's, C channels, K classes.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, UInt8
from ml_collections import ConfigDict, FrozenConfigDict

from vspw_jax.console.errors import choose
from vspw_jax.models import layers
from vspw_jax.models.decoders.classifier import Classifier
from vspw_jax.models.decoders.decoder import Decoder, Training
from vspw_jax.models.encoders.encoder import FeatureMap
from vspw_jax.models.temporal.feature_memory import FIRST_SIGHTS, FeatureMemory

Mask = UInt8[Array, "N h w"] | Float[Array, "N h w K"]
"""A class for each cell, `VOID` where there is none, or weights of the classes, zeros where there are none."""


def hard(logits_NhwK: layers.Map) -> Mask:
    """The best class: what a mask on disk has."""
    return logits_NhwK.argmax(axis=-1).astype(jnp.uint8)


def soft(logits_NhwK: layers.Map) -> Mask:
    """The probabilities of all classes."""
    return jax.nn.softmax(logits_NhwK, axis=-1)


MASKS = {"hard": hard, "soft": soft}
"""How logits become a mask, by `model.decoder.mask`."""


def weights_of(mask: Mask, first_pass: Mask, num_classes: int) -> layers.Map:
    """Weights over the classes: the mask's, and the first pass's where the mask has no class."""
    weights, otherwise = (
        jax.nn.one_hot(x, num_classes) if jnp.issubdtype(x.dtype, jnp.integer) else x for x in (mask, first_pass)
    )
    return jnp.where(weights.sum(axis=-1, keepdims=True) > 0, weights, otherwise)


def mask_of_labels(label_NHW: UInt8[Array, "N H W"], height: int, width: int) -> UInt8[Array, "N h w"]:
    """The label in the middle of every cell."""
    return jax.image.resize(label_NHW, (len(label_NHW), height, width), "nearest")


class Head(nnx.Module):
    """1x1 convolution, batch norm, ReLU, drop-out of channels, classifier."""

    def __init__(self, dim: int, num_classes: int, dropout: float, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.conv = layers.ConvNormRelu(dim, dim, 1, **options)
        self.classifier = Classifier(dim, num_classes, dropout, **options)

    def __call__(self, x_NHWC: layers.Map, train: bool, keys_N: layers.Keys = None) -> layers.Map:
        return self.classifier(self.conv(x_NHWC, train), keys_N)

    def of_rows(self, rows_KC: Float[Array, "K C"], valid_K: Bool[Array, " K"]) -> Float[Array, "K classes"]:
        """Logits of a memory's rows in training.

        The released code's batch norm takes its statistics from the rows, empty ones too, and remembers them for
        inference, though they are no sample of what the head sees there. Here the valid rows' are taken, and none
        remembered.
        """
        x_KC, norm = self.conv.conv(rows_KC).astype(jnp.float32), self.conv.norm
        assert norm.scale is not None and norm.bias is not None
        share_K1 = (valid_K / jnp.maximum(valid_K.sum(), 1))[:, None]
        mean_C = (share_K1 * x_KC).sum(axis=0)
        variance_C = (share_K1 * jnp.square(x_KC - mean_C)).sum(axis=0)
        scaled_KC = (x_KC - mean_C) * jax.lax.rsqrt(variance_C + norm.epsilon) * norm.scale[...] + norm.bias[...]
        return self.classifier(jax.nn.relu(scaled_KC).astype(rows_KC.dtype), None)


class ReadsMemory(Decoder):
    """A decoder with `config`, a `feature_memory`, and a `head` for what is classified, its rows among it."""

    MEMORY_FIELDS: ClassVar[tuple[str, ...]] = ("mask", "first_sight", "momentum", "momentum_follows_rate")
    SEGMENTATION_LOSS = "memory_per_pixel"
    config: FrozenConfigDict
    feature_memory: FeatureMemory
    head: Head

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        super().check(config, maps)
        choose(MASKS, config.mask, "model.decoder.mask")
        choose(FIRST_SIGHTS, config.first_sight, "model.decoder.first_sight")

    def masks(self, logits_NHWK: layers.Map, features_NhwC: layers.Map) -> Mask:
        """The mask that these logits are, with the size of the memory's maps; no gradient passes."""
        logits_NhwK = layers.resize_bilinear(jax.lax.stop_gradient(logits_NHWK), *features_NhwC.shape[1:3])
        return MASKS[self.config.mask](logits_NhwK)

    def row_outputs(self, dtype: jnp.dtype) -> dict[str, Array]:
        """The memory's rows, classified, as training has them; no gradient passes to the rows."""
        rows_KC, valid_K = jax.lax.stop_gradient(self.feature_memory.rows_KC[...]), self.feature_memory.valid_K[...]
        return {"memory_logits_KC": self.head.of_rows(rows_KC.astype(dtype), valid_K), "memory_valid_K": valid_K}

    def learn(self, features_NhwC: layers.Map, training: Training) -> None:
        """Equation 1, after the pass."""
        if training.label_NHW is not None:
            momentum = self.config.momentum * (training.rate if self.config.momentum_follows_rate else 1.0)
            self.feature_memory.learn(
                features_NhwC, training.label_NHW, momentum, self.config.first_sight, training.keys(3)
            )
