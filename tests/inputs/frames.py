"""Frames as files that are damaged, of unusual formats, or of unusual names."""

import io

import numpy as np
from PIL import ExifTags, Image

END = b"\xff\xd9"
"""A JPEG's end marker."""
SCAN = b"\xff\xda"
"""The marker at the start of a JPEG's scan."""


def picture(level=0, size=(64, 48)):
    """A picture in which every pixel differs from its neighbours; `size` is width and height."""
    noise = np.random.default_rng(level).integers(0, 100, (*size[::-1], 3))
    return Image.fromarray((noise + level).astype(np.uint8))


def encoded(kind, level=0, size=(64, 48), **options):
    """The bytes of a file of a format of Pillow's."""
    buffer = io.BytesIO()
    picture(level, size).save(buffer, kind, **options)
    return buffer.getvalue()


def turned(kind, orientation, size=(64, 48)):
    """A picture that its EXIF says to turn, as phones save them."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(kind, size=size, exif=exif)


def half_with_end(jpeg):
    """A JPEG of which the second half is missing, but not the end marker: a download that was put together wrongly."""
    return jpeg[: len(jpeg) // 2] + END


def without_last_bytes(jpeg, count):
    """A JPEG whose last bytes before the end marker are missing."""
    return jpeg[: -len(END) - count] + END


def first_scan_with_end(progressive_jpeg):
    """A JPEG of which all scans but the first are missing: the whole picture is there, but blurred."""
    return progressive_jpeg[: progressive_jpeg.index(SCAN, progressive_jpeg.index(SCAN) + 1)] + END


def without_table(jpeg):
    """A JPEG without its first table of quantisation: FFmpeg decodes it with none, libjpeg refuses it."""
    return jpeg.replace(b"\xff\xdb", b"\xff\xef", 1)


def half_png_with_end(png):
    """A PNG of whose rows the second half is missing, with whole chunks."""
    from tests.inputs.masks import chunk

    start = png.index(b"IDAT") - 4
    length = int.from_bytes(png[start : start + 4], "big")
    return png[:start] + chunk(b"IDAT", png[start + 8 : start + 8 + length // 2]) + chunk(b"IEND", b"")


def half_tiff():
    """A TIFF without its second half, and so without its list of tags, which stands at the end: Pillow warns of it."""
    tiff = encoded("TIFF", compression="tiff_lzw")
    return tiff[: len(tiff) // 2]


def ppm(white=255, plain=False):
    """A PPM in which that value is white, of bytes, of two bytes each where that is more than 255, or of text."""
    values = np.asarray(picture()) * (white / 255)
    start = f"{'P3' if plain else 'P6'}\n# a comment\n64 48\n{white}\n".encode()
    if plain:
        return start + "\n".join(str(round(value)) for value in values.ravel()).encode() + b"\n"
    return start + values.round().astype(">u2" if white > 255 else "u1").tobytes()


def float_tiff():
    """A TIFF of 32 bits a pixel, as measuring instruments write it."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).random((48, 64), np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


def deep_grey(kind, size=(64, 48)):
    """A picture of 16 bits of grey, black on the left to white on the right, as thermal cameras write it."""
    ramp = np.broadcast_to(np.linspace(0, 65535, size[0]).astype(np.uint16), size[::-1])
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, kind)
    return buffer.getvalue()


def write(folder, names, kind="JPEG", size=(64, 48)):
    """Writes a picture under each name, of growing brightness."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(encoded(kind, 10 * number, size))


def folder_of_a_frames_name(folder, name):
    """A folder that has the name of a frame, as some programs unpack archives."""
    (folder / name).mkdir(parents=True)
    write(folder / name, ["inner.jpg"])


def vspw_video(source, split, frames, kind="JPEG", masks=True, video="9_new"):
    """Adds a video to a split of a folder in VSPW's layout; `frames` are files' names, their masks have class 1."""
    folder = source / "data" / video
    write(folder / "origin", frames, kind)
    if masks:
        (folder / "mask").mkdir()
        for name in frames:
            stem = name.rpartition(".")[0]
            Image.fromarray(np.ones((48, 64), np.uint8)).save(folder / "mask" / f"{stem}.png")
    with (source / f"{split}.txt").open("a") as file:
        file.write(f"{video}\n")
    return folder
