"""Cross-frame contrastive loss of paper 000 (arXiv 2306.03508), equations 1 and 2.

For anchor i with positives phi (the same label) and negatives (another label):
-1/|phi| sum over p in phi of log(exp(s_ip) / (exp(s_ip) + sum over negatives j of exp(s_ij))), s = x.x / tau,
averaged over the anchors that have a positive. If n_i is the log-sum-exp over negatives, a term is
softplus(n_i - s_ip).

Shapes: B clips, T frames, H and W patches, D channels, M patches of a group, A anchors among them, S anchors of a
strip, P patches of a clip.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import UserError, choose
from vspw_jax.losses import patch_labels

Scalar = Float[Array, ""]
Features = Float[Array, "M D"]
Labels = Int[Array, " M"]
Weights = Float[Array, " M"]
Mask = Bool[Array, " M"]
Pairs = Bool[Array, "A M"]
Begin = int | Int[Array, ""]
"""Where a run of anchors begins among the patches."""

NO_NEGATIVE = -1e30
"""Stands for a similarity that does not count: its exponential is 0, and unlike -inf its gradient is not NaN."""

AUTO_PATCHES, AUTO_ROWS = 2048, 192
"""For AUTO_PATCHES patches of a group or more, "auto" takes strips of AUTO_ROWS anchors. For fewer the plain form needs
64 MiB at the most, and two cores share its work better. For more, strips take about two thirds of its time
(benchmarks/contrastive.py)."""

product = functools.partial(jnp.matmul, precision="highest")
"""Float32 on TPUs and GPUs too. They otherwise round its operands, which changes a similarity at temperature 0.01 by
0.1."""

NEGATIVES = 0x6E65
"""Makes the draw of negatives differ from other draws by the same key."""


def strip_rows(block: int | str | None, patches: int) -> int | None:
    """Anchors of a strip, or None for the plain form. `block` is None, "plain", "auto" or the number of anchors."""
    if block is None or block == "plain":
        return None
    if block == "auto":
        return AUTO_ROWS if patches >= AUTO_PATCHES else None
    if not str(block).isdigit() or int(block) < 1:
        raise UserError(f"loss.nce.block is {block!r}: expected auto, plain, or the number of anchors of a strip.")
    return min(int(block), patches)


def anchor_weights(labels_M: Labels, self_positive: bool = False) -> Weights:
    """1 / (positives of the anchor x anchors that have a positive); 0 for void and for anchors without positives."""
    known_M = labels_M != VOID
    count_M = jnp.zeros(VOID + 1, jnp.int32).at[labels_M].add(1)[labels_M] - (not self_positive)
    is_anchor_M = known_M & (count_M > 0)
    # Two divisions: the product of both counts overflows 32 bits where one class has 46,342 patches or more.
    return jnp.where(is_anchor_M, 1.0 / jnp.maximum(count_M, 1) / jnp.maximum(is_anchor_M.sum(), 1), 0.0)


def pairs(
    labels_A: Int[Array, " A"], number_A: Int[Array, " A"], labels_M: Labels, negative_M: Mask, self_positive: bool
) -> tuple[Pairs, Pairs]:
    """(which pairs are positive, which are negative); `number_A` has the anchors' places among the patches."""
    known_A1 = (labels_A != VOID)[:, None]
    same = labels_A[:, None] == labels_M
    positive = same & known_A1
    if not self_positive:
        positive &= number_A[:, None] != jnp.arange(labels_M.shape[0])
    return positive, ~same & known_A1 & negative_M


def plain_form(
    rows: int,
    first: Begin,
    features_MD: Features,
    labels_M: Labels,
    weight_M: Weights,
    negative_M: Mask,
    temperature: float,
    self_positive: bool,
) -> Scalar:
    """The summed weighted terms of anchors `first` to `first + rows`; JAX differentiates it with (rows, M) arrays."""
    anchors_AD, labels_A, weight_A = (
        lax.dynamic_slice_in_dim(x, first, rows) for x in (features_MD, labels_M, weight_M)
    )
    positive, negative = pairs(labels_A, first + jnp.arange(rows), labels_M, negative_M, self_positive)
    similarity = product(anchors_AD, features_MD.T) / temperature
    negatives_A1 = jax.nn.logsumexp(jnp.where(negative, similarity, NO_NEGATIVE), axis=1, keepdims=True)
    # log(1 + exp(negatives - s)) is the negated logarithm of the fraction; without a negative it is 0.
    terms = jnp.where(positive, jax.nn.softplus(negatives_A1 - similarity), 0.0)
    return (weight_A * terms.sum(axis=1)).sum()


def strip_slopes(
    similarity_SM: Float[Array, "S M"], positive: Pairs, negative: Pairs, weight_S1: Float[Array, "S 1"]
) -> tuple[Scalar, Float[Array, "S M"]]:
    """(value, slopes_SM) of a strip: the sum of its weighted terms, and its derivatives by the similarities."""
    counted = jnp.where(negative, similarity_SM, NO_NEGATIVE)
    largest_S1 = counted.max(axis=1, keepdims=True)
    negatives_S1 = largest_S1 + jnp.log(jnp.exp(counted - largest_S1).sum(axis=1, keepdims=True))
    # One exponential serves both kinds of pairs: no negative's similarity is above the log-sum-exp of all of them.
    gap = negatives_S1 - similarity_SM
    small = jnp.exp(-jnp.abs(gap))
    terms = jnp.where(positive, jnp.maximum(gap, 0.0) + jnp.log1p(small), 0.0)
    pull = jnp.where(positive, jnp.where(gap >= 0, 1.0, small) / (1 + small), 0.0)
    push = jnp.where(negative, pull.sum(axis=1, keepdims=True) * small, 0.0)
    return (weight_S1[:, 0] * terms.sum(axis=1)).sum(), weight_S1 * (push - pull)


def scan_strips(
    shape: tuple[int, int],
    first: Begin,
    features_MD: Features,
    labels_M: Labels,
    weight_M: Weights,
    negative_M: Mask,
    temperature: float,
    self_positive: bool,
    with_gradient: bool,
) -> tuple[Scalar, Features]:
    """(value, gradient_MD or zeros of no size) of `plain_form`, strip by strip; `shape` is (rows, rows of a strip).

    A strip makes its similarities once. They give its terms, the terms' slopes, and both products of the slopes with
    features: three matrix products in all, as many as in the plain form and its backward pass.
    """
    rows, strip = shape

    def add_strip(carry: tuple[Scalar, Features], start: Int[Array, ""]) -> tuple[tuple[Scalar, Features], None]:
        value, gradient_MD = carry
        # The last strip begins earlier, to end with the anchors; its anchors that an earlier strip had count 0.
        begin = jnp.minimum(start, rows - strip)
        at = first + begin
        anchors_SD, labels_S, weight_S = (
            lax.dynamic_slice_in_dim(x, at, strip) for x in (features_MD, labels_M, weight_M)
        )
        weight_S1 = jnp.where(begin + jnp.arange(strip) >= start, weight_S, 0.0)[:, None]
        positive, negative = pairs(labels_S, at + jnp.arange(strip), labels_M, negative_M, self_positive)
        warm_SD = anchors_SD / temperature  # Here and below (S, D) is divided: it is smaller than (S, M).
        similarity_SM = product(warm_SD, features_MD.T)
        part, slopes_SM = strip_slopes(similarity_SM, positive, negative, weight_S1)
        if with_gradient:
            gradient_MD = gradient_MD + product(slopes_SM.T, warm_SD)
            pulled_SD = product(slopes_SM, features_MD) / temperature
            own_SD = lax.dynamic_slice_in_dim(gradient_MD, at, strip) + pulled_SD
            gradient_MD = lax.dynamic_update_slice_in_dim(gradient_MD, own_SD, at, 0)
        return (value + part, gradient_MD), None

    gradient_MD = jnp.zeros(features_MD.shape if with_gradient else (0, 0), features_MD.dtype)
    return lax.scan(add_strip, (jnp.zeros((), features_MD.dtype), gradient_MD), jnp.arange(0, rows, strip))[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 6, 7))
def strip_form(
    shape: tuple[int, int],
    first: Begin,
    features_MD: Features,
    labels_M: Labels,
    weight_M: Weights,
    negative_M: Mask,
    temperature: float,
    self_positive: bool,
) -> Scalar:
    """`plain_form` in linear memory; only the first derivative by the features exists.

    The forward pass of a gradient makes value and gradient together, so the backward pass only scales the gradient.
    """
    arguments = (first, features_MD, labels_M, weight_M, negative_M, temperature, self_positive)
    return scan_strips(shape, *arguments, with_gradient=False)[0]


def _strip_form_backward(
    shape: tuple[int, int], temperature: float, self_positive: bool, gradient_MD: Features, cotangent: Scalar
) -> tuple[None, Features, None, None, None]:
    return None, cotangent * gradient_MD, None, None, None


strip_form.defvjp(functools.partial(scan_strips, with_gradient=True), _strip_form_backward)


def part_loss(
    features_MD: Features,
    labels_M: Labels,
    first: Begin,
    rows: int,
    temperature: float = 0.1,
    block: int | str | None = None,
    self_positive: bool = False,
    negative_M: Mask | None = None,
) -> Scalar:
    """What anchors `first` to `first + rows` of a group add to its `group_loss`; the other arguments are the same."""
    weight_M = anchor_weights(labels_M, self_positive)
    negative_M = jnp.ones(labels_M.shape, bool) if negative_M is None else negative_M
    arguments = (first, features_MD, labels_M, weight_M, negative_M & (labels_M != VOID), temperature, self_positive)
    strip = strip_rows(block, labels_M.shape[0])
    return plain_form(rows, *arguments) if strip is None else strip_form((rows, min(strip, rows)), *arguments)


def group_loss(
    features_MD: Features,
    labels_M: Labels,
    temperature: float = 0.1,
    block: int | str | None = None,
    self_positive: bool = False,
    negative_M: Mask | None = None,
) -> Scalar:
    """Equation 1, negated as in equation 2, averaged over the anchors that have a positive.

    Args:
      features_MD: unit-length float32 features of one group's patches.
      labels_M: class ids, 255 void; void patches are neither anchors, positives nor negatives.
      temperature: tau. The paper states none; 0.1 is ContrastiveSeg's (tfzhou/ContrastiveSeg
        lib/loss/loss_contrast.py). ContrastiveSeg also leaves an anchor out of its own positives.
      block: None or "plain" for the plain form, with (M, M) arrays. A number is that of the anchors of a strip: strips
        take memory linear in M and differ from the plain form only by rounding. "auto" chooses by size, see
        `AUTO_PATCHES`.
      self_positive: whether an anchor is among its own positives.
      negative_M: which patches may be negatives; None is all.

    Returns:
      A scalar. Where no anchor has a positive, it is 0 with zero gradients. An anchor without negatives counts 0.

    Raises:
      UserError: `block` is none of these.
    """
    return part_loss(features_MD, labels_M, 0, labels_M.shape[0], temperature, block, self_positive, negative_M)


def drawn_negatives(key: Key[Array, ""], labels_M: Labels, count: int) -> Mask:
    """Which patches may be negatives: `count` of those not void, drawn without replacement (all if there are fewer).

    One draw serves all anchors of a group. An anchor's negatives are those of other classes, so fewer than `count`.
    """
    draw_M = jnp.where(labels_M == VOID, -1.0, jax.random.uniform(key, labels_M.shape))
    _, number_K = lax.top_k(draw_M, min(count, labels_M.shape[0]))
    return jnp.zeros(labels_M.shape, bool).at[number_K].set(True) & (labels_M != VOID)


def unit_length(features: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """Features divided by their length; rsqrt with eps in place of a norm gives a zero vector a finite gradient."""
    return features * lax.rsqrt(jnp.square(features).sum(axis=-1, keepdims=True) + 1e-12)


SCOPES: dict[str, Callable[[int, int], int]] = {
    "clip": lambda groups, batch: batch,
    "group": lambda groups, batch: groups,
    "all": lambda groups, batch: 1,
}
"""Into how many equal runs of clips a global batch divides. Anchors meet positives and negatives of their own run."""


def num_groups(config: ConfigDict, batch: int) -> int:
    """Groups of a global batch of so many clips, by `config.scope` and, for scope "group", `config.groups`."""
    return choose(SCOPES, config.scope, "loss.nce.scope")(config.groups, batch)


def batch_loss(
    features_BTHWD: Float[Array, "B T h w D"],
    label_BTHW: Int[Array, "B T H W"],
    key_B: Key[Array, " B"],
    config: ConfigDict,
    device: int | Int[Array, ""] = 0,
    devices: int = 1,
    gather: Callable[[Array], Array] = lambda x: x,
) -> Scalar:
    """This device's part of the mean of `group_loss` over the groups of a global batch; parts add up over devices.

    The result does not depend on how many devices share the batch. Where a group spans several devices, each of them
    gathers the group's features and labels, and takes the patches of its own clips as anchors.

    Args:
      features_BTHWD: of this device's clips.
      label_BTHW: at pixels, or at any resolution not below the features'. A clip that is void everywhere is left out.
      key_B: a key for each clip; that of a group's first clip draws the group's negatives.
      config: scope, groups, labels, min_share, normalise, temperature, self_positive, negatives (0 is all), block.
      device, devices: this device's number, and how many there are.
      gather: concatenates an array of all devices along its first axis.

    Returns:
      A scalar. A group without an anchor that has a positive counts 0 in the mean over groups.

    Raises:
      UserError: an unknown scope, way of labelling patches, or `block`.
    """
    batch, _, height, width, dim = features_BTHWD.shape
    of_patches = choose(patch_labels.CHOICES, config.labels, "loss.nce.labels")
    labels_BP = of_patches(label_BTHW, height, width, config.min_share).reshape(batch, -1)
    features_BPD = (unit_length(features_BTHWD) if config.normalise else features_BTHWD).reshape(batch, -1, dim)
    key_BK = jax.random.key_data(key_B)
    groups = num_groups(config, batch * devices)
    clips = batch * devices // groups

    def loss(
        features_BPD: Array, labels_BP: Array, key_BK: Array, *, first: Begin = 0, anchor_clips: int = clips
    ) -> Scalar:
        labels_M, patches = labels_BP.reshape(-1), labels_BP.shape[1]
        key = jax.random.fold_in(jax.random.wrap_key_data(key_BK[0]), NEGATIVES)
        negative_M = drawn_negatives(key, labels_M, config.negatives) if config.negatives else None
        options = (config.temperature, config.block, config.self_positive, negative_M)
        return part_loss(features_BPD.reshape(-1, dim), labels_M, first * patches, anchor_clips * patches, *options)

    whole = (features_BPD, labels_BP, key_BK)
    if clips <= batch:
        by_group = [x.reshape(-1, clips, *x.shape[1:]) for x in whole]
        return lax.map(lambda group: loss(*group), by_group).sum() / groups
    begin = device * batch // clips * clips
    group = [lax.dynamic_slice_in_dim(gather(x), begin, clips) for x in whole]
    return loss(*group, first=device * batch - begin, anchor_clips=batch) / groups
