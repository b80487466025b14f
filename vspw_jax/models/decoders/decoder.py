"""What every decoder tells the rest of the program about itself, and what a decoder that remembers adds.

A new decoder is a subclass in a file of its own and a line in `segmenter.DECODERS`.
"""

from collections.abc import Sequence
from typing import ClassVar

from flax import nnx
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from vspw_jax.models.encoders.encoder import FeatureMap
from vspw_jax.models.torch_names import DecoderNames


class Decoder(nnx.Module):
    """Feature maps to a dict of float32 arrays, each named after its axes (`logits_NHWC`).

    A subclass is built with (maps, num_classes, config, remat, *, dtype, rngs), `maps` being the encoder's
    `FeatureMap`s and `config` being `config.model.decoder`, and called with (maps, train, keys_N).
    """

    FIELDS: ClassVar[tuple[str, ...]]
    """Of its config, besides `name`."""

    SEGMENTATION_LOSS: ClassVar[str]
    """What it is trained with: a key of `tasks.supervised.SEGMENTATION_TERMS`."""

    STACKED: ClassVar[dict[str, int]] = {}
    """As `Encoder.STACKED`, with paths in the decoder."""

    EMBEDDINGS: ClassVar[tuple[str, ...]] = ()
    """Paths of its embeddings and of the heads on them: what `optimizer.embeddings_at_layer_0` is about."""

    TORCH_NAMES: ClassVar[DecoderNames] = {}
    """As `Encoder.TORCH_NAMES`."""

    remembers: ClassVar[bool] = False
    """Whether a frame's result depends on the frames before it: then `memory` and `look` are there."""

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        """Raises UserError where its config makes no network or the encoder's maps are not those that it needs."""

    @classmethod
    def features_width(cls, config: ConfigDict) -> int:
        """Channels of `features_NHWC`, of which its masks or logits are made."""
        raise NotImplementedError

    def memory(self, maps: Sequence[Float[Array, "N h w C"]]) -> PyTree:
        """What it remembers of N views before their first frame: arrays whose first axis is N.

        `maps` are those of a first frame; their shapes and types count, not their values.
        """
        return ()

    def look(self, maps: Sequence[Float[Array, "N h w C"]], memory: PyTree) -> tuple[dict[str, Array], PyTree]:
        """The outputs for the next frame of N views, and what is remembered then; inference alone calls it."""
        return self(maps), memory
