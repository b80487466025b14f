"""Of every image and class the mean of the features of its pixels: what banks of paper 003 are filled with.

Shapes: N images, P pixels, K classes, D channels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vspw_jax.classes.vspw import VOID


class ImageMeans(NamedTuple):
    """p of equation 3, and m: whether the image has pixels of the class; a mean without is 0."""

    mean_NKD: Float[Array, "N K D"]
    has_NK: Bool[Array, "N K"]


def image_means(features_NPD: Float[Array, "N P D"], labels_NP: Int[Array, "N P"], num_classes: int) -> ImageMeans:
    """The means, float32; labels outside of 0..K-1, and void (255), count for no class."""
    of_class_NPK = jax.nn.one_hot(jnp.where(labels_NP == VOID, -1, labels_NP), num_classes)
    pixels_NK = of_class_NPK.sum(axis=1)
    sums_NKD = jnp.einsum("npk,npd->nkd", of_class_NPK, features_NPD.astype(jnp.float32), precision="highest")
    return ImageMeans(sums_NKD / jnp.maximum(pixels_NK, 1)[..., None], pixels_NK > 0)


def unit_length(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """Vectors divided by their length; 0 stays 0."""
    length = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(length > 0, length, 1.0)
