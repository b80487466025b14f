"""Decoder B of paper 001: temporal memory attention makes a frame's representations, which read the feature memory.

Source: Memory Based Video Scene Parsing (Jin et al., 2021), section 3 and figure 2. The mask that a frame reads the
memory by is its own: that of its first pass. In training only frames with a whole past are decoded: with a repeated
frame in its place, as before a video's first frame, attention over time has nothing to learn from, and of clips as long
as the past that would be all frames but the last.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int, PyTree, UInt8
from ml_collections import ConfigDict

from vspw_jax.console.errors import choose
from vspw_jax.models import layers
from vspw_jax.models.decoders import memory_rows
from vspw_jax.models.decoders.decoder import Maps, Training, keys_of
from vspw_jax.models.decoders.memory_decoder import Mask, MemoryDecoder
from vspw_jax.models.encoders.encoder import FeatureMap
from vspw_jax.models.temporal.temporal_memory_attention import TemporalMemoryAttention, drawn_before, frames_before

PAST_FRAMES = ("last", "drawn")
"""Which frames a frame in training looks back at: the last ones, or some drawn from all before it in its clip."""


class MemoryB(MemoryDecoder):
    """Each frame looks at the `past` frames before it; before a video's first frame that one is repeated.

    Args:
      config: the fields of `MemoryDecoder`, past, past_frames (one of `PAST_FRAMES`), key_dim, value_dim.
    """

    FIELDS = (*MemoryDecoder.FIELDS, "past", "past_frames", "key_dim", "value_dim")
    TORCH_NAMES = memory_rows.NAMES_B

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        super().check(config, maps)
        choose(dict.fromkeys(PAST_FRAMES), config.past_frames, "model.decoder.past_frames")

    @classmethod
    def decoded_frames(cls, config: ConfigDict, frames: int) -> int:
        return frames - config.past

    @classmethod
    def least_frames(cls, config: ConfigDict) -> int:
        return config.past + 1

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
        self.temporal = TemporalMemoryAttention(config.memory_dim, config.past, *widths, remat, **options)

    def __call__(self, maps: Maps, training: Training | None = None) -> dict[str, Array]:
        """As `MemoryA`'s, in training of the frames of `decoded_frames`; else each image is a video's first."""
        represented = self.represent(maps, training is not None)
        if training is None:
            itself_BQP = jnp.zeros((len(represented), 1, self.config.past), int)
            features = self.temporal.in_clips(represented, itself_BQP, False)
            return self._read_by(self.blank(features), maps, features, None)
        count = self.decoded_frames(self.config, training.frames)
        maps = [layers.last_frames(x, training.frames, count) for x in maps]
        features = self.temporal.in_clips(represented, self._past(training, len(represented)), True)
        training = training.of_last(count)
        mask = self.or_truth(self.blank(features), self.truth(features, training), training)
        outputs = self._read_by(mask, maps, features, training)
        self.learn(features, training)
        return outputs

    def _past(self, training: Training, images: int) -> Int[Array, "B Q P"]:
        """Numbers of the frames at the places in the past of those that are decoded."""
        frames, past = training.frames, self.config.past
        keys_N = training.of_last(frames - past).keys(4)
        if self.config.past_frames == "drawn" and keys_N is not None:
            return drawn_before(keys_N.reshape(-1, frames - past), frames, past)
        numbers_QP = frames_before(frames, past, first=past)
        return jnp.broadcast_to(jnp.asarray(numbers_QP), (images // frames, *numbers_QP.shape))

    def _read_by(
        self, mask: Mask, maps: Maps, features_NhwC: layers.Map, training: Training | None
    ) -> dict[str, Array]:
        train = training is not None
        first_pass = self.first_head(features_NhwC, train, keys_of(training, 2))
        joined, logits = self.read(self.fuse(maps, train), features_NhwC, first_pass, mask, train, keys_of(training, 0))
        return self.outputs(maps, joined, logits, first_pass, training)

    def memory(self, maps: Maps) -> PyTree:
        level = maps[self.config.level]
        return {"past": self.temporal.no_past(level), "is_first_N": jnp.ones(len(level), bool)}

    def look(
        self, maps: Maps, memory: PyTree, mask_NHW: UInt8[Array, "N H W"] | None = None
    ) -> tuple[dict[str, Array], PyTree]:
        is_first_N = memory["is_first_N"]
        features, past = self.temporal.next_frame(self.represent(maps, False), memory["past"], is_first_N)
        after = {"past": past, "is_first_N": jnp.zeros_like(is_first_N)}
        mask = self.blank(features) if mask_NHW is None else self.given(mask_NHW, features)
        return self._read_by(mask, maps, features, None), after
