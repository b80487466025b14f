"""The frames of a data set's files, and what is checked of each before it becomes a record.

These are checked: both files are there and not empty; the frame is whole and upright, see `pictures.check`; the
mask can be decoded, holds ids, has the frame's size, and no value that its numbering lacks. The check misses a JPEG
whose bytes were changed if it can still be decoded.
"""

import dataclasses
import io
from typing import NamedTuple

from PIL import Image

from data_prep.conversion import colour_masks, matlab_masks
from vspw_jax.classes import label_maps
from vspw_jax.classes.class_list import Colour
from vspw_jax.classes.label_maps import LabelMap
from vspw_jax.console.errors import UserError, no_room
from vspw_jax.data import class_pixels
from vspw_jax.files import mask_png, pictures
from vspw_jax.files.sources import Source

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
      labels: what the masks' values mean.
      short_side: height in pixels to which frames are resized, or None to keep every byte.
      mask_colours: of masks that hold colours, their values by colour; such masks become masks of values. None where
        masks hold values.
    """

    labels: LabelMap
    short_side: int | None = None
    mask_colours: tuple[tuple[Colour, int], ...] | None = None

    def identity(self) -> list[object]:
        """All of it that decides a record's bytes and meaning, as JSON values."""
        stated = label_maps.to_metadata(self.labels)
        own = [stated["classes"], self.mask_colours] if "classes" in stated else []
        return [stated["dataset"], stated["numbering"], self.short_side, *own]


class Content(NamedTuple):
    """What a record holds of a frame.

    Attributes:
      image, mask: the files' bytes; no bytes where there is no mask.
      pixels: of the mask, by source value.
      size: width and height.
    """

    image: bytes
    mask: bytes
    pixels: dict[int, int]
    size: tuple[int, int]


def read_frame(source: Source, frame: Frame, form: Form) -> Content:
    """A frame's content, checked; see the module.

    Raises:
      UserError: it names the file, the video and what is wrong.
    """
    name = frame.image
    try:
        jpeg = _read(source, name)
        size = pictures.check(jpeg)
        png, pixels = b"", dict[int, int]()
        if frame.mask is not None:
            name = frame.mask
            png = _read(source, name)
            if name.endswith(matlab_masks.SUFFIX):
                png = matlab_masks.to_values(png)
            if form.mask_colours is not None:
                png = colour_masks.to_values(png, form.mask_colours)
            pixels = _check_mask(png, size, form)
        if form.short_side and size[1] != form.short_side:
            return _resize(jpeg, png, size, form.short_side)
        return Content(jpeg, png, pixels, size)
    except (UserError, SyntaxError, Image.DecompressionBombError, ValueError) as error:
        reason = str(error)
    except OSError as error:
        if no_room(error):
            raise
        reason = f"cannot be read ({error})"
    raise UserError(f"{source.where(name)} (video {frame.video}): {reason}")


def size_by_header(source: Source, frame: Frame, form: Form) -> tuple[int, int]:
    """(width, height) that a frame has in its record; no more is read of it than its image's header says."""
    size = pictures.size(_read(source, frame.image))
    return _new_size(size, form.short_side) if form.short_side else size


def _read(source: Source, name: str) -> bytes:
    if name not in source.sizes:
        raise UserError("is missing")
    data = source.read(name)
    if not data:
        raise UserError("is empty")
    return data


def _check_mask(png: bytes, size: tuple[int, int], form: Form) -> dict[int, int]:
    """Pixels by source value."""
    values = mask_png.decode(png)
    if values.shape != size[::-1]:
        raise UserError(f"is {values.shape[1]}x{values.shape[0]} pixels, its frame {size[0]}x{size[1]}")
    pixels = class_pixels.count(values)
    strange = [value for value in pixels if not form.labels.allowed[value]]
    if strange:
        found = ", ".join(map(str, strange[:8]))
        whose = "the list of classes" if form.labels.numbering == label_maps.OWN else form.labels.numbering
        raise UserError(f"holds labels that {whose} does not have: {found}")
    return pixels


def _new_size(size: tuple[int, int], height: int) -> tuple[int, int]:
    """The width follows from the height by VSPW_480p's own rule: int(height * w / h)."""
    return int(height * size[0] / size[1]), height


def _resize(jpeg: bytes, png: bytes, size: tuple[int, int], height: int) -> Content:
    """By VSPW_480p's own rule: image bilinear, mask nearest.

    Pillow's bilinear filter averages where it shrinks. Frames of that height keep their bytes.
    Source: VSPW-dataset/VSPW_baseline change2_480p.py.
    """
    new_size = _new_size(size, height)
    image = Image.fromarray(pictures.decode(jpeg))  # Pillow's own conversion to RGB makes 16 bits of grey white.
    jpeg = _encode(image.resize(new_size, Image.Resampling.BILINEAR), "JPEG", quality=JPEG_QUALITY)
    if not png:
        return Content(jpeg, png, {}, new_size)
    with Image.open(io.BytesIO(png)) as mask:
        ids = mask if mask.mode == "P" else Image.fromarray(mask_png.decode(png))
        png = _encode(ids.resize(new_size, Image.Resampling.NEAREST), "PNG")
    return Content(jpeg, png, class_pixels.count(mask_png.decode(png)), new_size)


def _encode(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
