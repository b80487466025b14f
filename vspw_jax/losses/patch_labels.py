"""Labels of the patches of a feature map, from those of its pixels.

Shapes: B clips, T frames, H and W pixels, h and w patches.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from vspw_jax.classes.vspw import VOID


def nearest(
    label_BTHW: Shaped[Array, "B T H W"], height: int, width: int, min_share: float = 0.0
) -> Shaped[Array, "B T h w"]:
    """Each patch's first pixel, as torch's F.interpolate(mode="nearest") for whole factors; `min_share` is not used."""
    del min_share
    rows = jnp.arange(height) * label_BTHW.shape[2] // height
    columns = jnp.arange(width) * label_BTHW.shape[3] // width
    return label_BTHW[:, :, rows][:, :, :, columns]


def centre(x_BTHW: Shaped[Array, "B T H W"], height: int, width: int) -> Shaped[Array, "B T h w"]:
    """The pixel at each patch's centre, as Pillow and torch's "nearest-exact" take it; of any map, as shares are."""
    rows = (2 * jnp.arange(height) + 1) * x_BTHW.shape[2] // (2 * height)
    columns = (2 * jnp.arange(width) + 1) * x_BTHW.shape[3] // (2 * width)
    return x_BTHW[:, :, rows][:, :, :, columns]


def majority(
    label_BTHW: Int[Array, "B T H W"], height: int, width: int, min_share: float = 0.0
) -> Int[Array, "B T h w"]:
    """Each patch's most frequent class (the lowest of those equally frequent); void where no pixel is labelled.

    Args:
      min_share: a class with less than this share of the patch's pixels, void ones included, makes the patch void too.
    """
    *clips, rows, columns = label_BTHW.shape
    images = label_BTHW.reshape(-1, rows, columns)
    row = jnp.arange(rows) * height // rows
    column = jnp.arange(columns) * width // columns
    image = jnp.arange(len(images))[:, None, None]
    count = jnp.zeros((len(images), height, width, VOID + 1), jnp.int32)
    count = count.at[image, row[:, None], column, images].add(1)
    most = count[..., :VOID].max(axis=-1)
    kept = (most > 0) & (most >= min_share * count.sum(axis=-1))
    return jnp.where(kept, count[..., :VOID].argmax(axis=-1), VOID).reshape(*clips, height, width)


CHOICES: dict[str, Callable[..., Int[Array, "B T h w"]]] = {"nearest": nearest, "majority": majority}
