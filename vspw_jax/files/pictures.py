"""Frames as files: which formats are taken, and whether a file is whole."""

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageFile

from vspw_jax.console.errors import UserError
from vspw_jax.files import jpeg_scans

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jp2", ".ppm", ".pgm")
"""Of files that count as frames, in any case of letters."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "JPEG2000", "PPM")
"""Pillow's names of what such files may hold, whatever their suffix. MPO is a JPEG with further pictures behind it."""
JPEGS = ("JPEG", "MPO")
WHITE = (255, 65535)
"""Brightest values of a PPM or PGM that OpenCV reads as such; of another it would make a darker picture."""

TURNED = range(2, 9)
"""EXIF orientations that turn or mirror a picture; 1 is upright, others mean nothing."""

MAX_PIXELS = 1 << 26

WIDE = ("F", "I")
"""Pillow's names of pixels of 32 bits."""
DEEP_PGM = ("PPM", "I")
"""So Pillow names a PGM's pixels of 16 bits."""

# What cannot be decoded is said here. Threads read pictures, so this is not set and taken back by each.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[ImageFile.ImageFile]:
    """A picture of one of the formats."""
    try:
        image = Image.open(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot be read as a picture ({_first_words(error)})") from error
    with image:
        if image.format not in FORMATS:
            raise UserError(f"is a {image.format} file, expected one of {', '.join(FORMATS)}")
        yield image


def _first_words(error: Exception) -> str:
    """What Pillow says, without the addresses that it adds."""
    return str(error).partition(" <")[0]


def size(data: bytes) -> tuple[int, int]:
    """(width, height) of a picture, as its header says."""
    with _opened(data) as image:
        return image.size


def check(data: bytes) -> tuple[int, int]:
    """(width, height) of a picture that is kept byte for byte, all of whose data is read.

    Raises:
      UserError: it is no picture, is damaged or cut off, has too many pixels, holds several pictures, or is turned by
        its EXIF orientation, which `records.decode_image` ignores.
    """
    with _opened(data) as image:
        _check_claims(image)
        turn = _orientation(image)  # Of a TIFF, Pillow itself turns the pixels as it loads them, and forgets the tag.
        _check_whole(image, data)
    if turn in TURNED:
        raise UserError(f"is turned by its EXIF orientation {turn}: save it upright, e.g. with `mogrify -auto-orient`")
    # OpenCV, by which training decodes, refuses some of what others take. Of a JPEG an eighth of the sides is enough.
    _pixels(data, cv2.IMREAD_REDUCED_GRAYSCALE_8 if data.startswith(jpeg_scans.START) else cv2.IMREAD_COLOR_RGB)
    return image.size


def _check_claims(image: ImageFile.ImageFile) -> None:
    """Raises UserError where a picture's header claims too many pixels, or what cannot be decoded."""
    if image.size[0] * image.size[1] > MAX_PIXELS:
        raise UserError(f"claims {image.size[0]}x{image.size[1]} pixels, more than any frame")
    if image.format not in JPEGS and (count := getattr(image, "n_frames", 1)) > 1:
        raise UserError(f"holds {count} pictures, expected one")
    if image.mode in WIDE and image.format in ("TIFF", "PPM") and (image.format, image.mode) != DEEP_PGM:
        raise UserError(f"has pixels of 32 bits (mode {image.mode}), expected 8 or 16 bits a channel")
    if image.format == "PPM" and _white(image) not in WHITE:
        raise UserError(f"has a maxval of {_white(image)}, expected {' or '.join(map(str, WHITE))}: save it as PNG")


def _white(image: ImageFile.ImageFile) -> int:
    """The brightest value of a PPM or PGM. Pillow hands it to its decoder where that has to scale."""
    arguments = image.tile[0].args
    return arguments[1] if isinstance(arguments, tuple) else 255


def _check_whole(image: Image.Image, data: bytes) -> None:
    """Raises UserError where a picture's data is damaged or ends too soon, but for what OpenCV alone cannot decode."""
    if image.format in JPEGS:
        jpeg_scans.check(data)
        return
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"is damaged or cut off ({_first_words(error)})") from error


def _orientation(image: Image.Image) -> object:
    """The EXIF orientation of a picture, of a JPEG by its header alone; None where it has none, or EXIF is damaged."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except (OSError, SyntaxError, ValueError, struct.error):
        return None


def _pixels(data: bytes, flags: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    """What OpenCV makes of a picture; without flags RGB, turned upright."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise UserError("cannot be decoded")
    return image


def decode(data: bytes) -> UInt8[np.ndarray, "H W 3"]:
    """RGB pixels of a whole picture, turned upright; see `check` for errors."""
    with _opened(data) as image:
        _check_claims(image)
        _check_whole(image, data)
    return _pixels(data)
