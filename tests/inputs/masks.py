"""Masks as PNGs of every kind and depth of pixels, put together byte by byte: no library writes them all."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8,), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8,), RGBA: (8,)}
"""By kind: bits of a channel in which ids can be told."""

PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Adam7: first row, first column, step of rows, step of columns."""


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def rows(values_HWC, bits):
    """PNG's unfiltered rows."""
    result = b""
    for row in values_HWC.reshape(len(values_HWC), -1):
        if bits == 16:
            packed = row.astype(">u2").tobytes()
        else:
            packed = np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, -bits:]).tobytes()
        result += b"\0" + packed
    return result


def png(values_HW, kind=GREY, bits=8, interlaced=False, transparent=None, alpha=None, share=1.0):
    """The ids as they are, in each channel; `transparent` is a value for tRNS, `alpha` that of all pixels, `share` how
    much of the pixels is there."""
    channels = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}[kind]
    values_HWC = np.repeat(np.asarray(values_HW)[..., None], channels, axis=2)
    if kind in (GREY_ALPHA, RGBA):
        values_HWC[..., -1] = (1 << bits) - 1 if alpha is None else alpha
    parts = [values_HWC]
    if interlaced:
        parts = [values_HWC[top::down, left::right] for top, left, down, right in PASSES]
    data = b"".join(rows(part, bits) for part in parts if part.size)
    height, width = values_HWC.shape[:2]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced))]
    if kind == PALETTE:
        colours = np.random.default_rng(0).integers(0, 256, 3 << bits, np.uint8)
        chunks.append((b"PLTE", colours.tobytes()))
    if transparent is not None:
        value = bytes(transparent) + b"\0" if kind == PALETTE else struct.pack(">H", transparent) * min(channels, 3)
        chunks.append((b"tRNS", value))
    chunks += [(b"IDAT", zlib.compress(data[: int(share * len(data))])), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks)


def animation(count=2):
    """An animated PNG, each of whose pictures is a mask."""
    first, *others = (Image.fromarray(np.full((8, 8), number, np.uint8)) for number in range(count))
    buffer = io.BytesIO()
    first.save(buffer, "PNG", save_all=True, append_images=others)
    return buffer.getvalue()


def in_capitals(folder):
    """Gives masks the suffix that some cameras and programs write."""
    for path in sorted(folder.rglob("*.png")):
        path.rename(path.with_suffix(".PNG"))


def strays(folder):
    """Files among masks that are no image's."""
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "99.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "extra.tif")


def kinds():
    """(kind, bits, interlaced, with tRNS) of every PNG whose pixels can be ids."""
    return [
        (kind, bits, interlaced, transparent)
        for kind, depths in DEPTHS.items()
        for bits in depths
        for interlaced in (False, True)
        for transparent in (False, True)
        if not (transparent and kind in (GREY_ALPHA, RGBA))  # PNG forbids it.
    ]
