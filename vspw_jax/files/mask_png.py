"""Train ids as PNG files: one channel of 8 bits, VSPW's colours as palette."""

import io
import pathlib

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vspw_jax.classes import vspw
from vspw_jax.files.whole_files import whole_file


def encode(label_HW: UInt8[np.ndarray, "H W"]) -> bytes:
    """The bytes of a PNG of train ids."""
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
