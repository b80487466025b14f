"""Cross-entropy of every pixel, for decoders that give per-pixel logits.

Source: open-mmlab/mmsegmentation mmseg/models/{decode_heads/decode_head,losses/cross_entropy_loss}.py.
Shapes: N images, H and W (of logits and labels each their own), C classes.
"""

import jax
import jax.numpy as jnp
from jax import lax

from vspw_jax.classes import VOID
from vspw_jax.errors import choose

AVERAGED_OVER = {
    "labelled": lambda label_NHW: (label_NHW != VOID).sum(),
    "all": lambda label_NHW: jnp.asarray(label_NHW.size),
}
"""How many pixels a batch counts: those with a label, or all, as mmseg does unless avg_non_ignore is set."""


def image_sum(logits_HWC, label_HW):
    """Cross-entropy of one image summed over its labelled pixels; logits are resized bilinearly to the labels."""
    num_classes = logits_HWC.shape[-1]
    logits = jax.image.resize(logits_HWC, (*label_HW.shape, num_classes), "bilinear", antialias=False)
    # A comparison in place of a gather: neither it nor its gradient moves memory about.
    of_label = jnp.where(label_HW[..., None] == jnp.arange(num_classes), logits, 0.0).sum(axis=-1)
    return jnp.where(label_HW == VOID, 0.0, jax.nn.logsumexp(logits, axis=-1) - of_label).sum()


def cross_entropy(logits_NHWC, label_NHW, averaged_over="labelled", total=lambda x: x):
    """The mean cross-entropy of a batch; void pixels add nothing.

    Args:
      logits_NHWC: float32 at any resolution.
      label_NHW: int, 0..C-1 or void.
      averaged_over: a key of `AVERAGED_OVER`.
      total: adds over devices; inside a mapped loss, a psum of numbers that carry no gradient.

    Returns:
      A scalar, 0 where nothing is labelled. Where the batch shares devices, each holds its device's part: the loss
      is their sum over devices.

    Raises:
      UserError: an unknown `averaged_over`.
    """
    count_pixels = choose(AVERAGED_OVER, averaged_over, "loss.segmentation.averaged_over")
    # One image at a time, made anew in the backward pass: full-size logits of a whole batch need not exist.
    sums_N = lax.map(jax.checkpoint(lambda pair: image_sum(*pair)), (logits_NHWC, label_NHW))
    count = total(count_pixels(label_NHW).astype(jnp.float32))
    return sums_N.sum() / jnp.maximum(count, 1.0)
