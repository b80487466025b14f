"""Masks of ids as PNG files: read whatever the depth of their pixels, written with 8 bits and VSPW's palette."""

import io
import pathlib

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError
from vspw_jax.files.whole_files import whole_file

GREY, PALETTE = 0, 3
"""PNG's numbers for the kinds of pixels that have one channel."""

STRETCHED = {2: 85, 4: 17}
"""Pillow gives grey pixels of so many bits this many times their value, so that white is 255."""

ONE_ID = "expected one channel of class ids, of 8 bits (mode L or P)"


def _header(png: bytes) -> tuple[int, int]:
    """(bits of a channel, kind of pixels), from the place that PNG prescribes."""
    if png[12:16] != b"IHDR":
        raise UserError("cannot be read as a PNG (it does not begin with its header)")
    return png[24], png[25]


def decode(png: bytes) -> UInt8[np.ndarray, "H W"]:
    """The ids that a PNG holds. Of a palette the indices count, never the colours; grey levels are ids.

    Several channels are taken where they are equal and nothing is transparent, 16 bits where no value is above 255.

    Raises:
      UserError: it is no PNG, is damaged, or its pixels are no ids.
    """
    try:
        with Image.open(io.BytesIO(png)) as image:
            if image.format != "PNG":
                raise UserError(f"is a {image.format} file: expected PNG, as a format that loses bits changes ids")
            values, mode = np.asarray(image), image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's.
        raise UserError(f"cannot be read as a PNG ({error})") from error
    bits, kind = _header(png)
    if is_plain(png):
        return values
    if kind != GREY:
        if bits > 8:
            raise UserError(f"has {bits} bits in each of its channels: {ONE_ID}")
        return _one_channel(values, mode)
    if (values > 255).any():
        raise UserError(f"holds {values.max()}, which takes more than 8 bits: {ONE_ID}")
    return values.astype(np.uint8) // STRETCHED.get(bits, 1)


def _one_channel(values_HWC: UInt8[np.ndarray, "H W C"], mode: str) -> UInt8[np.ndarray, "H W"]:
    """The first channel of several equal ones."""
    if mode.endswith("A"):
        if (values_HWC[..., -1] != 255).any():
            raise UserError(f"holds transparent pixels (mode {mode}): {ONE_ID}")
        values_HWC = values_HWC[..., :-1]
    if (values_HWC != values_HWC[..., :1]).any():
        raise UserError(f"holds colours (mode {mode}): {ONE_ID}")
    return values_HWC[..., 0]


def is_plain(png: bytes) -> bool:
    """Whether any program reads the ids of a PNG, VSPW's devkit too: grey of 8 bits, or a palette."""
    bits, kind = _header(png)
    return kind == PALETTE or (kind, bits) == (GREY, 8)


def encode(label_HW: UInt8[np.ndarray, "H W"]) -> bytes:
    """The bytes of a PNG of train ids: one channel of 8 bits, VSPW's colours as palette."""
    image = Image.fromarray(label_HW)
    image.putpalette(vspw.palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def save(label_HW: UInt8[np.ndarray, "H W"], path: pathlib.Path) -> None:
    """Writes train ids as a file, whole or not at all, and makes its folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_bytes(encode(label_HW))
