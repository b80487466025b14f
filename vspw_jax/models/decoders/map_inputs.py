"""Which of the encoder's maps a head reads: the coarsest, or all of them, joined with the size of the finest.

Source of the second: HRNetV2, arXiv 1908.07919, section 3.3; "resize_concat" in open-mmlab/mmsegmentation
mmseg/models/decode_heads/decode_head.py.
Shapes: N images, H and W cells, C channels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from vspw_jax.models import layers
from vspw_jax.models.decoders.decoder import Maps
from vspw_jax.models.encoders.encoder import FeatureMap


class Inputs(NamedTuple):
    """The width of what is read, and how it is read: a function of (maps, whether corners are aligned)."""

    width: Callable[[tuple[FeatureMap, ...]], int]
    read: Callable[[Maps, bool], layers.Map]


def join(maps: Maps, align_corners: bool) -> layers.Map:
    """All maps with the size of the first, side by side in their channels."""
    size = maps[0].shape[1:3]
    resized = [x if x.shape[1:3] == size else layers.RESIZES[align_corners](x, *size) for x in maps]
    return jnp.concatenate(resized, axis=-1)


INPUTS = {
    "coarsest": Inputs(lambda maps: maps[-1].width, lambda maps, align_corners: maps[-1]),
    "all": Inputs(lambda maps: sum(x.width for x in maps), join),
}
"""By `config.inputs`."""
