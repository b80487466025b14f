"""Mask classification loss of Mask2Former (arXiv 2112.01527, sections 3.3 and 4.1).

The loss is the weighted sum of three terms: "cls" is the class cross-entropy of the queries, "mask" the mean binary
cross-entropy of masks at sampled points, "dice" the dice loss there. The paper's weights are 2, 5, 5. Equation 4 of
paper 000 (arXiv 2306.03508) has cross-entropy 1 and dice 5 and names no "mask", so to the letter its weight is 0.

Sources: czczup/ViT-Adapter segmentation/mmseg_custom/models/decode_heads/mask2former_head.py and
configs/_base_/models/mask2former_beit.py; facebookresearch/Mask2Former mask2former/modeling/criterion.py.
Shapes: L predictions (decoder layers + 1), N images, Q queries, K real classes, M targets (one for each class present,
padded to a fixed capacity), P points, H and W of labels, h and w of masks.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import choose
from vspw_jax.losses import matching
from vspw_jax.sampling import bilinear, points

Label = Int[Array, "H W"]
Points = Float[Array, "P 2"]
PerPoint = Float[Array, " P"]
Scalar = Float[Array, ""]
Terms = dict[str, Scalar]
Counted = Callable[[Points], Bool[Array, " P"]]
"""Which points count."""


def present_classes(label_HW: Label, num_classes: int, capacity: int) -> tuple[Int[Array, " M"], Bool[Array, " M"]]:
    """Classes of a label map: (class_M, valid_M), ascending, padded to `capacity` or all classes. Void is none."""
    present = ((label_HW.reshape(-1, 1) == jnp.arange(num_classes)) & (jnp.arange(num_classes) != VOID)).any(axis=0)
    class_M = jnp.argsort(~present, stable=True)[:capacity]
    return class_M, present[class_M]


def target_masks_at(
    label_HW: Label,
    class_M: Int[Array, " M"],
    points_MP2: Float[Array, "#M P 2"],
    num_classes: int,
    wanted_M: points.Wanted = True,
) -> Float[Array, "M P"]:
    """Bilinear samples of the binary masks of classes, straight from the label map; void is background.

    Args:
      points_MP2: of each class, or the same for all.
      wanted_M: which masks are asked for; the others are any.
    """
    label_MP4 = points.corner_values(label_HW, points_MP2, max(num_classes, VOID), wanted_M)
    _, weight_MP4 = bilinear.corners(points_MP2, *label_HW.shape)
    return jnp.where(label_MP4 == class_M[:, None, None], weight_MP4, 0.0).sum(axis=-1)


def cells_with_label(label_HW: Label, height: int, width: int) -> Bool[Array, "h w"]:
    """Cells of a mask: True for those that do not lie wholly under void."""
    row_hH, column_wW = (
        (jnp.arange(size) * cells // size == jnp.arange(cells)[:, None]).astype(jnp.float32)
        for size, cells in zip(label_HW.shape, (height, width), strict=True)
    )
    return row_hH @ (label_HW != VOID).astype(jnp.float32) @ column_wW.T > 0


def touches_only(allowed_HW: Bool[Array, "H W"], points_P2: Points) -> Bool[Array, " P"]:
    """True for points whose bilinear samples of a map read only allowed cells."""
    index_P4, weight_P4 = bilinear.corners(points_P2, *allowed_HW.shape)
    return (allowed_HW.reshape(-1).at[index_P4].get(mode="clip") | (weight_P4 == 0)).all(axis=-1)


def all_points(label_HW: Label, mask_shape: tuple[int, ...]) -> Counted:
    """Every point counts; void is background, as in the released code."""
    return lambda points_P2: jnp.ones(points_P2.shape[0], bool)


def points_off_void(label_HW: Label, mask_shape: tuple[int, ...]) -> Counted:
    """Points count if they touch no void pixel of the label, and no cell of the mask that lies wholly under void."""
    label_HW = jnp.asarray(label_HW)
    allowed = (label_HW != VOID, cells_with_label(label_HW, *mask_shape))
    return lambda points_P2: touches_only(allowed[0], points_P2) & touches_only(allowed[1], points_P2)


COUNTED = {"background": all_points, "excluded": points_off_void}
"""Functions of a label and a mask's (height, width)."""


def counted_of(config: ConfigDict, label_HW: Label, mask_logits_QHW: Float[Array, "Q h w"]) -> Counted:
    """Which points of an image count, as `config.void` says."""
    return choose(COUNTED, config.void, "loss.segmentation.void")(label_HW, mask_logits_QHW.shape[1:])


def dice_loss(logits_P: PerPoint, targets_P: PerPoint, weight_P: PerPoint) -> Scalar:
    """1 - (2 p.t + 1) / (sum p + sum t + 1) over weighted points, p = sigmoid(logits); first powers, eps 1."""
    probabilities = jax.nn.sigmoid(logits_P)
    overlap = (weight_P * probabilities * targets_P).sum()
    return 1 - (2 * overlap + 1) / ((weight_P * (probabilities + targets_P)).sum() + 1)


def binary_cross_entropy(logits_P: PerPoint, targets_P: PerPoint, weight_P: PerPoint) -> Scalar:
    """Weighted mean over points of the sigmoid cross-entropy; 0 where all weights are."""
    terms_P = jax.nn.softplus(logits_P) - logits_P * targets_P
    return (weight_P * terms_P).sum() / jnp.maximum(weight_P.sum(), 1.0)


def matching_cost(
    class_logits_QK: Float[Array, "Q K+1"],
    mask_logits_QP: Float[Array, "Q P"],
    class_M: Int[Array, " M"],
    targets_MP: Float[Array, "M P"],
    weight_P: PerPoint,
    weights: Mapping[str, float] | ConfigDict,
) -> Float[Array, "Q M"]:
    """The cost of giving target m to query q: the loss terms, with -p(class) in place of the cross-entropy."""
    class_cost = -jax.nn.softmax(class_logits_QK)[:, class_M]
    counted_PM = (targets_MP * weight_P).T
    softplus_Q1 = (jax.nn.softplus(mask_logits_QP) @ weight_P)[:, None]
    mask_cost = (softplus_Q1 - mask_logits_QP @ counted_PM) / jnp.maximum(weight_P.sum(), 1.0)
    probabilities_QP = jax.nn.sigmoid(mask_logits_QP)
    total_QM = (probabilities_QP @ weight_P)[:, None] + counted_PM.sum(axis=0)
    dice_cost = 1 - (2 * probabilities_QP @ counted_PM + 1) / (total_QM + 1)
    return weights["cls"] * class_cost + weights["mask"] * mask_cost + weights["dice"] * dice_cost


def uncertain_points(
    mask_logits_MHW: Float[Array, "M h w"],
    key_M: Key[Array, " M"],
    num_points: int,
    oversample: float,
    importance: float,
    counted: Counted | None = None,
    wanted_M: points.Wanted = True,
) -> Float[Array, "M P 2"]:
    """Points in [0, 1] of each mask: some where it is least sure, the others at random.

    The share `importance` of them has the least |logit| among oversample * P uniform draws. The rest is uniform
    (PointRend, arXiv 1912.08193, section 3.1). Draws that do not count (`counted`) come last. Of a mask that is not
    wanted they are any.
    """
    keys_M2 = jax.vmap(jax.random.split)(key_M)
    uniform = lambda keys_M, count: jax.vmap(lambda key: jax.random.uniform(key, (count, 2)))(keys_M)
    draws_MD2 = uniform(keys_M2[:, 0], int(oversample * num_points))
    kept = int(importance * num_points)
    certainty_MD = jnp.abs(points.sample(mask_logits_MHW, draws_MD2, wanted_M, exact=False))
    if counted is not None:
        certainty_MD = jnp.where(jax.vmap(counted)(draws_MD2), certainty_MD, jnp.inf)
    rest_MR2 = uniform(keys_M2[:, 1], num_points - kept)
    return jnp.concatenate([points.with_least(certainty_MD, draws_MD2, kept), rest_MR2], axis=1)


def image_cost(
    class_logits_QK: Float[Array, "Q K+1"],
    mask_logits_QHW: Float[Array, "Q h w"],
    label_HW: Label,
    class_M: Int[Array, " M"],
    key: Key[Array, ""],
    config: ConfigDict,
) -> Float[Array, "Q M"]:
    """What the matching of one image and one prediction minimises; no gradient passes. Arguments as `image_terms`."""
    class_logits_QK, mask_logits_QHW = lax.stop_gradient((class_logits_QK, mask_logits_QHW))
    match_key, _ = jax.random.split(key)
    points_P2 = jax.random.uniform(match_key, (config.num_points, 2))
    sampled_QP = points.sample_all(mask_logits_QHW, points_P2)
    targets_MP = target_masks_at(label_HW, class_M, points_P2[None], class_logits_QK.shape[1] - 1)
    weight_P = counted_of(config, label_HW, mask_logits_QHW)(points_P2).astype(jnp.float32)
    return matching_cost(class_logits_QK, sampled_QP, class_M, targets_MP, weight_P, config.matching)


def class_term(
    class_logits_QK: Float[Array, "Q K+1"],
    label_HW: Label,
    class_M: Int[Array, " M"],
    valid_M: Bool[Array, " M"],
    query_M: Int[Array, " M"],
    no_object_weight: float,
) -> tuple[Scalar, Scalar]:
    """(sum, weight) of the queries' cross-entropy. Arguments as `image_terms`."""
    num_queries, no_object = class_logits_QK.shape[0], class_logits_QK.shape[1] - 1
    place_M = jnp.where(valid_M, query_M, num_queries)
    wanted_Q = jnp.full(num_queries, no_object).at[place_M].set(class_M, mode="drop")
    weight_Q = jnp.where(wanted_Q == no_object, no_object_weight, 1.0)
    # The released code teaches every query "no object" of an image that is void alone. Here such an image may be one
    # whose labels are withheld, or of which a teacher is nowhere sure, so it teaches nothing.
    weight_Q *= (label_HW != VOID).any()
    cross_entropy_Q = -jnp.take_along_axis(jax.nn.log_softmax(class_logits_QK), wanted_Q[:, None], axis=1)[:, 0]
    return (weight_Q * cross_entropy_Q).sum(), weight_Q.sum()


def image_terms(
    class_logits_QK: Float[Array, "Q K+1"],
    mask_logits_QHW: Float[Array, "Q h w"],
    label_HW: Label,
    class_M: Int[Array, " M"],
    valid_M: Bool[Array, " M"],
    query_M: Int[Array, " M"],
    key: Key[Array, ""],
    config: ConfigDict,
) -> tuple[Terms, Terms]:
    """Loss terms of one image and one prediction, summed but not yet averaged.

    Args:
      class_logits_QK: K includes "no object", last.
      mask_logits_QHW: at any resolution.
      label_HW: int, 0..K-2 or void, at any resolution.
      class_M, valid_M: of `present_classes`.
      query_M: the query of each class, of `matching.assign`.
      key: for the points.
      config: num_points, oversample, importance, no_object_weight, void (a key of `COUNTED`; with "excluded" no cell of
        a mask that lies wholly under void moves a term or the matching). An image that is void alone has weights of 0,
        whichever it is.

    Returns:
      (sums, weights): dicts by term. A term's loss is its sum over a batch, divided by its weight over the batch.

    Raises:
      UserError: an unknown `void`.
    """
    _, point_key = jax.random.split(key)
    counted = counted_of(config, label_HW, mask_logits_QHW)
    logits_MHW, keys_M = mask_logits_QHW[query_M], jax.random.split(point_key, class_M.shape[0])
    draws = config.num_points, config.oversample, config.importance, counted, valid_M
    points_MP2 = uncertain_points(logits_MHW, keys_M, *draws)
    logits_MP = points.sample(logits_MHW, points_MP2, valid_M)
    targets_MP = target_masks_at(label_HW, class_M, points_MP2, class_logits_QK.shape[1] - 1, valid_M)
    of_masks = logits_MP, targets_MP, jax.vmap(counted)(points_MP2).astype(jnp.float32)
    mask_M, dice_M = (jax.vmap(term)(*of_masks) for term in (binary_cross_entropy, dice_loss))
    count = valid_M.sum().astype(jnp.float32)
    classes = class_term(class_logits_QK, label_HW, class_M, valid_M, query_M, config.no_object_weight)
    mask, dice = (jnp.where(valid_M, term_M, 0.0).sum() for term_M in (mask_M, dice_M))
    return {"cls": classes[0], "mask": mask, "dice": dice}, {"cls": classes[1], "mask": count, "dice": count}


def mask_classification_loss(
    class_logits_LNQK: Float[Array, "L N Q K+1"],
    mask_logits_LNQHW: Float[Array, "L N Q h w"],
    label_NHW: Int[Array, "N H W"],
    key_N: Key[Array, " N"],
    config: ConfigDict,
    total: Callable[[Array], Array] = lambda x: x,
) -> Terms:
    """The loss terms of a batch, each averaged over the batch and summed over the L predictions.

    The class term is averaged by the queries' weights. The mask and dice terms are averaged by the number of masks, and
    are 0 if there are none. The released code averages the class term on each device by itself. Here averages span all
    devices, so the loss does not depend on how many there are.

    Args:
      key_N: one key for each image; the draws do not depend on how images share devices.
      config: see `image_terms`, and capacity, matching (weights by term).
      total: adds over devices; inside a mapped loss, a psum of numbers that carry no gradient.

    Returns:
      The unweighted terms "cls", "mask", "dice". Where several devices share the batch, each has its part of a term;
      the term is the sum of the parts.
    """
    numbers, num_classes = jnp.arange(class_logits_LNQK.shape[0]), class_logits_LNQK.shape[-1] - 1
    class_NM, valid_NM = jax.vmap(lambda label_HW: present_classes(label_HW, num_classes, config.capacity))(label_NHW)

    def keys(number: Int[Array, ""]) -> Key[Array, " N"]:
        return jax.vmap(jax.random.fold_in, (0, None))(key_N, number)

    def costs(inputs: tuple[Array, Array, Array]) -> Float[Array, "N Q M"]:
        number, class_logits_NQK, mask_logits_NQHW = inputs
        of_image = functools.partial(image_cost, config=config)
        return jax.vmap(of_image)(class_logits_NQK, mask_logits_NQHW, label_NHW, class_NM, keys(number))

    def terms(inputs: tuple[Array, Array, Array, Array]) -> tuple[Terms, Terms]:
        number, class_logits_NQK, mask_logits_NQHW, query_NM = inputs
        matched = class_NM, valid_NM, query_NM
        of_image = functools.partial(image_terms, config=config)
        return jax.vmap(of_image)(class_logits_NQK, mask_logits_NQHW, label_NHW, *matched, keys(number))

    logits = class_logits_LNQK, mask_logits_LNQHW
    cost_LNQM = lax.map(costs, (numbers, *lax.stop_gradient(logits)))
    # All at once: they are loops of many short rounds, which take as long for one.
    query_LNM = jax.vmap(jax.vmap(matching.assign), (0, None))(cost_LNQM, valid_NM)
    sums_LN, weights_LN = lax.map(terms, (numbers, *logits, query_LNM))

    def average(sums: Float[Array, "L N"], weights: Float[Array, "L N"]) -> Scalar:
        weight_L = total(lax.stop_gradient(weights.sum(axis=1)))
        return (sums.sum(axis=1) / jnp.where(weight_L > 0, weight_L, 1.0)).sum()

    return {term: average(sums_LN[term], weights_LN[term]) for term in sums_LN}
