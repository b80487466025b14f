"""Masks that hold colours: each pixel's class is told by its RGB colour, as labelling tools export it."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8, UInt32
from PIL import Image

from vspw_jax.classes.class_list import Colour
from vspw_jax.console.errors import UserError
from vspw_jax.files import mask_png

LISTED = 4
"""How many unknown colours are named."""


def _codes(rgb: UInt8[np.ndarray, "... 3"]) -> UInt32[np.ndarray, "..."]:
    """A number for each colour."""
    wide = rgb.astype(np.uint32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def to_values(png: bytes, values: Sequence[tuple[Colour, int]]) -> bytes:
    """A mask of colours as a PNG of values, 8 bits a pixel.

    Args:
      png: any mode; a palette's colours count, not its indices.
      values: by colour.

    Raises:
      UserError: it is no PNG, is damaged, has more than 8 bits a channel, is transparent in part, or holds a colour
        without a value.
    """
    rgba_HW4, _ = mask_png.whole(png, "RGBA")
    bits, _ = mask_png.header(png)
    if bits > 8:  # Of which Pillow takes the upper 8, or no more than 255.
        raise UserError(f"has {bits} bits in each of its channels: expected colours of 8 bits a channel")
    if (rgba_HW4[..., 3] != 255).any():
        raise UserError("holds transparent pixels, whose class is not told: expected opaque colours alone")
    code_HW = _codes(rgba_HW4[..., :3])
    known = _codes(np.array([colour for colour, _ in values], np.uint8))
    order = np.argsort(known)
    place_HW = np.searchsorted(known[order], code_HW).clip(max=len(known) - 1)
    is_known_HW = known[order][place_HW] == code_HW
    if not is_known_HW.all():
        codes, counts = np.unique(code_HW[~is_known_HW], return_counts=True)
        most = codes[np.argsort(-counts)][:LISTED]
        shown = ", ".join(f"#{code:06x}" for code in most) + (", ..." if len(codes) > LISTED else "")
        raise UserError(f"holds colours that the list of classes does not have, {len(codes)} of them: {shown}")
    value_of = np.array([value for _, value in values], np.uint8)[order]
    buffer = io.BytesIO()
    Image.fromarray(value_of[place_HW]).save(buffer, "PNG")
    return buffer.getvalue()
