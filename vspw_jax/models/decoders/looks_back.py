"""What decoders with temporal memory attention share: which frames they look at, and what they keep of a video.

In training only frames with a whole past are decoded: with a repeated frame in its place, as before a video's first
frame, the attention has nothing to learn from, and of clips as long as the past that would be all frames but the last.
Shapes: B clips, N images, Q frames of a clip that are decoded, P places in the past, H and W cells, C channels.
"""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree
from ml_collections import ConfigDict, FrozenConfigDict

from vspw_jax.console.errors import choose
from vspw_jax.models import layers
from vspw_jax.models.decoders.decoder import Decoder, Training
from vspw_jax.models.encoders.encoder import FeatureMap
from vspw_jax.models.temporal.temporal_memory_attention import TemporalMemoryAttention, drawn_before, frames_before

PAST_FRAMES = ("last", "drawn")
"""Which frames a frame in training looks back at: the last ones, or some drawn from all before it in its clip."""


class LooksBack(Decoder):
    """A frame looks at the `past` frames before it through `temporal`; before a video's first frame that is repeated.

    A subclass has `config` and `temporal`.
    """

    PAST_FIELDS: ClassVar[tuple[str, ...]] = ("past", "past_frames", "key_dim", "value_dim")
    remembers = True
    config: FrozenConfigDict
    temporal: TemporalMemoryAttention

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        super().check(config, maps)
        choose(dict.fromkeys(PAST_FRAMES), config.past_frames, "model.decoder.past_frames")

    @classmethod
    def decoded_frames(cls, config: ConfigDict, frames: int) -> int:
        return frames - config.past

    @classmethod
    def least_frames(cls, config: ConfigDict) -> int:
        # Of as many frames as the past has places there is nothing to draw.
        return config.past + (2 if config.past_frames == "drawn" else 1)

    def of_decoded(self, x_N: Array, training: Training | None) -> Array:
        """Of all images those that are decoded."""
        return layers.last_frames(x_N, training.frames, training.frames - self.config.past) if training else x_N

    def known_of_decoded(self, training: Training | None) -> Training | None:
        """What is known of the images that are decoded."""
        return training.of_last(training.frames - self.config.past) if training else None

    def look_back(self, x_NHWC: layers.Map, training: Training | None) -> layers.Map:
        """What the images that are decoded become, of maps of all images; without training each is a video's first."""
        return self.temporal.in_clips(x_NHWC, self.past_of(training, len(x_NHWC)), training is not None)

    def past_of(self, training: Training | None, images: int) -> Int[Array, "B Q P"]:
        """Numbers in their clip of the frames that stand at the places in the past of those that are decoded."""
        frames, past = (training.frames if training else 1), self.config.past
        of_decoded = self.known_of_decoded(training)
        if of_decoded is not None and of_decoded.keys_N is not None and self.config.past_frames == "drawn":
            keys_N = of_decoded.keys(4)
            assert keys_N is not None
            return drawn_before(keys_N.reshape(-1, of_decoded.frames), frames, past)
        numbers_QP = frames_before(frames, past, first=past if training else 0)
        return jnp.broadcast_to(jnp.asarray(numbers_QP), (images // frames, *numbers_QP.shape))

    def next_frame(self, x_NHWC: layers.Map, memory: PyTree) -> tuple[layers.Map, PyTree]:
        """(what the next frame of N views becomes, what is remembered after it)."""
        is_first_N = memory["is_first_N"]
        seen, past = self.temporal.next_frame(x_NHWC, memory["past"], is_first_N)
        return seen, {"past": past, "is_first_N": jnp.zeros_like(is_first_N)}

    def no_past(self, x_NHWC: layers.Map) -> PyTree:
        """What is remembered before a first frame; of the map only the shape counts."""
        return {"past": self.temporal.no_past(x_NHWC), "is_first_N": jnp.ones(len(x_NHWC), bool)}
