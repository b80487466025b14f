"""Video files as people bring them: of any container, cut short, mirrored, with strange clocks, or no films at all."""

import fractions
import struct

import av
import numpy as np

SIZE = 48, 64


def noise(count, size=SIZE):
    """Pictures that take so many bytes that a file can be cut in their midst."""
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)


def corners(size=SIZE):
    """A picture whose corners are red, green, blue and white: it shows how it was turned."""
    image = np.full((*size, 3), 40, np.uint8)
    height, width = size[0] // 2, size[1] // 2
    image[:height, :width], image[:height, width:] = (220, 30, 30), (30, 200, 30)
    image[height:, :width], image[height:, width:] = (30, 30, 220), (230, 230, 230)
    return image


def film(path, images, times=None, unit=fractions.Fraction(1, 10), codec="libx264", streams=1, **options):
    """A film at ten frames a second, or with these times; every stream of it shows the same.

    Its container is that of the path's suffix.
    """
    with av.open(f"file:{path}", "w", options=options) as container:
        made = [container.add_stream(codec, rate=10) for _ in range(streams)]
        for stream in made:
            stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], "yuv420p"
            stream.codec_context.time_base = unit
            if codec == "libx264":
                stream.codec_context.max_b_frames = 0  # So that no time has to be moved.
        for number, image in enumerate(images):
            for stream in made:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pts, frame.time_base = times[number] if times else number, unit
                container.mux(stream.encode(frame))
        for stream in made:
            container.mux(stream.encode())
    return path


def cut(path, share):
    """Leaves the first part of a file."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def with_hole(path, start=0.5, share=0.2):
    """A part of a file, that begins at this share of it, as zero bytes: a download whose middle did not come."""
    content = bytearray(path.read_bytes())
    first, length = int(start * len(content)), int(share * len(content))
    content[first : first + length] = bytes(length)
    path.write_bytes(content)
    return path


def with_wrong_bytes(path, count=6):
    """Some bytes of the middle half of a file are others."""
    content = bytearray(path.read_bytes())
    for place in np.random.default_rng(0).integers(len(content) // 4, len(content) * 3 // 4, count):
        content[place] ^= 0xFF
    path.write_bytes(content)
    return path


def shown_through(path, a, b, c, d):
    """Writes the matrix (ISO 14496-12, tkhd, version 0) through which an MP4 file is to be shown."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 4 + 36  # Name, version and flags, then 36 bytes up to the matrix.
    fixed = [round(number * (1 << 16)) for number in (a, b, c, d)]
    content[start : start + 36] = struct.pack(">9i", *fixed[:2], 0, *fixed[2:], 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def shortened_by_edit_list(path, first, seconds):
    """Has an MP4 file show so many seconds from a time on, given in its track's unit; the rest stays in it."""
    content = bytearray(path.read_bytes())
    start = content.index(b"elst") + 4 + 4 + 4  # Name, version and flags, number of entries.
    content[start : start + 8] = struct.pack(">Ii", seconds * 1000, first)
    path.write_bytes(content)
    return path


def sound(path):
    """A second of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def song_with_cover(path):
    """Sound, and a picture that is no film."""
    with av.open(str(path), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = *SIZE, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(cover.encode(av.VideoFrame.from_ndarray(corners(), format="rgb24")))
        container.mux(cover.encode())
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
