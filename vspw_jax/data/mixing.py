"""Two batches mixed into one, across data sets: by region (cutmix) and by pixel (mixup).

Source: paper 003 (MDP, arXiv 2106.04121), section 3.4, equations 5 to 7. What the paper leaves open is as in the papers
that it cites: boxes as in CutMix (arXiv 1905.04899, algorithm A1), shares from Beta(alpha, alpha) as in mixup
(arXiv 1710.09412), alpha 1 by default. Each clip draws its own box or share, equal for all of its frames.

A transform takes a batch, a partner batch of the same shapes (of any data set; clip b is mixed with the partner's clip
b) and a JAX key. It gives the batch with image_BTHWC mixed and a pair of labels:

    label_BTHW        of the batch's own clips
    other_label_BTHW  of the partner's clips
    weight_BTHW       float32, the own image's share of a pixel: 1 or 0 by region, any share in 0..1 by pixel

A loss counts a pixel `weight` times with `label` and `1 - weight` times with `other_label`: equation 7, and equation
5 where the weight is 1 or 0. `weighted_mean` does so. `own_and_other_weights` gives the weights to a loss with a
normalisation of its own. `region_label` makes the one label map of equation 5.

Seams: a box's edges lie between pixels, so every pixel is of one image and has that image's label; there is no blended
or void margin. At a lower resolution take labels and weight at the same pixels (nearest). Features may see across a
seam: the paper wants regions torn.
Void: where one of the two labels is void, the pixel counts by the other's weight alone. Padding is void; it is cut and
mixed like anything else.
Images may be normalised or not: the weights of a pixel add up to 1, so normalising commutes with mixing.

    batch = mixing.cutmix(batch, partner, jax.random.fold_in(key, step))
    loss = mixing.weighted_mean(batch, pixel_loss(embedding, batch["label_BTHW"]),
                                pixel_loss(embedding, batch["other_label_BTHW"]))

Shapes: B clips, T frames, H and W pixels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import UserError

Batch = dict[str, Array | np.ndarray]


def random_regions(key: PRNGKeyArray, batch: int, height: int, width: int, alpha: float = 1.0) -> Bool[Array, "B H W"]:
    """CutMix's boxes: True inside.

    A share is drawn from Beta(alpha, alpha). A box has sqrt(1 - share) of each side, its centre is uniform over the
    pixels, and what exceeds the frame is cut off.
    """
    share_key, row_key, column_key = jax.random.split(key, 3)
    side_B = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha, (batch,)))

    def inside(key: PRNGKeyArray, length: int) -> Bool[Array, "B L"]:
        half_B = (length * side_B).astype(jnp.int32) // 2
        centre_B = jax.random.randint(key, (batch,), 0, length)
        distance_BL = jnp.arange(length) - centre_B[:, None]
        return (-half_B[:, None] <= distance_BL) & (distance_BL < half_B[:, None])

    return inside(row_key, height)[:, :, None] & inside(column_key, width)[:, None, :]


def cutmix(batch: Batch, partner: Batch, key: PRNGKeyArray, alpha: float = 1.0) -> Batch:
    """Region-level mixing (equation 5): a box of each clip is filled from the partner's clip.

    Args:
      batch, partner: dicts with image_BTHWC and label_BTHW, of the same shapes.
      key: JAX key; the only source of randomness.
      alpha: of the Beta distribution from which the share that stays is drawn.

    Returns:
      The batch with its images mixed, other_label_BTHW and weight_BTHW; see the module.

    Raises:
      UserError: the partner has other shapes.
    """
    clips, frames, height, width = _shape(batch, partner)
    own_BTHW = jnp.broadcast_to(
        ~random_regions(key, clips, height, width, alpha)[:, None], (clips, frames, height, width)
    )
    image = jnp.where(own_BTHW[..., None], batch["image_BTHWC"], partner["image_BTHWC"])
    return _paired(batch, partner, image, own_BTHW.astype(jnp.float32))


def mixup(batch: Batch, partner: Batch, key: PRNGKeyArray, alpha: float = 1.0) -> Batch:
    """Pixel-level mixing (equation 6): each clip is averaged with the partner's clip.

    Args, returns, raises: as `cutmix`.
    """
    clips, frames, height, width = _shape(batch, partner)
    share_B = jax.random.beta(key, alpha, alpha, (clips,))
    weight_BTHW = jnp.broadcast_to(share_B[:, None, None, None], (clips, frames, height, width))
    share_B1111 = share_B[:, None, None, None, None]
    image = share_B1111 * batch["image_BTHWC"] + (1 - share_B1111) * partner["image_BTHWC"]
    return _paired(batch, partner, image, weight_BTHW)


MIXINGS = {"cutmix": cutmix, "mixup": mixup}
"""By their name in a config."""


def _shape(batch: Batch, partner: Batch) -> tuple[int, ...]:
    for name in ("image_BTHWC", "label_BTHW"):
        if batch[name].shape != partner[name].shape:
            raise UserError(
                f"Batches to mix must have the same shapes: {name} has {tuple(batch[name].shape)}, the partner's "
                f"{tuple(partner[name].shape)}. Give both the same crop, batch and frames."
            )
    return batch["label_BTHW"].shape


def _paired(batch: Batch, partner: Batch, image: Array, weight_BTHW: Float[Array, "B T H W"]) -> Batch:
    pair = {"other_label_BTHW": jnp.asarray(partner["label_BTHW"]), "weight_BTHW": weight_BTHW}
    return {**batch, "image_BTHWC": image, "label_BTHW": jnp.asarray(batch["label_BTHW"]), **pair}


def region_label(mixed: Batch) -> Integer[Array, "B T H W"]:
    """The one label map of equation 5: each pixel's label in the image that it shows."""
    return jnp.where(mixed["weight_BTHW"] > 0.5, mixed["label_BTHW"], mixed["other_label_BTHW"])


def own_and_other_weights(mixed: Batch) -> tuple[Float[Array, "B T H W"], Float[Array, "B T H W"]]:
    """What `label` counts in a loss and what `other_label` counts; 0 where that label is void."""
    weight = mixed["weight_BTHW"]
    own = jnp.where(mixed["label_BTHW"] == VOID, 0.0, weight)
    return own, jnp.where(mixed["other_label_BTHW"] == VOID, 0.0, 1 - weight)


def weighted_mean(
    mixed: Batch, loss_BTHW: Float[Array, "B T H W"], other_loss_BTHW: Float[Array, "B T H W"]
) -> Float[Array, ""]:
    """Equation 7 over a batch: the mean of per-pixel losses by label and by other label, 0 where all is void.

    By region it is the mean over the labelled pixels of equation 5. By pixel it is equation 7 term by term where both
    labels are known; a pixel with one void label counts by the other's weight. Losses at void pixels do not matter:
    they may be NaN.
    """
    own, other = own_and_other_weights(mixed)
    known = jnp.where(own > 0, loss_BTHW, 0.0), jnp.where(other > 0, other_loss_BTHW, 0.0)
    total = own.sum() + other.sum()
    return (own * known[0] + other * known[1]).sum() / jnp.where(total > 0, total, 1.0)
