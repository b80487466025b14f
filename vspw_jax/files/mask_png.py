"""Masks of ids as PNG files: read whatever the depth of their pixels, written with 8 bits and a palette."""

import io
import pathlib
import struct
import zlib

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError
from vspw_jax.files.whole_files import whole_file

GREY, PALETTE = 0, 3
"""PNG's numbers for the kinds of pixels that have one channel."""

STRETCHED = {2: 85, 4: 17}
"""Pillow gives grey pixels of so many bits this many times their value, so that white is 255."""

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of each kind of pixels."""

PASSES = {
    0: ((0, 0, 1, 1),),
    1: ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
}
"""By PNG's number for interlacing, the parts in which the pixels come: first column and row, steps across and down."""

LOSSY = ("JPEG", "MPO", "WEBP")
"""Pillow's names of formats that may change ids; WebP is lossless if it is asked to be."""

ONE_ID = "expected one channel of class ids, of 8 bits (mode L or P)"


def header(png: bytes) -> tuple[int, int]:
    """(bits of a channel, kind of pixels), from the place that PNG prescribes."""
    if png[12:16] != b"IHDR":
        raise UserError("cannot be read as a PNG (it does not begin with its header)")
    return png[24], png[25]


def _check_rows(png: bytes) -> None:
    """Raises UserError where there are fewer rows than the header says: Pillow reads those that are missing as 0."""
    width, height, bits, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", png, 16)
    expected = 0
    for left, top, across, down in PASSES[interlaced]:
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + -(-columns * CHANNELS[kind] * bits // 8))  # A byte before each row: its filter.
    inflate, found, place = zlib.decompressobj(), 0, 8
    while place + 8 <= len(png) and found < expected:
        length, name = struct.unpack_from(">I4s", png, place)
        if name == b"IDAT":
            found += len(inflate.decompress(png[place + 8 : place + 8 + length], expected - found))
        place += length + 12
    if found < expected:
        raise UserError(f"is cut off: it has {100 * found // expected} % of the pixels that its header tells of")


def whole(png: bytes, mode: str = "") -> tuple[UInt8[np.ndarray, "H W *C"], str]:
    """(pixels, mode) of a PNG of which nothing is missing: as Pillow gives them, or turned into a mode of Pillow's.

    Raises:
      UserError: it is no PNG, is damaged, or holds several pictures.
    """
    try:
        with Image.open(io.BytesIO(png)) as image:
            if image.format != "PNG":
                why = ", as a format that loses bits changes ids" if image.format in LOSSY else ""
                raise UserError(f"is a {image.format} file: expected PNG{why}")
            if (count := getattr(image, "n_frames", 1)) > 1:
                raise UserError(f"holds {count} pictures, expected one")
            values, found = np.asarray(image.convert(mode) if mode else image), image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's.
        raise UserError(f"cannot be read as a PNG ({error})") from error
    _check_rows(png)
    return values, mode or found


def decode(png: bytes) -> UInt8[np.ndarray, "H W"]:
    """The ids that a PNG holds. Of a palette the indices count, never the colours; grey levels are ids.

    Several channels are taken where they are equal and nothing is transparent, 16 bits where no value is above 255.

    Raises:
      UserError: it is no PNG, is damaged, or its pixels are no ids.
    """
    values, mode = whole(png)
    bits, kind = header(png)
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
    bits, kind = header(png)
    return kind == PALETTE or (kind, bits) == (GREY, 8)


def encode(label_HW: UInt8[np.ndarray, "H W"], classes: ClassList) -> bytes:
    """The bytes of a PNG of train ids: one channel of 8 bits, with the classes' colours as palette."""
    image = Image.fromarray(label_HW)
    image.putpalette(classes.palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def save(label_HW: UInt8[np.ndarray, "H W"], path: pathlib.Path, classes: ClassList) -> None:
    """Writes train ids as a file, whole or not at all, and makes its folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_bytes(encode(label_HW, classes))
