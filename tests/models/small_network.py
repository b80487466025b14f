"""The smallest encoder and decoder, declared as real ones are; the decoder has a memory."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from ml_collections import ConfigDict

from vspw_jax.models import layers, segmenter
from vspw_jax.models.decoders.decoder import Decoder
from vspw_jax.models.encoders.encoder import Encoder, FeatureMap
from vspw_jax.models.memory import Memory, summed
from vspw_jax.models.torch_names import DecoderSizes, EncoderSizes, Names
from vspw_jax.models.torch_rows import CLASSES, Row, class_head, conv, conv_1x1


def encoder_rows(ours, theirs, config, names=()):
    yield from conv(f"{ours}/patches", f"{theirs}patches")


def decoder_rows(ours, theirs, config, names=()):
    yield from conv_1x1(f"{ours}/project", f"{theirs}project")
    yield from class_head(conv_1x1(f"{ours}/classifier", f"{theirs}conv_seg"), CLASSES)
    yield Row(f"{ours}/sums_KC", f"{theirs}memory.sums")
    yield Row(f"{ours}/pixels_K", f"{theirs}memory.pixels")


class Patches(Encoder):
    """One map at 1/4: a convolution of stride 4."""

    FIELDS = ("dim",)
    TORCH_NAMES = {
        "mmseg": Names(
            ("patches.",),
            encoder_rows,
            lambda shapes, theirs: EncoderSizes(
                {"dim": shapes.size(f"{theirs}patches.weight", 0)}, (32, 32), ["a crop of 32x32"]
            ),
        )
    }

    @classmethod
    def maps(cls, config):
        return (FeatureMap(config.dim, 4),)

    def __init__(self, config, image_size, remat, *, dtype, rngs):
        self.patches = nnx.Conv(3, config.dim, (4, 4), 4, padding="VALID", dtype=dtype, rngs=rngs)

    def __call__(self, image_NHWC, train=False, keys_N=None):
        return [self.patches(image_NHWC)]


class Remembering(Decoder):
    """Linear features and a linear classifier. It remembers, of every class, the sum of all training pixels' features
    and how many pixels these were; a pixel counts for a class by its probability."""

    FIELDS = ("dim",)
    SEGMENTATION_LOSS = "per_pixel"
    TORCH_NAMES = {
        "mmseg": Names(
            ("memory.",),
            decoder_rows,
            lambda shapes, theirs: DecoderSizes(
                {"dim": shapes.size(f"{theirs}project.weight", 0)}, shapes.size(f"{theirs}conv_seg.weight", 0), []
            ),
        )
    }

    def __init__(self, maps, num_classes, config, remat, *, dtype, rngs):
        self.project = layers.linear(maps[0].width, config.dim, dtype=dtype, rngs=rngs)
        self.classifier = layers.linear(config.dim, num_classes, dtype=dtype, rngs=rngs)
        self.sums_KC = Memory(jnp.zeros((num_classes, config.dim)))
        self.pixels_K = Memory(jnp.zeros(num_classes))

    def remember(self, features_NHWC, logits_NHWK):
        features_NHWC, shares_NHWK = lax.stop_gradient((features_NHWC, jax.nn.softmax(logits_NHWK)))
        self.sums_KC[...] += summed(jnp.einsum("nhwk,nhwc->kc", shares_NHWK, features_NHWC))
        self.pixels_K[...] += summed(shares_NHWK.sum(axis=(0, 1, 2)))

    def __call__(self, maps, training=None):
        features = self.project(maps[0])
        logits = self.classifier(features)
        if training:
            self.remember(features, logits)
        return {"features_NHWC": features, "logits_NHWC": logits}


def register(monkeypatch):
    """Makes the two known by the names "patches" and "remembering"."""
    monkeypatch.setitem(segmenter.ENCODERS, "patches", Patches)
    monkeypatch.setitem(segmenter.DECODERS, "remembering", Remembering)


def config(**changes):
    """config.model of the network of the two."""
    model = ConfigDict(dict(image_size=(32, 32), num_classes=5, dtype="float32", remat="none"))
    model.encoder, model.decoder = ConfigDict(dict(name="patches", dim=8)), ConfigDict(dict(name="remembering", dim=6))
    model.update(changes)
    return model
