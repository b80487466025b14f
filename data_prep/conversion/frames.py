"""The frames of a data set's files, and what is checked of each before it becomes a record.

These are checked: both files are there and not empty; the JPEG is a JPEG, ends with its end marker and can be decoded
(at an eighth of its size: all of its code is read, few of its pixels are made); the mask can be decoded, holds one
channel of 8 bits, has the frame's size, and no value that its numbering lacks. The check misses a JPEG whose bytes were
changed if it can still be decoded.
"""

import dataclasses
import io

import cv2
import numpy as np
from PIL import Image

from vspw_jax.classes import label_maps
from vspw_jax.console.errors import UserError, no_room
from vspw_jax.data import class_pixels, records
from vspw_jax.files.sources import Source

MAX_PIXELS = 1 << 26
JPEG_QUALITY = 75
"""Pillow's default, with which VSPW_480p's own script saves."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame's names. Its files may not exist.

    Attributes:
      video: name of the video; in a data set of images each image is a video of its own.
      name: of the frame.
      image, mask: names of its files in the source; `mask` is None where none is expected.
    """

    video: str
    name: str
    image: str
    mask: str | None


@dataclasses.dataclass(frozen=True)
class Form:
    """What the records of a conversion have in common.

    Attributes:
      dataset, numbering: see `label_maps.NUMBERINGS`.
      short_side: height in pixels to which frames are resized, or None to keep every byte.
    """

    dataset: str
    numbering: str
    short_side: int | None = None


def read_frame(source: Source, frame: Frame, form: Form) -> tuple[bytes, bytes, dict[int, int]]:
    """(JPEG bytes, PNG bytes, {source value: pixels}) of a frame, checked; see the module.

    Raises:
      UserError: it names the file, the video and what is wrong.
    """
    name = frame.image
    try:
        jpeg = _read(source, name)
        size = _check_jpeg(jpeg)
        png, pixels = b"", dict[int, int]()
        if frame.mask is not None:
            name = frame.mask
            png = _read(source, name)
            pixels = _check_mask(png, size, form)
        if form.short_side and size[1] != form.short_side:
            return _resize(jpeg, png, size, form.short_side)
        return jpeg, png, pixels
    except (UserError, SyntaxError, Image.DecompressionBombError, ValueError) as error:
        reason = str(error)
    except OSError as error:
        if no_room(error):
            raise
        reason = f"cannot be read ({error})"
    raise UserError(f"{source.where(name)} (video {frame.video}): {reason}")


def _read(source: Source, name: str) -> bytes:
    if name not in source.sizes:
        raise UserError("is missing")
    data = source.read(name)
    if not data:
        raise UserError("is empty")
    return data


def _check_jpeg(jpeg: bytes) -> tuple[int, int]:
    """(width, height)."""
    with Image.open(io.BytesIO(jpeg)) as image:
        size, kind = image.size, image.format
    if kind not in ("JPEG", "MPO"):
        raise UserError(f"is a {kind} file, expected JPEG")
    if size[0] * size[1] > MAX_PIXELS:
        raise UserError(f"claims {size[0]}x{size[1]} pixels, more than any frame")
    # The bytes ff da begin the code of a scan, in which no other marker occurs.
    if jpeg.rfind(b"\xff\xd9") < jpeg.rfind(b"\xff\xda"):
        raise UserError("is cut off: a JPEG ends with the bytes ff d9")
    eighth = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION)
    if eighth is None:
        raise UserError("cannot be decoded")
    return size


def _check_mask(png: bytes, size: tuple[int, int], form: Form) -> dict[int, int]:
    """Pixels by source value."""
    with Image.open(io.BytesIO(png)) as mask:
        found = mask.size
    if found != size:
        raise UserError(f"is {found[0]}x{found[1]} pixels, its frame {size[0]}x{size[1]}")
    pixels = class_pixels.count(records.mask_values(png))
    allowed = label_maps.allowed(form.dataset, form.numbering)
    strange = [value for value in pixels if not allowed[value]]
    if strange:
        raise UserError(f"holds labels that {form.numbering} does not have: {', '.join(map(str, strange[:8]))}")
    return pixels


def _resize(jpeg: bytes, png: bytes, size: tuple[int, int], height: int) -> tuple[bytes, bytes, dict[int, int]]:
    """By VSPW_480p's own rule: width int(height * w / h), image bilinear, mask nearest.

    Pillow's bilinear filter averages where it shrinks. Frames of that height keep their bytes.
    Source: VSPW-dataset/VSPW_baseline change2_480p.py.
    """
    new_size = (int(height * size[0] / size[1]), height)
    with Image.open(io.BytesIO(jpeg)) as image:
        jpeg = _encode(image.convert("RGB").resize(new_size, Image.Resampling.BILINEAR), "JPEG", quality=JPEG_QUALITY)
    if not png:
        return jpeg, png, {}
    with Image.open(io.BytesIO(png)) as mask:
        ids = mask if mask.mode in ("L", "P") else Image.fromarray(records.mask_values(png))
        png = _encode(ids.resize(new_size, Image.Resampling.NEAREST), "PNG")
    return jpeg, png, class_pixels.count(records.mask_values(png))


def _encode(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
