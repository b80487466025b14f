"""A mask means its ids whatever the kind and depth of a PNG's pixels, or is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.inputs import masks
from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError
from vspw_jax.files import mask_png


@pytest.mark.parametrize(("kind", "bits", "interlaced", "transparent"), masks.kinds())
def test_every_kind_of_png_means_its_ids(kind, bits, interlaced, transparent):
    ids = np.random.default_rng(0).integers(0, 1 << min(bits, 8), (13, 17))
    png = masks.png(ids, kind, bits, interlaced, transparent=1 if transparent else None)
    found = mask_png.decode(png)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, ids)


def test_what_other_programs_read_otherwise_is_not_plain():
    plain = {(kind, bits) for kind, bits, *_ in masks.kinds() if mask_png.is_plain(masks.png([[1]], kind, bits))}
    assert plain == {(masks.GREY, 8), *((masks.PALETTE, bits) for bits in (1, 2, 4, 8))}
    assert mask_png.is_plain(mask_png.encode(np.ones((2, 2), np.uint8), vspw.classes()))


def saved(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 3, np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


COLOURS = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
REFUSED = {
    "JPEG": (saved("JPEG"), "is a JPEG file: expected PNG, as a format that loses bits"),
    "WebP": (saved("WEBP", lossless=True), "is a WEBP file: expected PNG, as a format that loses bits"),
    "BMP": (saved("BMP"), "is a BMP file: expected PNG$"),
    "TIFF": (saved("TIFF"), "is a TIFF file: expected PNG$"),
    "animation": (masks.animation(), "holds 2 pictures, expected one"),
    "grey above 255": (masks.png([[1, 256]], bits=16), "holds 256, which takes more than 8 bits"),
    "RGB of 16 bits": (masks.png([[1]], masks.RGB, 16), "has 16 bits in each of its channels"),
    "grey and alpha of 16 bits": (masks.png([[1]], masks.GREY_ALPHA, 16), "has 16 bits in each of its channels"),
    "RGBA of 16 bits": (masks.png([[1]], masks.RGBA, 16), "has 16 bits in each of its channels"),
    "transparent grey": (masks.png([[1]], masks.GREY_ALPHA, alpha=254), "holds transparent pixels"),
    "transparent RGBA": (masks.png([[1]], masks.RGBA, alpha=0), "holds transparent pixels"),
    "half of it": (mask_png.encode(np.ones((64, 64), np.uint8), vspw.classes())[:-40], "cannot be read as a PNG"),
    "half of its rows": (masks.png(np.ones((8, 8)), share=0.5), "is cut off: it has 50 % of the pixels"),
    "all rows but one": (masks.png(np.ones((8, 8)), bits=2, share=0.9), "is cut off: it has 87 % of the pixels"),
    "the first passes": (
        masks.png(np.ones((9, 9)), interlaced=True, share=0.5),
        "is cut off: it has 50 % of the pixels",
    ),
    "text": (b"hello", "cannot be read as a PNG"),
    "nothing": (b"", "cannot be read as a PNG"),
}


@pytest.mark.parametrize(("png", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_holds_no_ids_is_refused(png, message):
    with pytest.raises(UserError, match=message):
        mask_png.decode(png)


def test_colours_are_refused():
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).save(buffer, "PNG")
    with pytest.raises(UserError, match="holds colours"):
        mask_png.decode(buffer.getvalue())
