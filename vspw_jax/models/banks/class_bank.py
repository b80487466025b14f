"""The bank of paper 003 (MDP, arXiv 2106.04121), equation 3: for every class one prototype of its last images.

For each of the last batches it keeps the sum over images of the means of their pixels of a class, and how many images
these were. A prototype is the sum over batches divided by their number, and then has unit length, as what it is
multiplied by has: the paper does not say so, but the class's norm would else act as a temperature. Every batch takes
the place of the oldest one, for all classes, those that it lacks too: a class not seen for so long is forgotten.
Shapes: N images, P pixels, S slots, K classes, D channels.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from vspw_jax.models.banks.image_means import image_means, unit_length
from vspw_jax.models.memory import Memory, Seen, summed


class Lesson(NamedTuple):
    """What the images of one pass, on all devices, add to the slot of their batch."""

    sums_KD: Float[Array, "K D"]
    images_K: Float[Array, " K"]


class ClassBank(nnx.Module):
    """A ring of slots, a batch in each. Memory and checkpoints: slots x classes x channels numbers.

    Args:
      config: slots, the paper's N_b / b_s.
    """

    def __init__(self, num_classes: int, dim: int, config: ConfigDict) -> None:
        self.sums_SKD = Memory(jnp.zeros((config.slots, num_classes, dim)))
        self.images_SK = Memory(jnp.zeros((config.slots, num_classes)))
        self.next = Memory(jnp.zeros((), jnp.int32))

    def see(
        self, features_NPD: Float[Array, "N P D"], labels_NP: Int[Array, "N P"]
    ) -> tuple[Float[Array, "K D"], Bool[Array, " K"]]:
        """Sees the images of all devices, for `settle`, and gives the prototypes that they already belong to.

        Once in a pass. Where a batch comes in parts (`train.accumulate`) a part's prototypes know the batches before
        and that part; the slot gets all parts, so the bank is the same whatever their number.

        Args:
          features_NPD: unit-length features of the key encoder; no gradient passes.
          labels_NP: class ids, 255 void.

        Returns:
          (prototypes of unit length, whether a class has one).
        """
        means = image_means(lax.stop_gradient(features_NPD), labels_NP, self.images_SK.shape[1])
        lesson = Lesson(*summed((means.mean_NKD.sum(axis=0), means.has_NK.sum(axis=0, dtype=jnp.float32))))
        self.seen = Seen(lesson)
        stays_S = jnp.arange(len(self.images_SK[...])) != self.next[...]
        images_K = jnp.where(stays_S[:, None], self.images_SK[...], 0.0).sum(axis=0) + lesson.images_K
        sums_KD = jnp.where(stays_S[:, None, None], self.sums_SKD[...], 0.0).sum(axis=0) + lesson.sums_KD
        return unit_length(sums_KD / jnp.maximum(images_K, 1)[:, None]), images_K > 0

    def settle(self, lessons: Lesson) -> None:
        """Fills the next slot with what the passes of a step have seen, stacked."""
        slot = self.next[...]
        self.sums_SKD[...] = self.sums_SKD[...].at[slot].set(lessons.sums_KD.sum(axis=0))
        self.images_SK[...] = self.images_SK[...].at[slot].set(lessons.images_K.sum(axis=0))
        self.next[...] = (slot + 1) % len(self.images_SK[...])
