"""Decoder B of paper 001: temporal memory attention makes a frame's representations, which read the feature memory.

Source: Memory Based Video Scene Parsing (Jin et al., 2021), section 3 and figure 2. The mask that a frame reads the
memory by is its own: that of its first pass.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PyTree, UInt8
from ml_collections import ConfigDict

from vspw_jax.models import layers
from vspw_jax.models.decoders import memory_rows
from vspw_jax.models.decoders.decoder import Maps, Training, keys_of
from vspw_jax.models.decoders.looks_back import LooksBack
from vspw_jax.models.decoders.memory_decoder import Mask, MemoryDecoder
from vspw_jax.models.encoders.encoder import FeatureMap
from vspw_jax.models.temporal.temporal_memory_attention import TemporalMemoryAttention


class MemoryB(LooksBack, MemoryDecoder):
    """Each frame looks at the `past` frames before it, then reads the memory by its own first pass.

    Args:
      config: the fields of `MemoryDecoder`, past, past_frames (one of `looks_back.PAST_FRAMES`), key_dim, value_dim.
    """

    FIELDS = (*MemoryDecoder.FIELDS, *LooksBack.PAST_FIELDS)
    TORCH_NAMES = memory_rows.NAMES_B

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
        options = layers.Options(dtype=dtype, rngs=rngs)
        super().__init__(maps, num_classes, config, remat, **options)
        widths = config.key_dim, config.value_dim
        dim = config.memory_dim
        self.temporal = TemporalMemoryAttention(dim, dim, config.past, *widths, remat, **options)

    def __call__(self, maps: Maps, training: Training | None = None) -> dict[str, Array]:
        """As `MemoryA`'s, in training of the frames of `decoded_frames`; else each image is a video's first."""
        features = self.look_back(self.represent(maps, training is not None), training)
        maps = [self.of_decoded(x, training) for x in maps]
        training, mask = self.known_of_decoded(training), self.blank(features)
        if training:
            mask = self.or_truth(mask, self.truth(features, training), training)
        outputs = self._read_by(mask, maps, features, training)
        if training:
            self.learn(features, training)
        return outputs

    def _read_by(
        self, mask: Mask, maps: Maps, features_NhwC: layers.Map, training: Training | None
    ) -> dict[str, Array]:
        train = training is not None
        first_pass = self.first_head(features_NhwC, train, keys_of(training, 2))
        joined, logits = self.read(self.fuse(maps, train), features_NhwC, first_pass, mask, train, keys_of(training, 0))
        return self.outputs(maps, joined, logits, first_pass, training)

    def memory(self, maps: Maps) -> PyTree:
        return self.no_past(maps[self.config.level])

    def look(
        self, maps: Maps, memory: PyTree, mask_NHW: UInt8[Array, "N H W"] | None = None
    ) -> tuple[dict[str, Array], PyTree]:
        features, after = self.next_frame(self.represent(maps, False), memory)
        mask = self.blank(features) if mask_NHW is None else self.given(mask_NHW, features)
        return self._read_by(mask, maps, features, None), after
