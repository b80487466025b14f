"""Cross-entropy of every pixel, for decoders that give per-pixel logits: minus the log-softmax at the pixel's label.

Logits are interpolated to the labels' size, so a labelled pixel at the border of void also reads the cell beside it.
Logits further inside void change nothing.

Source: open-mmlab/mmsegmentation mmseg/models/{decode_heads/decode_head,losses/cross_entropy_loss}.py.
Shapes: N images, H and W of labels, h and w of logits, C classes.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import UserError, choose

AVERAGED_OVER: dict[str, Callable[[Array], Array]] = {
    "labelled": lambda weight_NHW: weight_NHW.sum(),
    "all": lambda weight_NHW: jnp.asarray(weight_NHW.size),
}
"""The divisor of a batch's sum. "labelled" is the sum of the labelled pixels' weights (1 each without class weights),
as in torch's cross_entropy. "all" is the number of all pixels, as in mmseg unless avg_non_ignore is set."""


def check_weights(class_weight: Sequence[float], num_classes: int) -> None:
    """Raises UserError where there are weights, but not one for each class."""
    if len(class_weight) not in (0, num_classes):
        raise UserError(
            f"loss.segmentation.class_weight has {len(class_weight)} weights: expected one for each of the "
            f"{num_classes} classes, or () for none."
        )


def pixel_weights(label_NHW: Int[Array, "N H W"], class_weight: Sequence[float] = ()) -> Float[Array, "N H W"]:
    """The weight of every pixel: its class's (1 without class weights), 0 where it is void."""
    if not len(class_weight):
        return (label_NHW != VOID).astype(jnp.float32)
    weight_of = jnp.zeros(max(VOID + 1, len(class_weight)))
    weight_of = weight_of.at[: len(class_weight)].set(jnp.asarray(class_weight, jnp.float32)).at[VOID].set(0.0)
    return weight_of[label_NHW]


def image_sum(
    logits_HWC: Float[Array, "h w C"], label_HW: Int[Array, "H W"], weight_HW: Float[Array, "H W"]
) -> Float[Array, ""]:
    """The sum of one image's weighted cross-entropy; logits are resized bilinearly to the labels."""
    num_classes = logits_HWC.shape[-1]
    logits = jax.image.resize(logits_HWC, (*label_HW.shape, num_classes), "bilinear", antialias=False)
    # A comparison in place of a gather: neither the comparison nor its gradient moves memory about.
    of_label = jnp.where(label_HW[..., None] == jnp.arange(num_classes), logits, 0.0).sum(axis=-1)
    return (weight_HW * (jax.nn.logsumexp(logits, axis=-1) - of_label)).sum()


def cross_entropy(
    logits_NHWC: Float[Array, "N h w C"],
    label_NHW: Int[Array, "N H W"],
    averaged_over: str = "labelled",
    class_weight: Sequence[float] = (),
    total: Callable[[Array], Array] = lambda x: x,
) -> Float[Array, ""]:
    """The mean cross-entropy of a batch; void pixels add nothing.

    Args:
      logits_NHWC: float32 at any resolution.
      label_NHW: int, 0..C-1 or void.
      averaged_over: a key of `AVERAGED_OVER`.
      class_weight: C weights of the classes' pixels, or none for 1 each.
      total: adds over devices; inside a mapped loss, a psum of numbers that carry no gradient.

    Returns:
      A scalar, 0 where nothing is labelled. Where several devices share the batch, each has its part of the loss: the
      loss is the sum of the parts.

    Raises:
      UserError: an unknown `averaged_over`, or another number of weights than of classes.
    """
    divisor = choose(AVERAGED_OVER, averaged_over, "loss.segmentation.averaged_over")
    check_weights(class_weight, logits_NHWC.shape[-1])
    weight_NHW = pixel_weights(label_NHW, class_weight)
    # One image at a time, and the backward pass makes it anew: the full-size logits of a batch never exist together.
    one_image = jax.checkpoint(lambda image: image_sum(*image))
    sums_N = lax.map(one_image, (logits_NHWC, label_NHW, weight_NHW))
    divided_by = total(divisor(weight_NHW).astype(jnp.float32))
    return sums_N.sum() / jnp.where(divided_by > 0, divided_by, 1.0)
