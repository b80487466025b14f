"""What is kept of the last frames of a video, as many as a queue is long, whatever the video's length.

Before a video's first frame that frame is repeated: a first frame fills its queue with itself.
Shapes: N views, Q places in a queue, the oldest frame first.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Queue = Float[Array, "N Q ..."]


def empty(x_N: Array, places: int) -> Queue:
    """Before a first frame, in float32, as files have it; of what is kept of a frame only the shape counts."""
    return jnp.zeros((len(x_N), places, *x_N.shape[1:]))


def begun(queue_NQ: Queue, frame_N: Array, is_first_N: Bool[Array, " N"]) -> Queue:
    """Filled with the frame where it is a video's first, as it was elsewhere."""
    is_first = is_first_N.reshape(-1, *(1,) * (queue_NQ.ndim - 1))
    return jnp.where(is_first, frame_N[:, None].astype(queue_NQ.dtype), queue_NQ)


def pushed(queue_NQ: Queue, frame_N: Array) -> Queue:
    """Without the oldest frame, and with a new one."""
    return jnp.concatenate([queue_NQ[:, 1:], frame_N[:, None].astype(queue_NQ.dtype)], axis=1)
