"""Positive-negative equal contrastive loss of paper 004 (Wang et al.), and the contrast that it is compared with.

Anchors are misclassified pixels. S_lk are those of class k that are predicted as l. Their positives P_kk are pixels of
class k that are predicted as k. Their negatives N_ll are pixels of class l that are predicted as l. There are equally
many of both. An anchor without positives or without negatives does not count, not even in |S|. With s = cosine / tau,
and w a positive's confidence over the mean confidence of the positives, equations 8 and 9 are

    1/|S| sum over l, k != l and i in S_lk of log(1 + sum over N_ll of exp(s) / sum over P_kk of w exp(s)).

Forms, by `config.form`:
  "paper"       These equations. At most `anchors` misclassified pixels are drawn of an image, and `samples` positives
                and negatives for each class (a class that has fewer gives its pixels in turns).
  "released"    jingw193/PNE_Loss mmseg/models/losses/reverse_contrastive_loss.py. Sets of more than `anchors` pixels
                are skipped. A set without negatives takes its own pixels as negatives. Every set and every class is
                brought to `samples` pixels in raster order (the first, or all in turns). w is not divided by its mean.
                The sum is multiplied by pixels used / (sets x samples)^2. Only the anchor's dot products carry
                gradients.
  "equation_1"  The paper's equation 1 on at most `anchors` misclassified pixels whose class has another pixel and whose
                image has another class. Each has `samples` semi-hard positives and negatives. Positives are drawn from
                the `hard_share` of its class's pixels that are least like it, negatives from the `hard_share` of other
                classes' pixels that are most like it (Wang et al., arXiv 2101.11939, section 3.2).

The paper does not say whether gradients flow through positives and negatives. In forms "paper" and "equation_1" they
do, but not through confidences. Void pixels take no part.

Shapes: N images, H and W cells, M = HW pixels, D channels, K classes, A anchors, S samples.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import choose
from vspw_jax.losses import patch_labels
from vspw_jax.losses.cross_frame_nce import unit_length

Pixels = Int[Array, " M"]
Samples = Int[Array, "A S"]
Scalar = Float[Array, ""]
Sums = tuple[Scalar, dict[str, Int[Array, ""]]]

NO_SET = (VOID + 1) ** 2
"""Stands for a pixel that is in none of the sets."""


class Sets(NamedTuple):
    """Pixels in runs, one run for each set; the sets are in the order of their numbers."""

    pixel_M: Pixels
    number_M: Pixels

    @classmethod
    def make(cls, number_M: Pixels, priority_M: Float[Array, " M"]) -> "Sets":
        """Sets of pixels by number (`NO_SET` for none), each in the order of priority."""
        order_M = jnp.lexsort((priority_M, number_M))
        return cls(order_M, number_M[order_M])

    def spans(self, number: Int[Array, " A"]) -> tuple[Int[Array, " A"], Int[Array, " A"]]:
        """(first places, sizes) of sets."""
        first = jnp.searchsorted(self.number_M, number)
        return first, jnp.searchsorted(self.number_M, number, side="right") - first

    def members(self, number_A: Int[Array, " A"], samples: int) -> tuple[Samples, Int[Array, " A"]]:
        """(pixels of sets in their order, sizes); where a set has fewer, its pixels come again from the first on."""
        first_A, size_A = self.spans(number_A)
        place_AS = first_A[:, None] + jnp.arange(samples) % jnp.maximum(size_A, 1)[:, None]
        return self.pixel_M.at[place_AS].get(mode="clip"), size_A


class Image(NamedTuple):
    """What a form reads of an image."""

    feature_MD: Float[Array, "M D"]
    label_M: Pixels
    predicted_M: Pixels
    confidence_M: Float[Array, " M"]
    priority_M: Float[Array, " M"]
    """Which pixels of a set come first: drawn, or raster order."""

    def correct_sets(self) -> Sets:
        """Correctly classified pixels by class."""
        return Sets.make(jnp.where(self.label_M == self.predicted_M, self.label_M, NO_SET), self.priority_M)

    def anchor_sets(self) -> Sets:
        """Misclassified pixels by (predicted, true) class."""
        is_wrong_M = (self.label_M != self.predicted_M) & (self.label_M != VOID)
        return Sets.make(jnp.where(is_wrong_M, set_number(self.predicted_M, self.label_M), NO_SET), self.priority_M)


def set_number(predicted: Pixels, true: Pixels) -> Pixels:
    """One number for each pair of classes (predicted, true)."""
    return predicted.astype(jnp.int32) * (VOID + 1) + true


def similarities(
    anchor_AD: Float[Array, "A D"], feature_MD: Float[Array, "M D"], pixel_AS: Samples, temperature: float
) -> Float[Array, "A S"]:
    """Dot products of anchors with their pixels, divided by tau."""
    return jnp.take_along_axis(anchor_AD @ feature_MD.T, pixel_AS, axis=1) / temperature


def equal_terms(
    negative_AS: Float[Array, "A S"], positive_AS: Float[Array, "A S"], confidence_AS: Float[Array, "A S"]
) -> Float[Array, " A"]:
    """log(1 + sum exp(negative) / sum confidence exp(positive)) of every anchor."""
    # No real confidence is this low: the largest entry of a softmax over K classes is at least 1 / K.
    weighted_AS = positive_AS + jnp.log(jnp.maximum(confidence_AS, 1e-6))
    return jax.nn.softplus(jax.nn.logsumexp(negative_AS, axis=1) - jax.nn.logsumexp(weighted_AS, axis=1))


def drawn_anchors(
    image: Image, is_anchor_M: Bool[Array, " M"], count: int
) -> tuple[Int[Array, " A"], Bool[Array, " A"]]:
    """(pixels of the first `count` anchors by priority, which of them are anchors: there may be fewer)."""
    pixel_M = jnp.argsort(jnp.where(is_anchor_M, image.priority_M, jnp.inf))[:count]
    return pixel_M, is_anchor_M[pixel_M]


def paper_sums(image: Image, key: Key[Array, ""], config: ConfigDict) -> Sums:
    """(sum of terms, number of anchors) of form "paper"."""
    del key
    correct = image.correct_sets()
    (_, negatives_M), (_, positives_M) = correct.spans(image.predicted_M), correct.spans(image.label_M)
    is_anchor_M = (image.label_M != image.predicted_M) & (image.label_M != VOID) & (negatives_M > 0) & (positives_M > 0)
    anchor_A, is_anchor_A = drawn_anchors(image, is_anchor_M, config.anchors)
    negative_AS, _ = correct.members(image.predicted_M[anchor_A], config.samples)
    positive_AS, _ = correct.members(image.label_M[anchor_A], config.samples)
    unit_MD = unit_length(image.feature_MD)
    both = jnp.concatenate([negative_AS, positive_AS], axis=1)
    products = similarities(unit_MD[anchor_A], unit_MD, both, config.temperature)
    confidence_AS = image.confidence_M[positive_AS]
    mean_A1 = jnp.maximum(confidence_AS.mean(axis=1, keepdims=True), 1e-6)
    of_negatives_AS, of_positives_AS = jnp.split(products, 2, axis=1)
    terms_A = equal_terms(of_negatives_AS, of_positives_AS, confidence_AS / mean_A1)
    return jnp.where(is_anchor_A, terms_A, 0.0).sum(), {"anchors": is_anchor_A.sum()}


def released_sums(image: Image, key: Key[Array, ""], config: ConfigDict) -> Sums:
    """(sum of terms, {"pixels": used, "sets": used}) of form "released"."""
    del key
    samples = config.samples
    correct, wrong = image.correct_sets(), image.anchor_sets()
    pixel_M, number_M = wrong
    predicted_M, label_M = image.predicted_M[pixel_M], image.label_M[pixel_M]
    first_M, size_M = wrong.spans(number_M)
    rank_M = jnp.arange(pixel_M.shape[0]) - first_M
    is_present_M = jnp.zeros(VOID + 1, bool).at[image.label_M].set(True)[predicted_M]
    has_positive_M = correct.spans(label_M)[1] > 0
    is_used_M = (number_M != NO_SET) & (size_M <= config.anchors) & is_present_M & has_positive_M
    # How often each pixel is among its set's `samples`.
    times_M = jnp.where(is_used_M, samples // size_M + (rank_M < samples % size_M), 0)
    times_M = jnp.where(size_M > samples, is_used_M & (rank_M < samples), times_M)

    # Where there are more than the capacity, every set gives up its last pixels first, so no class is left out.
    place_A = jnp.argsort(jnp.where(times_M > 0, rank_M, pixel_M.shape[0]))[: config.capacity]
    is_anchor_A = times_M[place_A] > 0
    anchor_A, times_A = pixel_M[place_A], jnp.where(is_anchor_A, times_M[place_A], 0)
    negative_AS, negatives_A = correct.members(predicted_M[place_A], samples)
    own_AS, _ = wrong.members(number_M[place_A], samples)
    negative_AS = jnp.where((negatives_A > 0)[:, None], negative_AS, own_AS)
    positive_AS, _ = correct.members(label_M[place_A], samples)
    # The anchor is divided by its detached length, so the gradient is not that of the cosine.
    unit_MD = lax.stop_gradient(unit_length(image.feature_MD))
    anchor_AD = image.feature_MD[anchor_A]
    anchor_AD *= lax.stop_gradient(lax.rsqrt(jnp.square(anchor_AD).sum(axis=-1, keepdims=True) + 1e-12))
    both = jnp.concatenate([negative_AS, positive_AS], axis=1)
    products = similarities(anchor_AD, unit_MD, both, config.temperature)
    of_negatives_AS, of_positives_AS = jnp.split(products, 2, axis=1)
    terms_A = equal_terms(of_negatives_AS, of_positives_AS, image.confidence_M[positive_AS])
    # The other anchors stand for those beyond the capacity.
    scale = times_M.sum() / jnp.maximum(times_A.sum(), 1)
    weights = {"pixels": is_used_M.sum(), "sets": (is_used_M & (rank_M == 0)).sum()}
    return scale * (times_A * terms_A).sum(), weights


def hardest(
    hardness_AM: Float[Array, "A M"],
    is_candidate_AM: Bool[Array, "A M"],
    hard_share: float,
    samples: int,
    key: Key[Array, ""],
) -> Samples:
    """Pixels drawn from the `hard_share` of each anchor's candidates that are hardest for it."""
    most = max(1, int(-(-hardness_AM.shape[1] * hard_share // 1)))
    _, hard_AM = lax.top_k(jnp.where(is_candidate_AM, hardness_AM, -jnp.inf), most)
    count_A = jnp.ceil(hard_share * is_candidate_AM.sum(axis=1)).astype(jnp.int32)
    draw_AS = jax.random.uniform(key, (hardness_AM.shape[0], samples))
    place_AS = jnp.minimum((draw_AS * count_A[:, None]).astype(jnp.int32), jnp.maximum(count_A - 1, 0)[:, None])
    return jnp.take_along_axis(hard_AM, place_AS, axis=1)


def equation_1_sums(image: Image, key: Key[Array, ""], config: ConfigDict) -> Sums:
    """(sum of terms, number of anchors) of form "equation_1"."""
    count_M = jnp.zeros(VOID + 1, jnp.int32).at[image.label_M].add(1)[image.label_M]
    is_known_M = image.label_M != VOID
    is_anchor_M = is_known_M & (image.label_M != image.predicted_M) & (count_M > 1) & (count_M < is_known_M.sum())
    anchor_A, is_anchor_A = drawn_anchors(image, is_anchor_M, config.anchors)
    same_AM = image.label_M[anchor_A][:, None] == image.label_M
    unit_MD = unit_length(image.feature_MD)
    similarity_AM = unit_MD[anchor_A] @ unit_MD.T / config.temperature
    detached_AM = lax.stop_gradient(similarity_AM)
    positive_key, negative_key = jax.random.split(key)
    itself_AM = anchor_A[:, None] == jnp.arange(same_AM.shape[1])
    positive_AS = hardest(-detached_AM, same_AM & ~itself_AM, config.hard_share, config.samples, positive_key)
    negative_AS = hardest(detached_AM, ~same_AM & is_known_M, config.hard_share, config.samples, negative_key)
    pick = functools.partial(jnp.take_along_axis, similarity_AM, axis=1)
    total_A1 = jax.nn.logsumexp(pick(negative_AS), axis=1, keepdims=True)
    terms_A = jax.nn.softplus(total_A1 - pick(positive_AS)).mean(axis=1)
    return jnp.where(is_anchor_A, terms_A, 0.0).sum(), {"anchors": is_anchor_A.sum()}


def anchors_mean(sum_: Scalar, weights: dict[str, Scalar], config: ConfigDict) -> Scalar:
    """The mean over anchors; 0 without any."""
    return sum_ / jnp.maximum(weights["anchors"], 1)


def released_mean(sum_: Scalar, weights: dict[str, Scalar], config: ConfigDict) -> Scalar:
    """The sum times the released code's factor, pixels used / (sets x samples)^2."""
    return sum_ * weights["pixels"] / jnp.maximum(weights["sets"] * config.samples, 1) ** 2


FORMS: dict[str, tuple[Callable[..., Sums], Callable[..., Scalar]]] = {
    "paper": (paper_sums, anchors_mean),
    "released": (released_sums, released_mean),
    "equation_1": (equation_1_sums, anchors_mean),
}
"""Each form's sums over an image, and how it makes the loss of a batch's sums."""

DRAWS = 0x706E65
"""Makes the draws of samples differ from other draws by the same key."""


def image_sums(
    feature_HWD: Float[Array, "H W D"],
    label_HW: Int[Array, "H W"],
    predicted_HW: Int[Array, "H W"],
    confidence_HW: Float[Array, "H W"],
    key: Key[Array, ""],
    config: ConfigDict,
) -> Sums:
    """(sum of terms, weights by name) of one image in the form of `config`; all at one resolution."""
    sums, _ = choose(FORMS, config.form, "loss.pne.form")
    order_key, form_key = jax.random.split(jax.random.fold_in(key, DRAWS))
    pixels = label_HW.size
    drawn_M = jax.random.uniform(order_key, (pixels,))
    image = Image(
        feature_HWD.reshape(pixels, -1),
        label_HW.reshape(-1).astype(jnp.int32),
        predicted_HW.reshape(-1).astype(jnp.int32),
        lax.stop_gradient(confidence_HW.reshape(-1)),
        jnp.arange(pixels, dtype=jnp.float32) if config.form == "released" else drawn_M,
    )
    return sums(image, form_key, config)


def batch_loss(
    features_BTHWD: Float[Array, "B T h w D"],
    scores_BTHWK: Float[Array, "B T Y X K"],
    label_BTHW: Int[Array, "B T H W"],
    key_B: Key[Array, " B"],
    config: ConfigDict,
    total: Callable[[Array], Array] = lambda x: x,
) -> Scalar:
    """The loss of a batch's images, in the form of `config`: sums over its images, as if they were one.

    Args:
      features_BTHWD: embeddings; labels and scores are brought to their resolution by nearest, as in the released code.
      scores_BTHWK: class probabilities, of sum 1.
      label_BTHW: class ids, 255 void; an image that is void everywhere is left out.
      key_B: a key for each clip, for the draws; they do not depend on how clips share devices.
      config: form, temperature, anchors, samples, capacity (form "released"), hard_share (form "equation_1").
      total: adds over devices; inside a mapped loss, a psum of numbers that carry no gradient.

    Returns:
      A scalar, 0 with zero gradients where no anchor has positives and negatives. Where several devices share the
      batch, each has its part of the loss: the loss is the sum of the parts.

    Raises:
      UserError: an unknown form.
    """
    _, average = choose(FORMS, config.form, "loss.pne.form")
    frames, height, width = features_BTHWD.shape[1:4]
    maps = (label_BTHW, scores_BTHWK.argmax(axis=-1), scores_BTHWK.max(axis=-1))
    nearest = [patch_labels.nearest(x_BTHW, height, width) for x_BTHW in maps]
    key_N = jax.vmap(lambda key: jax.random.split(key, frames))(key_B).reshape(-1)
    images = [x.reshape(-1, *x.shape[2:]) for x in (features_BTHWD, *nearest)]
    # One image at a time, and the backward pass makes it anew: the similarities of only one image exist at a time.
    sums_of = functools.partial(image_sums, config=config)
    one_image = jax.checkpoint(lambda image: sums_of(*image))
    sums_N, weights_N = lax.map(one_image, (*images, key_N))
    weights = {name: total(weight_N.sum().astype(jnp.float32)) for name, weight_N in weights_N.items()}
    return average(sums_N.sum(), weights, config)
