"""Mask classification loss of Mask2Former (arXiv 2112.01527, sections 3.3 and 4.1).

The loss is the weighted sum of "cls", the queries' class cross-entropy, "mask", the mean binary cross-entropy of masks
at sampled points, and "dice", their dice loss. Weights 2, 5, 5 in the paper; equation 4 of paper 000 (arXiv 2306.03508)
has cross-entropy 1 and dice 5 and names no "mask": to its letter that weight is 0.

Sources: czczup/ViT-Adapter segmentation/mmseg_custom/models/decode_heads/mask2former_head.py and
configs/_base_/models/mask2former_beit.py; facebookresearch/Mask2Former mask2former/modeling/criterion.py.
Shapes: L predictions (decoder layers + 1), N images, Q queries, K real classes, M targets (one a class present, padded
to a fixed capacity), P points, H and W.
"""

import jax
import jax.numpy as jnp
from jax import lax

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import choose
from vspw_jax.losses import matching
from vspw_jax.sampling import bilinear


def present_classes(label_HW, num_classes, capacity):
    """Classes of a label map: (class_M, valid_M), ascending, padded to `capacity` or all classes. Void is none."""
    present = (label_HW.reshape(-1, 1) == jnp.arange(num_classes)).any(axis=0)
    class_M = jnp.argsort(~present, stable=True)[:capacity]
    return class_M, present[class_M]


def target_masks_at(label_HW, class_M, points_P2):
    """Bilinear samples (M, P) of the binary masks of classes, straight from the label map; void is background."""
    index_P4, weight_P4 = bilinear.corners(points_P2, *label_HW.shape)
    label_P4 = jnp.asarray(label_HW).reshape(-1).at[index_P4].get(mode="clip")
    hit_MP4 = (label_P4 == class_M[:, None, None]).astype(jnp.float32)
    return jnp.einsum("mpk,pk->mp", hit_MP4, weight_P4, precision="highest")


def cells_with_label(label_HW, height, width):
    """Cells (height, width) of a mask as booleans: those that do not lie wholly under void."""
    row_hH, column_wW = (
        (jnp.arange(size) * cells // size == jnp.arange(cells)[:, None]).astype(jnp.float32)
        for size, cells in zip(label_HW.shape, (height, width), strict=True)
    )
    return row_hH @ (label_HW != VOID).astype(jnp.float32) @ column_wW.T > 0


def touches_only(allowed_HW, points_P2):
    """Points (P,) as booleans: those whose bilinear samples of a map take nothing but allowed cells."""
    index_P4, weight_P4 = bilinear.corners(points_P2, *allowed_HW.shape)
    return (allowed_HW.reshape(-1).at[index_P4].get(mode="clip") | (weight_P4 == 0)).all(axis=-1)


def all_points(label_HW, mask_shape):
    """Every point counts; what is void is background, as in the released code."""
    return lambda points_P2: jnp.ones(points_P2.shape[0], bool)


def points_off_void(label_HW, mask_shape):
    """Points count that touch no void pixel of the label, and no cell of the mask that lies wholly under void."""
    label_HW = jnp.asarray(label_HW)
    allowed = (label_HW != VOID, cells_with_label(label_HW, *mask_shape))
    return lambda points_P2: touches_only(allowed[0], points_P2) & touches_only(allowed[1], points_P2)


COUNTED = {"background": all_points, "excluded": points_off_void}
"""Which points count, as a function of (points), by a label and a mask's (height, width)."""


def dice_loss(logits_P, targets_P, weight_P):
    """1 - (2 p.t + 1) / (sum p + sum t + 1) over weighted points, p = sigmoid(logits); first powers, eps 1."""
    probabilities = jax.nn.sigmoid(logits_P)
    overlap = (weight_P * probabilities * targets_P).sum()
    return 1 - (2 * overlap + 1) / ((weight_P * (probabilities + targets_P)).sum() + 1)


def binary_cross_entropy(logits_P, targets_P, weight_P):
    """Weighted mean over points of the sigmoid cross-entropy; 0 where all weights are."""
    terms_P = jax.nn.softplus(logits_P) - logits_P * targets_P
    return (weight_P * terms_P).sum() / jnp.maximum(weight_P.sum(), 1.0)


def matching_cost(class_logits_QK, mask_logits_QP, class_M, targets_MP, weight_P, weights):
    """Cost (Q, M) of giving target m to query q: the loss terms, with -p(class) in place of the cross-entropy."""
    class_cost = -jax.nn.softmax(class_logits_QK)[:, class_M]
    counted_PM = (targets_MP * weight_P).T
    softplus_Q1 = (jax.nn.softplus(mask_logits_QP) @ weight_P)[:, None]
    mask_cost = (softplus_Q1 - mask_logits_QP @ counted_PM) / jnp.maximum(weight_P.sum(), 1.0)
    probabilities_QP = jax.nn.sigmoid(mask_logits_QP)
    total_QM = (probabilities_QP @ weight_P)[:, None] + counted_PM.sum(axis=0)
    dice_cost = 1 - (2 * probabilities_QP @ counted_PM + 1) / (total_QM + 1)
    return weights["cls"] * class_cost + weights["mask"] * mask_cost + weights["dice"] * dice_cost


def uncertain_points(mask_logits_HW, key, num_points, oversample, importance, counted=None):
    """Points (P, 2) in [0, 1], where the mask is least sure or at random.

    `importance` of them are those of least |logit| among oversample * P uniform draws, the rest uniform
    (PointRend, arXiv 1912.08193, section 3.1). Draws for which `counted` of points is false come last.
    """
    draw_key, rest_key = jax.random.split(key)
    draws = jax.random.uniform(draw_key, (int(oversample * num_points), 2))
    kept = int(importance * num_points)
    certainty = jnp.abs(bilinear.sample(mask_logits_HW[..., None], draws)[:, 0])
    if counted is not None:
        certainty = jnp.where(counted(draws), certainty, jnp.inf)
    _, index = lax.top_k(-certainty, kept)
    return jnp.concatenate([draws[index], jax.random.uniform(rest_key, (num_points - kept, 2))])


def image_terms(class_logits_QK, mask_logits_QHW, label_HW, key, config):
    """Loss terms of one image and one prediction, summed but not yet averaged.

    Args:
      class_logits_QK: K includes "no object", last.
      mask_logits_QHW: at any resolution.
      label_HW: int, 0..K-2 or void, at any resolution.
      key: for the points.
      config: capacity, num_points, oversample, importance, no_object_weight, matching (weights by term), void (a key
        of `COUNTED`; with "excluded" no cell of a mask that lies wholly under void moves a term or the matching).

    Returns:
      (sums, weights): dicts by term; a term's loss is its sums over its weights, each added over a batch first.

    Raises:
      UserError: an unknown `void`.
    """
    num_queries, num_classes = class_logits_QK.shape[0], class_logits_QK.shape[1] - 1
    class_M, valid_M = present_classes(label_HW, num_classes, config.capacity)
    match_key, point_key = jax.random.split(key)
    counted = choose(COUNTED, config.void, "loss.segmentation.void")(label_HW, mask_logits_QHW.shape[1:])

    points_P2 = jax.random.uniform(match_key, (config.num_points, 2))
    detached_QHW = lax.stop_gradient(mask_logits_QHW)
    sampled_QP = bilinear.sample(detached_QHW.transpose(1, 2, 0), points_P2).T
    targets_MP = target_masks_at(label_HW, class_M, points_P2)
    weight_P = counted(points_P2).astype(jnp.float32)
    detached_QK = lax.stop_gradient(class_logits_QK)
    cost_QM = matching_cost(detached_QK, sampled_QP, class_M, targets_MP, weight_P, config.matching)
    query_M = matching.assign(cost_QM, valid_M)

    wanted_Q = jnp.full(num_queries, num_classes).at[jnp.where(valid_M, query_M, num_queries)].set(class_M, mode="drop")
    weight_Q = jnp.where(wanted_Q == num_classes, config.no_object_weight, 1.0)
    cross_entropy_Q = -jnp.take_along_axis(jax.nn.log_softmax(class_logits_QK), wanted_Q[:, None], axis=1)[:, 0]

    def mask_terms(query, class_id, key):
        logits_HW = mask_logits_QHW[query]
        draws = (config.num_points, config.oversample, config.importance, counted)
        points_P2 = uncertain_points(lax.stop_gradient(logits_HW), key, *draws)
        logits_P = bilinear.sample(logits_HW[..., None], points_P2)[:, 0]
        targets_P = target_masks_at(label_HW, class_id[None], points_P2)[0]
        weight_P = counted(points_P2).astype(jnp.float32)
        return binary_cross_entropy(logits_P, targets_P, weight_P), dice_loss(logits_P, targets_P, weight_P)

    mask_M, dice_M = jax.vmap(mask_terms)(query_M, class_M, jax.random.split(point_key, class_M.shape[0]))
    count = valid_M.sum().astype(jnp.float32)
    sums = {
        "cls": (weight_Q * cross_entropy_Q).sum(),
        "mask": jnp.where(valid_M, mask_M, 0.0).sum(),
        "dice": jnp.where(valid_M, dice_M, 0.0).sum(),
    }
    return sums, {"cls": weight_Q.sum(), "mask": count, "dice": count}


def mask_classification_loss(class_logits_LNQK, mask_logits_LNQHW, label_NHW, key_N, config, total=lambda x: x):
    """The loss terms of a batch, each averaged over the batch and summed over the L predictions.

    The class term is averaged by the queries' weights, the mask and dice terms by the number of masks (0 if none).
    The released code averages the class term on each device by itself; here averages span all devices, so that
    the loss does not depend on how many there are.

    Args:
      key_N: one key an image; the draws do not depend on how images share devices.
      config: see `image_terms`, and `weights` by term.
      total: adds over devices; inside a mapped loss, a psum of numbers that carry no gradient.

    Returns:
      dict of unweighted terms "cls", "mask", "dice". Where the batch shares devices, each holds its device's
      part: the loss is their sum over devices.
    """

    def one_prediction(inputs):
        number, class_logits_NQK, mask_logits_NQHW = inputs
        keys = jax.vmap(jax.random.fold_in, (0, None))(key_N, number)
        return jax.vmap(lambda *args: image_terms(*args, config))(class_logits_NQK, mask_logits_NQHW, label_NHW, keys)

    numbers = jnp.arange(class_logits_LNQK.shape[0])
    sums_LN, weights_LN = lax.map(one_prediction, (numbers, class_logits_LNQK, mask_logits_LNQHW))

    def average(sums, weights):
        weight_L = total(lax.stop_gradient(weights.sum(axis=1)))
        return (sums.sum(axis=1) / jnp.where(weight_L > 0, weight_L, 1.0)).sum()

    return {term: average(sums_LN[term], weights_LN[term]) for term in sums_LN}
