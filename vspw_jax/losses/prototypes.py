"""Pixel-level contrast of paper 003 (MDP, arXiv 2106.04121): with pixels, with class prototypes, with several of these.

Equation 2: a pixel of one view against the pixels of the other view. Equation 4: a pixel against one prototype for each
class. Equation 8 (sparse coding): as equation 4 with weight alpha, and with weight 1 - alpha towards the pixel's `top`
most similar prototypes. A pixel's loss is a cross-entropy: the log-sum-exp of its similarities minus the mean
similarity of what it is pulled to.

What the paper leaves open: classes without a prototype take no part, neither in the softmax nor among the most similar.
Where fewer than `top` remain, the mean is over those. Void pixels are no keys.
Shapes: P pixels, D channels, K classes, R keys, S pixels of a strip.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from vspw_jax.classes.vspw import VOID
from vspw_jax.losses.cross_frame_nce import product

Features = Float[Array, "P D"]
Labels = Int[Array, " P"]
Losses = tuple[Float[Array, " P"], Bool[Array, " P"]]
"""Of every pixel its loss, and whether it counts; that of a pixel that does not is 0."""

LEFT_OUT = -1e30
"""Stands for a similarity that does not count: its exponential is 0, and unlike -inf its gradient is not NaN."""

STRIP_SIMILARITIES = 2**22
"""Similarities of a strip: 16 MiB, and as much for their gradient."""


def in_strips(
    losses_of: Callable[[Features, Labels], Losses], features_PD: Features, labels_P: Labels, others: int
) -> Losses:
    """`losses_of` all pixels, strip by strip; the backward pass makes each strip's similarities once more.

    Memory is that of a strip's similarities with the `others` that each pixel is compared to.
    """
    pixels, rows = len(labels_P), max(STRIP_SIMILARITIES // max(others, 1), 1)
    if pixels <= rows:
        return losses_of(features_PD, labels_P)
    strips = -(-pixels // rows)
    beyond = strips * rows - pixels
    features_PD = jnp.pad(features_PD, ((0, beyond), (0, 0)))
    labels_P = jnp.pad(labels_P, (0, beyond), constant_values=VOID)
    inputs = features_PD.reshape(strips, rows, -1), labels_P.reshape(strips, rows)
    losses = lax.map(jax.checkpoint(lambda strip: losses_of(*strip)), inputs)
    return jax.tree.map(lambda x: x.reshape(-1)[:pixels], losses)


def mean(losses: Losses) -> Float[Array, ""]:
    """The mean over the pixels that count; 0 where none does."""
    loss_P, counts_P = losses
    return loss_P.sum() / jnp.maximum(counts_P.sum(), 1)


def prototype_losses(
    features_PD: Features,
    labels_P: Labels,
    prototypes_KD: Float[Array, "K D"],
    valid_K: Bool[Array, " K"],
    temperature: float,
    alpha: float = 1.0,
    top: int = 0,
    own_in_top: bool = True,
) -> Losses:
    """Equation 8 for every pixel; with alpha 1 and top 0 it is equation 4.

    Args:
      features_PD: unit-length float32 features.
      labels_P: class ids, 255 void. A pixel counts if its class is valid.
      prototypes_KD: unit-length.
      valid_K: which classes have a prototype.
      alpha: the share of the pixel's own class.
      top: how many of the most similar prototypes it is pulled to besides; of equally similar ones the first count.
      own_in_top: whether the own class may be one of these, as in the equation; otherwise they are others.
    """
    classes = len(valid_K)
    picked = min(top, classes)

    def of_strip(features_SD: Features, labels_S: Labels) -> Losses:
        similarity_SK = jnp.where(valid_K, product(features_SD, prototypes_KD.T) / temperature, LEFT_OUT)
        whole_S = jax.nn.logsumexp(similarity_SK, axis=1)
        own_SK = labels_S[:, None] == jnp.arange(classes)
        counts_S = (own_SK & valid_K).any(axis=1) & (labels_S != VOID)
        loss_S = alpha * (whole_S - jnp.where(own_SK, similarity_SK, 0.0).sum(axis=1))
        if picked:
            candidates_SK = similarity_SK if own_in_top else jnp.where(own_SK, LEFT_OUT, similarity_SK)
            nearest_ST, _ = lax.top_k(candidates_SK, picked)
            there_ST = nearest_ST > LEFT_OUT / 2
            pulled_S = jnp.where(there_ST, whole_S[:, None] - nearest_ST, 0.0).sum(axis=1)
            loss_S += (1 - alpha) * pulled_S / jnp.maximum(there_ST.sum(axis=1), 1)
        return jnp.where(counts_S, loss_S, 0.0), counts_S

    return in_strips(of_strip, features_PD, labels_P, classes)


def pixel_losses(
    features_PD: Features,
    labels_P: Labels,
    keys_RD: Float[Array, "R D"],
    key_labels_R: Int[Array, " R"],
    temperature: float,
) -> Losses:
    """Equation 2 for every pixel: it counts if a key has its class. Arguments as `pixel_to_pixel`."""
    known_R = key_labels_R != VOID

    def of_strip(features_SD: Features, labels_S: Labels) -> Losses:
        similarity_SR = product(features_SD, keys_RD.T) / temperature
        positive_SR = (labels_S[:, None] == key_labels_R) & known_R
        count_S = positive_SR.sum(axis=1)
        whole_S = jax.nn.logsumexp(jnp.where(known_R, similarity_SR, LEFT_OUT), axis=1)
        pulled_S = jnp.where(positive_SR, similarity_SR, 0.0).sum(axis=1) / jnp.maximum(count_S, 1)
        return jnp.where(count_S > 0, whole_S - pulled_S, 0.0), count_S > 0

    return in_strips(of_strip, features_PD, labels_P, len(key_labels_R))


def pixel_to_prototype(
    features_PD: Features,
    labels_P: Labels,
    prototypes_KD: Float[Array, "K D"],
    valid_K: Bool[Array, " K"],
    temperature: float,
    alpha: float = 1.0,
    top: int = 0,
) -> Float[Array, ""]:
    """The mean of equation 8 (alpha 1, top 0: equation 4) over the pixels whose class is valid; 0 where none is.

    Arguments as `prototype_losses`. The most similar prototypes are of all valid classes, the pixel's own among them.
    """
    return mean(prototype_losses(features_PD, labels_P, prototypes_KD, valid_K, temperature, alpha, top))


def pixel_to_pixel(
    features_PD: Features,
    labels_P: Labels,
    keys_RD: Float[Array, "R D"],
    key_labels_R: Int[Array, " R"],
    temperature: float,
) -> Float[Array, ""]:
    """The mean of equation 2 over the pixels that have a positive; 0 where none has.

    Args:
      features_PD: unit-length float32 features of one view.
      labels_P: class ids, 255 void.
      keys_RD, key_labels_R: the same of the other view, or of anything else that is labelled.
    """
    return mean(pixel_losses(features_PD, labels_P, keys_RD, key_labels_R, temperature))
