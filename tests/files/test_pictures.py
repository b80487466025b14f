"""A frame is taken in any usual format, and refused where a part of it is missing."""

import cv2
import numpy as np
import pytest

from tests.inputs import frames
from vspw_jax.console.errors import UserError
from vspw_jax.files import pictures

WHOLE = {
    "JPEG": frames.encoded("JPEG"),
    "progressive JPEG": frames.encoded("JPEG", progressive=True),
    "JPEG of 4:4:4": frames.encoded("JPEG", subsampling=0),
    "JPEG with restarts": frames.encoded("JPEG", restart_marker_blocks=3),
    "JPEG of few pixels": frames.encoded("JPEG", size=(3, 1)),
    "bytes that look like markers before the first scan": frames.encoded("JPEG", comment=b"\xff\xd9\xff\xda\xff"),
    "bytes after the end": frames.encoded("JPEG") + b"\0\0trailing",
    "bytes before the end": frames.encoded("JPEG")[:-2] + b"\x12\x34" + frames.END,
    "two pictures of a phone": frames.encoded("MPO", save_all=True, append_images=[frames.picture()]),
    "PNG": frames.encoded("PNG"),
    "WebP": frames.encoded("WEBP"),
    "BMP": frames.encoded("BMP"),
    "TIFF": frames.encoded("TIFF"),
    "JPEG 2000": frames.encoded("JPEG2000"),
    "JPEG 2000 without its box": frames.encoded("JPEG2000", no_jp2=True),
    "PPM": frames.ppm(),
    "PPM of 16 bits": frames.ppm(65535),
    "PPM of text": frames.ppm(plain=True),
}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE.keys())
def test_whole_pictures_are_taken(data):
    width, height = pictures.check(data)
    assert pictures.size(data) == (width, height)
    np.testing.assert_array_equal(
        pictures.decode(data), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    )
    assert pictures.decode(data).shape == (height, width, 3)


@pytest.mark.parametrize("kind", ["JPEG2000", "PPM"])
def test_pictures_without_loss_are_read_as_they_were_written(kind):
    np.testing.assert_array_equal(pictures.decode(frames.encoded(kind)), np.asarray(frames.picture()))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000", "PPM"])
def test_16_bits_of_grey_are_read_with_8(kind):
    image = pictures.decode(frames.deep_grey(kind))
    np.testing.assert_allclose(image[..., 0].mean(axis=0), np.linspace(0, 255, 64), atol=1)


DAMAGED = {
    "half a JPEG": frames.half_with_end(WHOLE["JPEG"]),
    "half a progressive JPEG": frames.half_with_end(WHOLE["progressive JPEG"]),
    "half a JPEG with restarts": frames.half_with_end(WHOLE["JPEG with restarts"]),
    "JPEG but for its last hundred bytes": WHOLE["JPEG"][:-100] + frames.END,
    **{f"JPEG but for its last {count} bytes": frames.without_last_bytes(WHOLE["JPEG"], count) for count in (2, 60)},
    "JPEG with restarts but for its last bytes": frames.without_last_bytes(WHOLE["JPEG with restarts"], 20),
    "first scan of a progressive JPEG": frames.first_scan_with_end(WHOLE["progressive JPEG"]),
    "JPEG without its last bytes and end marker": WHOLE["JPEG"][:-200],
    "JPEG without end marker": WHOLE["JPEG"][: -len(frames.END)],
    "progressive JPEG without end marker": WHOLE["progressive JPEG"][: -len(frames.END)],
    "half a PNG": frames.half_png_with_end(WHOLE["PNG"]),
    "half a BMP": WHOLE["BMP"][: len(WHOLE["BMP"]) // 2],
    "half a JPEG 2000": frames.half_with_end(WHOLE["JPEG 2000"]),
    "half a PPM": WHOLE["PPM"][: len(WHOLE["PPM"]) // 2],
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_pictures_are_refused(data):
    with pytest.raises(UserError, match="is damaged or cut off"):
        pictures.check(data)
    with pytest.raises(UserError, match="is damaged or cut off"):
        pictures.decode(data)


OTHER = {
    "text": (b"hello", "cannot be read as a picture"),
    "nothing": (b"", "cannot be read as a picture"),
    "JPEG that FFmpeg alone decodes": (frames.without_table(WHOLE["JPEG"]), "^cannot be decoded$"),
    "half a WebP": (WHOLE["WebP"][: len(WHOLE["WebP"]) // 2], "cannot be read as a picture|is damaged or cut off"),
    "half a TIFF": (frames.half_tiff(), "cannot be read as a picture"),
    "TIFF of 32 bits": (frames.float_tiff(), r"has pixels of 32 bits \(mode F\), expected 8 or 16 bits a channel"),
    "PPM with another white": (frames.ppm(1023), "has a maxval of 1023, expected 255 or 65535: save it as PNG"),
    "dark PPM": (frames.ppm(100), "has a maxval of 100"),
    "GIF": (frames.encoded("GIF"), "is a GIF file, expected one of JPEG"),
    "animation": (
        frames.encoded("WEBP", save_all=True, append_images=[frames.picture(90)], lossless=True),
        "holds 2 pictures",
    ),
}


@pytest.mark.parametrize(("data", "message"), OTHER.values(), ids=OTHER.keys())
def test_what_is_no_frame_is_refused_without_words_of_libraries(capfd, data, message):
    for read in (pictures.check, pictures.decode):
        with pytest.raises(UserError, match=message):
            read(data)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "TIFF"])
def test_a_picture_that_its_exif_turns_is_shown_upright_but_not_kept(kind):
    assert pictures.check(frames.turned(kind, 1)) == (64, 48)
    for orientation, shape in ((3, (48, 64, 3)), (6, (64, 48, 3)), (8, (64, 48, 3))):
        data = frames.turned(kind, orientation)
        assert pictures.decode(data).shape == shape
        with pytest.raises(UserError, match=f"^is turned by its EXIF orientation {orientation}: save it upright, e.g."):
            pictures.check(data)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0junk"])
def test_exif_that_says_nothing_turns_nothing(exif):
    assert pictures.check(frames.encoded("JPEG", exif=exif)) == (64, 48)
    assert pictures.check(frames.turned("JPEG", 9)) == (64, 48)
