"""Cross-frame contrastive loss of paper 000 (arXiv 2306.03508), equations 1 and 2.

For anchor i with positives phi (the same label) and negatives (another label):
-1/|phi| sum over p in phi of log(exp(s_ip) / (exp(s_ip) + sum over negatives j of exp(s_ij))), s = x.x / tau,
averaged over the anchors that have a positive. With n_i the log-sum-exp over negatives a term is softplus(n_i - s_ip).

Shapes: B clips, T frames, H and W patches, D channels, M patches of a group, A anchors among them, S anchors of a
strip, P patches of a clip.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import UserError, choose
from vspw_jax.losses import patch_labels

NO_NEGATIVE = -1e30
"""Stands for a similarity that does not count: its exponential is 0, and unlike -inf its gradient is not NaN."""

AUTO_PATCHES, AUTO_ROWS = 2048, 192
"""From so many patches on "auto" takes strips of so many anchors. Below, the plain form needs 64 MiB at the most and
two cores share its work better; above, strips take two thirds of its time or so (benchmarks/contrastive.py)."""

product = functools.partial(jnp.matmul, precision="highest")
"""Float32 on TPUs and GPUs too, which otherwise round its operands: at temperature 0.01 by 0.1 in a similarity."""

NEGATIVES = 0x6E65
"""Sets the draw of negatives apart from others by the same key."""


def strip_rows(block, patches):
    """Anchors of a strip, or None for the plain form: `block` is None or "plain", "auto", or their number."""
    if block is None or block == "plain":
        return None
    if block == "auto":
        return AUTO_ROWS if patches >= AUTO_PATCHES else None
    if not str(block).isdigit() or int(block) < 1:
        raise UserError(f"loss.nce.block is {block!r}: expected auto, plain, or how many anchors a strip has.")
    return min(int(block), patches)


def anchor_weights(labels_M, self_positive=False):
    """1 / (positives of the anchor x anchors that have a positive); 0 for void and for anchors without positives."""
    known_M = labels_M != VOID
    count_M = jnp.zeros(VOID + 1, jnp.int32).at[labels_M].add(1)[labels_M] - (not self_positive)
    is_anchor_M = known_M & (count_M > 0)
    # One after the other: the product of both counts overflows 32 bits from 46,342 patches of one class on.
    return jnp.where(is_anchor_M, 1.0 / jnp.maximum(count_M, 1) / jnp.maximum(is_anchor_M.sum(), 1), 0.0)


def pairs(labels_A, number_A, labels_M, negative_M, self_positive):
    """(positive, negative) as booleans (A, M); `number_A` is where the anchors stand among the patches."""
    known_A1 = (labels_A != VOID)[:, None]
    same = labels_A[:, None] == labels_M
    positive = same & known_A1
    if not self_positive:
        positive &= number_A[:, None] != jnp.arange(labels_M.shape[0])
    return positive, ~same & known_A1 & negative_M


def plain_form(rows, first, features_MD, labels_M, weight_M, negative_M, temperature, self_positive):
    """Weighted terms of anchors `first` to `first + rows`, summed; differentiated by JAX with (rows, M) arrays."""
    anchors_AD, labels_A, weight_A = (
        lax.dynamic_slice_in_dim(x, first, rows) for x in (features_MD, labels_M, weight_M)
    )
    positive, negative = pairs(labels_A, first + jnp.arange(rows), labels_M, negative_M, self_positive)
    similarity = product(anchors_AD, features_MD.T) / temperature
    negatives_A1 = jax.nn.logsumexp(jnp.where(negative, similarity, NO_NEGATIVE), axis=1, keepdims=True)
    # log(1 + exp(negatives - s)) is the negated logarithm of the fraction; without a negative it is 0.
    terms = jnp.where(positive, jax.nn.softplus(negatives_A1 - similarity), 0.0)
    return (weight_A * terms.sum(axis=1)).sum()


def strip_slopes(similarity_SM, positive, negative, weight_S1):
    """(value, slopes_SM) of a strip: its weighted terms, summed, and their derivatives by the similarities."""
    counted = jnp.where(negative, similarity_SM, NO_NEGATIVE)
    largest_S1 = counted.max(axis=1, keepdims=True)
    negatives_S1 = largest_S1 + jnp.log(jnp.exp(counted - largest_S1).sum(axis=1, keepdims=True))
    # One exponential serves both kinds of pair: no negative's similarity exceeds their log-sum-exp.
    gap = negatives_S1 - similarity_SM
    small = jnp.exp(-jnp.abs(gap))
    terms = jnp.where(positive, jnp.maximum(gap, 0.0) + jnp.log1p(small), 0.0)
    pull = jnp.where(positive, jnp.where(gap >= 0, 1.0, small) / (1 + small), 0.0)
    push = jnp.where(negative, pull.sum(axis=1, keepdims=True) * small, 0.0)
    return (weight_S1[:, 0] * terms.sum(axis=1)).sum(), weight_S1 * (push - pull)


def scan_strips(shape, first, features_MD, labels_M, weight_M, negative_M, temperature, self_positive, with_gradient):
    """(value, gradient_MD or zeros of no size) of `plain_form`, strip by strip; `shape` is (rows, rows of a strip).

    A strip's similarities, once made, give its terms, their slopes and both of the slopes' products with features:
    three matrix products in all, as many as the plain form and its backward pass have.
    """
    rows, strip = shape

    def add_strip(carry, start):
        value, gradient_MD = carry
        # The last strip is drawn back to end with the anchors; those that the one before had count no more.
        begin = jnp.minimum(start, rows - strip)
        at = first + begin
        anchors_SD, labels_S, weight_S = (
            lax.dynamic_slice_in_dim(x, at, strip) for x in (features_MD, labels_M, weight_M)
        )
        weight_S1 = jnp.where(begin + jnp.arange(strip) >= start, weight_S, 0.0)[:, None]
        positive, negative = pairs(labels_S, at + jnp.arange(strip), labels_M, negative_M, self_positive)
        warm_SD = anchors_SD / temperature  # Here and below: dividing (S, D) in place of (S, M).
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
def strip_form(shape, first, features_MD, labels_M, weight_M, negative_M, temperature, self_positive):
    """`plain_form` in linear memory; differentiable once, by the features alone.

    The forward pass of a gradient makes value and gradient at once, so that the backward pass only scales it.
    """
    arguments = (first, features_MD, labels_M, weight_M, negative_M, temperature, self_positive)
    return scan_strips(shape, *arguments, with_gradient=False)[0]


def _strip_form_forward(shape, *arguments):
    return scan_strips(shape, *arguments, with_gradient=True)


def _strip_form_backward(shape, temperature, self_positive, gradient_MD, cotangent):
    return None, cotangent * gradient_MD, None, None, None


strip_form.defvjp(_strip_form_forward, _strip_form_backward)


def part_loss(features_MD, labels_M, first, rows, temperature=0.1, block=None, self_positive=False, negative_M=None):
    """What anchors `first` to `first + rows` of a group add to its `group_loss`, whose other arguments it takes."""
    weight_M = anchor_weights(labels_M, self_positive)
    negative_M = jnp.ones(labels_M.shape, bool) if negative_M is None else negative_M
    arguments = (first, features_MD, labels_M, weight_M, negative_M & (labels_M != VOID), temperature, self_positive)
    strip = strip_rows(block, labels_M.shape[0])
    return plain_form(rows, *arguments) if strip is None else strip_form((rows, min(strip, rows)), *arguments)


def group_loss(features_MD, labels_M, temperature=0.1, block=None, self_positive=False, negative_M=None):
    """Equation 1, negated as in equation 2, averaged over the anchors that have a positive.

    Args:
      features_MD: unit-length float32 features of one group's patches.
      labels_M: class ids, 255 void; void patches are neither anchors, positives nor negatives.
      temperature: tau. The paper states none; 0.1 is ContrastiveSeg's (tfzhou/ContrastiveSeg
        lib/loss/loss_contrast.py), as is leaving an anchor out of its own positives.
      block: None or "plain" for the plain form, with (M, M) arrays; a number of anchors for strips of so many, which
        take memory linear in M and give the same to rounding; "auto" chooses by size, see `AUTO_PATCHES`.
      self_positive: whether an anchor is among its own positives.
      negative_M: which patches may be negatives; None is all.

    Returns:
      Scalar; 0 with zero gradients where no anchor has a positive. An anchor without negatives counts 0.

    Raises:
      UserError: `block` is none of these.
    """
    return part_loss(features_MD, labels_M, 0, labels_M.shape[0], temperature, block, self_positive, negative_M)


def drawn_negatives(key, labels_M, count):
    """Which patches may be negatives where `count` are drawn, without replacement, of those not void (all if fewer).

    One draw serves all anchors of a group; each has those of other classes than its own, so fewer than `count`.
    """
    draw_M = jnp.where(labels_M == VOID, -1.0, jax.random.uniform(key, labels_M.shape))
    _, number_K = lax.top_k(draw_M, min(count, labels_M.shape[0]))
    return jnp.zeros(labels_M.shape, bool).at[number_K].set(True) & (labels_M != VOID)


def unit_length(features):
    """Features over their length; rsqrt with eps in place of a norm: a zero vector keeps a finite gradient."""
    return features * lax.rsqrt(jnp.square(features).sum(axis=-1, keepdims=True) + 1e-12)


SCOPES = {"clip": lambda groups, batch: batch, "group": lambda groups, batch: groups, "all": lambda groups, batch: 1}
"""How many equal runs of clips a global batch falls into; anchors meet positives and negatives within a run."""


def num_groups(config, batch):
    """Groups of a global batch of so many clips, by `config.scope` and, for scope "group", `config.groups`."""
    return choose(SCOPES, config.scope, "loss.nce.scope")(config.groups, batch)


def batch_loss(features_BTHWD, label_BTHW, key_B, config, device=0, devices=1, gather=lambda x: x):
    """This device's part of the mean of `group_loss` over the groups of a global batch; parts add up over devices.

    The result does not depend on how many devices share the batch. A group that spans several has its features and
    labels gathered on each of them, which takes its own clips' patches as anchors.

    Args:
      features_BTHWD: of this device's clips.
      label_BTHW: at pixels, or any resolution not below the features'; void everywhere leaves a clip out.
      key_B: a key a clip; the negatives of a group are drawn by its first clip's.
      config: scope, groups, labels, min_share, normalise, temperature, self_positive, negatives (0 is all), block.
      device, devices: this one's number, and how many there are.
      gather: concatenates an array of all devices along its first axis.

    Returns:
      A scalar. A group in which no anchor has a positive counts 0 in the mean over groups.

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

    def loss(features_BPD, labels_BP, key_BK, first=0, anchor_clips=clips):
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
    return loss(*group, device * batch - begin, batch) / groups
