"""Frames as files: which formats are taken, and whether a file is whole."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import av
import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vspw_jax.console.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Of files that count as frames, in any case of letters."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF")
"""Pillow's names of what such files may hold, whatever their suffix. MPO is a JPEG with further pictures behind it."""

MAX_PIXELS = 1 << 26
JPEG_START = b"\xff\xd8"

WIDE = ("F", "I")
"""Pillow's names of pixels of 32 bits."""

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # What it cannot decode is said here.


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """A picture of one of the formats; what is wrong with it is said by errors alone, not by Pillow's warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # Pillow's alone, as other threads see it too.
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
    """(width, height) of a picture, all of whose data is read.

    Raises:
      UserError: it is no picture, is damaged or cut off, has too many pixels, or holds several pictures.
    """
    found = _check_whole(data)
    if not data.startswith(JPEG_START):  # Of which no pixels need be made, see `_check_jpeg`.
        _pixels(data)
    return found


def _check_whole(data: bytes) -> tuple[int, int]:
    """As `check`, but for what OpenCV alone cannot decode."""
    with _opened(data) as image:
        if image.size[0] * image.size[1] > MAX_PIXELS:
            raise UserError(f"claims {image.size[0]}x{image.size[1]} pixels, more than any frame")
        if image.format in ("JPEG", "MPO"):
            _check_jpeg(data)
            return image.size
        if (count := getattr(image, "n_frames", 1)) > 1:
            raise UserError(f"holds {count} pictures, expected one")
        if image.format == "TIFF" and image.mode in WIDE:
            raise UserError(f"has pixels of 32 bits (mode {image.mode}), expected 8 or 16 bits a channel")
        try:
            image.load()
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"is damaged or cut off ({_first_words(error)})") from error
        return image.size


def _check_jpeg(jpeg: bytes) -> None:
    """Raises UserError where a JPEG's data ends too soon or cannot be decoded.

    OpenCV and Pillow fill with grey what is missing. FFmpeg does not, where it is asked to be strict. It makes an
    eighth of the rows and columns: all of the code is read, few pixels are made.
    """
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    decoder.options = {"err_detect": "explode", "lowres": "3"}
    try:
        if decoder.decode(av.Packet(jpeg)):
            return
    except av.FFmpegError:
        pass
    raise UserError("is damaged or cut off: its data cannot be decoded to the end")


def _pixels(data: bytes) -> UInt8[np.ndarray, "H W 3"]:
    """RGB, turned upright."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise UserError("cannot be decoded")
    return image


def decode(data: bytes) -> UInt8[np.ndarray, "H W 3"]:
    """RGB pixels of a whole picture, turned upright; see `check` for errors."""
    _check_whole(data)
    return _pixels(data)
