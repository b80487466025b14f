"""Frames out of video files, and frames into them, each at its time.

What a file says about itself is often wrong at its end. All that can be decoded is read; sentences say what cannot.
"""

import contextlib
import fractions
import pathlib
from collections.abc import Callable, Iterator

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from vspw_jax.console.errors import UserError
from vspw_jax.files.whole_files import whole_file

DEFAULT_RATE = 15
"""Frames a second where nothing states them: VSPW's."""

Picture = UInt8[np.ndarray, "H W 3"]
"""RGB."""


def _open(path: pathlib.Path) -> tuple[av.container.InputContainer, av.VideoStream]:
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path} cannot be read as a video: {error}") from error
    if not container.streams.video:
        container.close()
        raise UserError(f"{path} cannot be read as a video: it has no video stream.")
    return container, container.streams.video[0]


def describe(path: pathlib.Path) -> tuple[int | None, fractions.Fraction, fractions.Fraction]:
    """(number of frames or None if it is not stated, frames a second, unit of time in seconds).

    Raises:
      UserError: it is no video.
    """
    container, stream = _open(path)
    with container:
        rate = fractions.Fraction(stream.average_rate or DEFAULT_RATE)
        return stream.frames or None, rate, fractions.Fraction(stream.time_base or 1 / rate)


def _upright(frame: av.VideoFrame) -> Picture:
    """The pixels as they are meant to be seen: phones store how they were held."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def _decoded(path: pathlib.Path, complaints: list[str]) -> Iterator[av.VideoFrame]:
    """Frames of a file without the packets that cannot be decoded.

    `complaints` gets sentences on how many these are, and that the file breaks off.
    """
    container, stream = _open(path)
    damaged = 0
    with container:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.FFmpegError as error:
                complaints.append(f"It breaks off: {error.strerror}.")
                break
            try:
                yield from packet.decode()
            except av.FFmpegError:
                damaged += 1
    if damaged:
        complaints.append(f"{damaged} of its packets could not be decoded and were left out.")


def read(path: pathlib.Path, complaints: list[str]) -> Iterator[tuple[str, Picture, int]]:
    """Yields (name, picture, time) of the frames of a video file, turned upright.

    Names count from 00000001; times are in `describe`'s unit and always grow.

    Args:
      complaints: a list that gets sentences about what could not be read.

    Raises:
      UserError: no frame can be decoded.
    """
    stated, rate, unit = describe(path)
    number, time = 0, None
    for number, frame in enumerate(_decoded(path, complaints), start=1):
        own = frame.pts if frame.pts is not None else round((number - 1) / rate / unit)
        time = own if time is None else max(own, time + 1)
        yield f"{number:08d}", _upright(frame), time
    if not number:
        raise UserError(f"{path} holds no frame that can be decoded. {' '.join(complaints)}".strip())
    if stated and number < stated:
        complaints.append(f"{number} frames could be read; its header announces {stated}.")


def _fit(image_HWC: Picture, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """The picture at another size: cut where it is at most one row and column too large, else scaled."""
    own = image_HWC.shape[:2]
    if 0 <= own[0] - height <= 1 and 0 <= own[1] - width <= 1:
        return np.ascontiguousarray(image_HWC[:height, :width])
    return cv2.resize(image_HWC, (width, height))


@contextlib.contextmanager
def video_writer(
    path: pathlib.Path | str, rate: fractions.Fraction | float, unit: fractions.Fraction | None = None
) -> Iterator[Callable[..., None]]:
    """Gives a function (picture, time=None) that appends to an H.264 file.

    The first picture sets the size; H.264 needs even sides, so an odd side loses a row or column. Other pictures are
    scaled to that size. Times are whole multiples of `unit` seconds and must grow; pictures without a time are 1/rate
    apart. The file takes its name when it is whole.
    """
    rate = fractions.Fraction(rate).limit_denominator(1001)
    unit = fractions.Fraction(unit or 1 / rate)
    with whole_file(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=max(rate, fractions.Fraction(1)), options={"crf": "18"})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = unit
        count = 0

        def append(image_HWC: Picture, time: int | None = None) -> None:
            nonlocal count
            if not stream.codec_context.is_open:
                stream.height, stream.width = (max(side // 2 * 2, 2) for side in image_HWC.shape[:2])
            frame = av.VideoFrame.from_ndarray(_fit(image_HWC, stream.height, stream.width), format="rgb24")
            frame.pts, frame.time_base = round(count / rate / unit) if time is None else time, unit
            count += 1
            container.mux(stream.encode(frame))

        yield append
        if count:
            container.mux(stream.encode())
