"""Temporal memory attention (TMA): every pixel of a frame attends to all pixels of the T frames before it.

Source: Temporal Memory Attention for Video Semantic Segmentation (Wang et al., arXiv 2102.08643); wanghao9610/TMANet
mmseg/models/decode_heads/tma_head.py. Each place in the past, 0 for the oldest frame, has layers of its own. Before a
video's first frame that frame is repeated, as the authors advise (TMANet, issue 23). What a frame gives for each place
is computed once, whatever number of later frames looks at it.
Shapes: N images, B clips, F frames of a clip, H and W cells, S cells of a map, Q frames in a queue or frames that look
back, P places in the past, C channels.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from vspw_jax.models import layers
from vspw_jax.models.temporal import frame_queue

Place = tuple[layers.Map, ...]
"""Keys and values."""
Queue = tuple[Float[Array, "N Q H W C"], ...]
"""Keys and values of the last frames for one place in the past, the oldest first; Q is how far back the place is."""


def frames_before(frames: int, past: int, first: int = 0) -> Int[np.ndarray, "Q P"]:
    """Numbers of the `past` frames before each frame of a clip from `first` on, the oldest first; none is below 0."""
    return np.maximum(np.arange(first, frames)[:, None] + np.arange(-past, 0), 0)


def drawn_before(keys_BQ: Key[Array, "B Q"], frames: int, past: int) -> Int[Array, "B Q P"]:
    """Numbers of `past` frames, drawn from all those before it in its clip, for each of the last Q frames of clips.

    As TMANet's random_select over its sequence_range, but drawn anew in every pass. None comes twice; oldest first.
    """

    def of_frame(key: Key[Array, ""], number: Int[Array, ""]) -> Int[Array, " P"]:
        draw_F = jnp.where(jnp.arange(frames) < number, jax.random.uniform(key, (frames,)), -1.0)
        return jnp.sort(lax.top_k(draw_F, past)[1])

    numbers_Q = jnp.arange(frames - keys_BQ.shape[1], frames)
    return jax.vmap(jax.vmap(of_frame), (0, None))(keys_BQ, numbers_Q)


def chosen(x_NHWC: layers.Map, numbers_BQ: Int[Array, "B Q"]) -> layers.Map:
    """Images of clips by their numbers in their clip."""
    clips = x_NHWC.reshape(len(numbers_BQ), -1, *x_NHWC.shape[1:])
    return jax.vmap(lambda clip, numbers: clip[numbers])(clips, numbers_BQ).reshape(-1, *x_NHWC.shape[1:])


class TemporalMemoryAttention(nnx.Module):
    """Maps of frames to maps of the same size that know the frames before.

    Args:
      width, dim: widths of the maps that are read and made.
      past: T.
      key_dim, value_dim: widths of keys and values.
      remat: a key of `layers.REMAT_POLICIES`, for the attention's weights of every pair of cells.
    """

    def __init__(
        self,
        width: int,
        dim: int,
        past: int,
        key_dim: int,
        value_dim: int,
        remat: str,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.widths, self.remat, self.dtype = (key_dim, value_dim), remat, dtype

        def stack(to: int) -> nnx.List:
            return nnx.List([layers.ConvNormRelu(width, to, 1, **options), layers.ConvNormRelu(to, to, 3, **options)])

        self.query_key, self.query_value = map(stack, self.widths)
        self.memory_key, self.memory_value = (nnx.List([stack(to) for _ in range(past)]) for to in self.widths)
        self.bottleneck = layers.ConvNormRelu(2 * value_dim, dim, 3, **options)

    def _run(self, stack: nnx.List, x_NHWC: layers.Map, train: bool) -> layers.Map:
        for layer in stack:
            x_NHWC = layer(x_NHWC, train)
        return x_NHWC

    def for_places(self, x_NHWC: layers.Map, train: bool) -> list[Place]:
        """What frames give to later ones, for each place in their past."""
        return [self._at_place(place, x_NHWC, train) for place in range(len(self.memory_key))]

    def _at_place(self, place: int, x_NHWC: layers.Map, train: bool) -> Place:
        """What frames give where they stand at a place in the past."""
        return (
            self._run(self.memory_key[place], x_NHWC, train),
            self._run(self.memory_value[place], x_NHWC, train),
        )

    def attend(self, x_NHWC: layers.Map, places: list[Place], train: bool) -> layers.Map:
        """What frames become, given what stands at each place in their past.

        The products of queries and keys are not scaled, as in the released code (matmul_norm is off).
        """
        query, own = self._run(self.query_key, x_NHWC, train), self._run(self.query_value, x_NHWC, train)
        keys, values = (
            jnp.concatenate([layers.to_tokens(x) for x in kind], axis=1) for kind in zip(*places, strict=True)
        )
        unscaled = layers.rematerialised(functools.partial(layers.attend, scale=1.0), self.remat)
        seen = unscaled(layers.to_tokens(query), keys, values)
        return self.bottleneck(jnp.concatenate([own, seen.reshape(own.shape)], axis=-1), train)

    def in_clips(self, x_NHWC: layers.Map, past_BQP: Int[Array, "B Q P"], train: bool) -> layers.Map:
        """The last Q frames of B clips, each given the frames of its clip that stand at its places in the past.

        Args:
          past_BQP: their numbers, as `frames_before` or `drawn_before` gives them.
        """
        clips, count, past = past_BQP.shape
        # Chosen first: a place's batch norms see no frame that does not stand there, as in TMANet.
        places = [self._at_place(place, chosen(x_NHWC, past_BQP[..., place]), train) for place in range(past)]
        return self.attend(layers.last_frames(x_NHWC, len(x_NHWC) // clips, count), places, train)

    def no_past(self, x_NHWC: layers.Map) -> list[Queue]:
        """Queues before a first frame; of the map only the shape counts."""
        past = len(self.memory_key)
        blank = [jnp.zeros((*x_NHWC.shape[:3], width)) for width in self.widths]
        return [tuple(frame_queue.empty(x, past - place) for x in blank) for place in range(past)]

    def next_frame(
        self, x_NHWC: layers.Map, queues: list[Queue], is_first_N: Bool[Array, " N"]
    ) -> tuple[layers.Map, list[Queue]]:
        """(the next frame of N views, given those before it; the queues after it).

        Args:
          is_first_N: a first frame fills its queues with itself.
        """
        new = self.for_places(x_NHWC, False)
        full = [
            tuple(frame_queue.begun(*pair, is_first_N) for pair in zip(*place, strict=True))
            for place in zip(queues, new, strict=True)
        ]
        oldest = [tuple(queue[:, 0].astype(self.dtype) for queue in pair) for pair in full]
        output = self.attend(x_NHWC, oldest, False)
        return output, [tuple(map(frame_queue.pushed, *pair)) for pair in zip(full, new, strict=True)]
