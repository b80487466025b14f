"""Cross-entropy of every pixel, for decoders that give per-pixel logits: minus the log-softmax at the pixel's label.

Logits are interpolated to the labels' size, so a labelled pixel at the border of void also reads the cell beside it.
Logits further inside void change nothing.

Source: open-mmlab/mmsegmentation mmseg/models/{decode_heads/decode_head,losses/cross_entropy_loss}.py.
Shapes: N images, H and W of labels, h and w of logits, C classes, S strips.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import UserError, choose
from vspw_jax.sampling import upsampling

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


STRIP = 8
"""Rows of labels whose logits are at full size at a time on a CPU, so that they stay in its cache; at least those of
one row of logits."""

WHOLE_BELOW = 2**19
"""Logits of an image at full size (2 MiB) below which a CPU takes it whole, which is then faster."""


def weighted_sum(
    logits_HWC: Float[Array, "H W C"], label_HW: Int[Array, "H W"], weight_HW: Float[Array, "H W"]
) -> Float[Array, ""]:
    """The sum of the weighted cross-entropy of pixels."""
    # A comparison in place of a gather: neither the comparison nor its gradient moves memory about.
    is_label_HWC = label_HW[..., None] == jnp.arange(logits_HWC.shape[-1])
    of_label_HW = jnp.where(is_label_HWC, logits_HWC, 0.0).sum(axis=-1)
    return (weight_HW * (jax.nn.logsumexp(logits_HWC, axis=-1) - of_label_HW)).sum()


def image_sum(
    logits_HWC: Float[Array, "h w C"], label_HW: Int[Array, "H W"], weight_HW: Float[Array, "H W"]
) -> Float[Array, ""]:
    """`weighted_sum` of an image whose logits are resized bilinearly to the labels."""
    shape = (*label_HW.shape, logits_HWC.shape[-1])
    return weighted_sum(jax.image.resize(logits_HWC, shape, "bilinear", antialias=False), label_HW, weight_HW)


def strip_sum(
    logits_RWC: Float[Array, "rows+2 w+2 C"], label_HW: Int[Array, "H W"], weight_HW: Float[Array, "H W"]
) -> Float[Array, ""]:
    """`image_sum` of a strip, from its rows and columns of logits and one more at each end.

    A product for the rows and sums for the columns: a CPU takes a quarter to a half of the time of `image_sum`.
    """
    (rows, columns), (height, width) = (size - 2 for size in logits_RWC.shape[:2]), label_HW.shape
    matrix = upsampling.matrix(rows, height // rows)
    logits_HWC = jnp.einsum("hr,rwc->hwc", matrix, logits_RWC, precision="highest")
    return weighted_sum(upsampling.upsample_columns(logits_HWC, width // columns), label_HW, weight_HW)


def strips(logits_NHWC: Float[Array, "N h w C"], rows: int) -> Float[Array, "S rows+2 w+2 C"]:
    """The strips of all images of so many rows, with one more row and column at each end."""
    padded = jnp.pad(logits_NHWC, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    own = padded[:, 1:-1].reshape(len(padded), -1, rows, *padded.shape[2:])
    before, after = padded[:, :-2:rows, None], padded[:, rows + 1 :: rows, None]
    return jnp.concatenate([before, own, after], axis=2).reshape(-1, rows + 2, *padded.shape[2:])


def rows_of_strip(logits_shape: Sequence[int], label_size: Sequence[int]) -> int:
    """Rows of logits that become labels' size at a time, 0 for whole images by `image_sum`.

    Strips are for CPUs and large images (`WHOLE_BELOW`). Only whole factors have them.

    Args:
      logits_shape: (h, w, C).
      label_size: (H, W).
    """
    (height, width, num_classes), (label_height, label_width) = logits_shape, label_size
    is_whole_factor = label_height % height == label_width % width == 0 and label_height > height
    is_large = label_height * label_width * num_classes >= WHOLE_BELOW
    if jax.default_backend() != "cpu" or not is_whole_factor or not is_large:
        return 0
    most = max(1, STRIP * height // label_height)
    return max(rows for rows in range(1, most + 1) if height % rows == 0)


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
    part_sum: Callable[..., Float[Array, ""]] = image_sum
    parts: tuple[Array, Array, Array] = logits_NHWC, label_NHW, weight_NHW
    if rows := rows_of_strip(logits_NHWC.shape[1:], label_NHW.shape[1:]):
        logits_SRWC = strips(logits_NHWC, rows)
        of_strips = lambda x_NHW: x_NHW.reshape(len(logits_SRWC), -1, x_NHW.shape[-1])
        part_sum, parts = strip_sum, (logits_SRWC, of_strips(label_NHW), of_strips(weight_NHW))
    # One part at a time, and the backward pass makes it anew: the full-size logits of a batch never exist together.
    sums_S = lax.map(jax.checkpoint(lambda part: part_sum(*part)), parts)
    divided_by = total(divisor(weight_NHW).astype(jnp.float32))
    return sums_S.sum() / jnp.where(divided_by > 0, divided_by, 1.0)
