"""Cross-frame contrastive loss of paper 000 (arXiv 2306.03508), equations 1 and 2.

Shapes: G groups, B clips, T frames, H and W patches, M = patches of a group, D channels.
"""

import jax
import jax.numpy as jnp

from vspw_jax.classes import VOID

NO_NEGATIVE = -1e30
"""Stands for a similarity that does not count: its exponential is 0, and unlike -inf its gradient is not NaN."""


def patch_labels(label_BTHW, height, width):
    """Labels (B, T, height, width) of patches: each patch's first pixel, as torch's F.interpolate(mode="nearest")."""
    rows = jnp.arange(height) * label_BTHW.shape[2] // height
    columns = jnp.arange(width) * label_BTHW.shape[3] // width
    return label_BTHW[:, :, rows][:, :, :, columns]


def group_loss(features_MD, labels_M, temperature=0.1):
    """Mean over anchors that have a positive of equation 1, negated as equation 2 does.

    For anchor i with positives phi (same label, i itself left out) and negatives (another label):
    -1/|phi| sum over p in phi of log(exp(s_ip) / (exp(s_ip) + sum over negatives j of exp(s_ij))), s = x.x / tau.
    The paper states neither temperature nor whether i counts as its own positive; 0.1 and "left out" are
    those of ContrastiveSeg (tfzhou/ContrastiveSeg lib/loss/loss_contrast.py).

    Args:
      features_MD: unit-length float32 features of one group's patches.
      labels_M: class ids, 255 void; void patches are neither anchors, positives nor negatives.
      temperature: tau.

    Returns:
      Scalar; 0 with zero gradients where no anchor has a positive. An anchor without negatives counts 0.
    """
    known_M = labels_M != VOID
    same = labels_M[:, None] == labels_M[None]
    both_known = known_M[:, None] & known_M[None]
    positive = same & both_known & ~jnp.eye(labels_M.shape[0], dtype=bool)
    negative = ~same & both_known
    similarity = features_MD @ features_MD.T / temperature
    negatives_M1 = jax.nn.logsumexp(jnp.where(negative, similarity, NO_NEGATIVE), axis=1, keepdims=True)
    # log(1 + exp(negatives - s)) is the negated logarithm of the fraction; without a negative it is 0.
    terms = jnp.where(positive, jax.nn.softplus(negatives_M1 - similarity), 0.0)
    count_M = positive.sum(axis=1)
    anchor_M = terms.sum(axis=1) / jnp.maximum(count_M, 1)
    return anchor_M.sum() / jnp.maximum((count_M > 0).sum(), 1)


def grouped_loss(features_BTHWD, label_BTHW, groups, temperature):
    """Sum of `group_loss` over `groups` equal runs of clips; divide by the number of groups of all devices."""
    batch, frames, height, width, dim = features_BTHWD.shape
    labels = patch_labels(label_BTHW, height, width)
    # rsqrt with eps in place of a norm: a zero vector keeps a finite gradient.
    features = features_BTHWD * jax.lax.rsqrt(jnp.square(features_BTHWD).sum(axis=-1, keepdims=True) + 1e-12)
    features_GMD = features.reshape(groups, -1, dim)
    return jax.vmap(lambda f, l: group_loss(f, l, temperature))(features_GMD, labels.reshape(groups, -1)).sum()
