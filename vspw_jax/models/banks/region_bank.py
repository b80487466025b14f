"""The bank that paper 003 compares its own with (table 2): of every class the means of its last images, one by one.

Source: Multi-dataset Pretraining (arXiv 2106.04121), section 3.3, "region embedding", after ContrastiveSeg (arXiv
2101.11939). Shapes: N images of a device, M of all, P pixels, R images that are kept, K classes, D channels.
"""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from vspw_jax.models.banks.image_means import ImageMeans, image_means, unit_length
from vspw_jax.models.memory import Memory, Seen, gathered


class RegionBank(nnx.Module):
    """A ring of images. Memory and checkpoints: images x classes x channels numbers, so it is for few classes.

    Args:
      config: images, the paper's N_b; a batch's images and their views must find room.
    """

    def __init__(self, num_classes: int, dim: int, config: ConfigDict) -> None:
        self.rows_RKD = Memory(jnp.zeros((config.images, num_classes, dim)))
        self.valid_RK = Memory(jnp.zeros((config.images, num_classes), bool))
        self.next = Memory(jnp.zeros((), jnp.int32))

    def see(
        self, features_NPD: Float[Array, "N P D"], labels_NP: Int[Array, "N P"]
    ) -> tuple[Float[Array, "R K D"], Bool[Array, "R K"]]:
        """As `ClassBank.see`, but with a row of unit length for every image and class, and whether it has pixels."""
        means = image_means(lax.stop_gradient(features_NPD), labels_NP, self.valid_RK.shape[1])
        lesson = ImageMeans(*gathered((unit_length(means.mean_NKD), means.has_NK)))
        self.seen = Seen(lesson)
        return self._with(lesson)

    def settle(self, lessons: ImageMeans) -> None:
        """Replaces the oldest images by those of the passes of a step, stacked."""
        lesson = ImageMeans(*(x.reshape(-1, *x.shape[2:]) for x in lessons))
        self.rows_RKD[...], self.valid_RK[...] = self._with(lesson)
        self.next[...] = (self.next[...] + len(lesson.has_NK)) % len(self.valid_RK[...])

    def _with(self, lesson: ImageMeans) -> tuple[Float[Array, "R K D"], Bool[Array, "R K"]]:
        """What is kept once images have taken the places of the oldest ones."""
        place_M = (self.next[...] + jnp.arange(len(lesson.has_NK))) % len(self.valid_RK[...])
        return (
            self.rows_RKD[...].at[place_M].set(lesson.mean_NKD),
            self.valid_RK[...].at[place_M].set(lesson.has_NK),
        )
