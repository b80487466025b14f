"""Frames out of video files, and frames into them, each at its time.

What a file says about itself is often wrong at its end. All that can be decoded is read; sentences say what cannot.
"""

import collections
import contextlib
import fractions
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from vspw_jax.console.errors import UserError
from vspw_jax.files.whole_files import whole_file

DEFAULT_RATE = 15
"""Frames a second where nothing states them: VSPW's."""
MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
"""FFmpeg's name of the format, and of MOV."""
STATE_DURATION = ("matroska,webm", MP4, "flv", "asf")
"""Containers whose header states a duration. FFmpeg estimates that of others from what is there."""
STEP_BACK, STEP_FORWARD = 1, 3600
"""Seconds: where times step further, a clock was set anew between two frames."""
EVEN = 0.9
"""Of the steps from frame to frame, where a film has a rate that its gaps can be told by."""
FINEST_UNIT = fractions.Fraction(1, 90000)
"""Seconds: MPEG's. An MP4 file counts the units between two frames in 32 bits."""

Picture = UInt8[np.ndarray, "H W 3"]
"""RGB."""


def _open(path: pathlib.Path) -> tuple[av.container.InputContainer, av.VideoStream]:
    """The file and its first stream of moving pictures; a song's cover is none."""
    try:
        container = av.open(_url(path))
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path} cannot be read as a video: {error.strerror or error}.") from error
    if container.format.name == "tty":  # FFmpeg shows the letters of a text file, if it finds nothing else in it.
        container.close()
        raise UserError(f"{path} cannot be read as a video: it is a text file.")
    streams = _films(container)
    if not streams:
        kinds = sorted({"cover picture" if stream.type == "video" else stream.type for stream in container.streams})
        container.close()
        raise UserError(f"{path} cannot be read as a video: it has no video stream, only {', '.join(kinds) or 'none'}.")
    return container, streams[0]


def _url(path: pathlib.Path) -> str:
    """The path as FFmpeg cannot take it for anything else: `concat:a.mp4` may be a file's name."""
    return f"file:{path}"


def _films(container: av.container.InputContainer) -> list[av.VideoStream]:
    still = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & still]


def describe(path: pathlib.Path) -> tuple[int | None, fractions.Fraction, fractions.Fraction]:
    """(number of frames or None if it is not stated, frames a second, unit of time in seconds).

    Raises:
      UserError: it is no video.
    """
    container, stream = _open(path)
    with container:
        rate = fractions.Fraction(stream.average_rate or DEFAULT_RATE)
        return stream.frames or None, rate, fractions.Fraction(stream.time_base or 1 / rate)


def _upright(frame: av.VideoFrame, path: pathlib.Path) -> Picture:
    """The pixels as they are meant to be seen: phones store how they were held, and front cameras mirror.

    The matrix takes column x and row y to x' = a x + c y, y' = b x + d y (ISO 14496-12, tkhd).
    """
    image = frame.to_ndarray(format="rgb24")
    beside: Any = frame.side_data  # Its types say that it is a mapping of strings to anything.
    matrix = beside.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    (a, b), (c, d) = np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)[:2, :2].tolist()
    most = max(map(abs, (a, b, c, d)))
    is_zero = lambda *numbers: all(abs(number) < most / 100 for number in numbers)
    if is_zero(b, c) and not is_zero(a) and not is_zero(d):
        across, down = a, d
    elif is_zero(a, d) and not is_zero(b) and not is_zero(c):
        image, across, down = image.swapaxes(0, 1), c, b
    else:
        shown = [round(number / (1 << 16), 3) for number in (a, b, c, d)]
        raise UserError(
            f"{path} is to be shown through the matrix {shown}, which is neither a turn by 90, 180 or 270 degrees nor "
            "a mirror image. Encode it as it is to be seen, for instance with ffmpeg, and predict that file."
        )
    return np.ascontiguousarray(image[:: 1 if down > 0 else -1, :: 1 if across > 0 else -1])


def _decoded(path: pathlib.Path, complaints: list[str]) -> Iterator[av.VideoFrame]:
    """Frames of a file without the packets that cannot be decoded.

    `complaints` gets sentences on how many these are, on frames that the decoder mended, and that the file breaks off.
    """
    container, stream = _open(path)
    read, whole, damaged, incomplete, mended, end = 0, 0, 0, 0, 0, fractions.Fraction(0)
    with container:
        if (several := len(_films(container))) > 1:
            complaints.append(f"It holds {several} video streams: only the first was read.")
        packets = container.demux()
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.FFmpegError as error:
                complaints.append(f"It breaks off: {error.strerror}.")
                break
            if packet.pts is not None and packet.time_base:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream.index != stream.index:
                continue
            whole += packet.size > 0 and not packet.is_discard
            incomplete += packet.is_corrupt
            try:
                for frame in stream.decode(packet):
                    read += 1
                    mended += frame.is_corrupt
                    yield frame
            except av.FFmpegError:
                damaged += 1
        missing = _missing(container, stream, end, read, whole)
    if damaged:
        complaints.append(f"{damaged} of its packets could not be decoded and were left out.")
    if incomplete:
        complaints.append(f"{incomplete} of its packets are incomplete.")
    if missing:
        complaints.append(missing)
    if mended:
        complaints.append(f"{mended} of its frames are damaged: the decoder filled in what it could not read of them.")


def _missing(
    container: av.container.InputContainer, stream: av.VideoStream, end: fractions.Fraction, read: int, whole: int
) -> str:
    """A sentence about a file that holds less than its header says; "" where it does not.

    Args:
      end: of the last packet, in seconds.
      read: how many frames could be read, of
      whole: so many packets.
    """
    period = 1 / fractions.Fraction(stream.average_rate or DEFAULT_RATE)
    stated = fractions.Fraction(container.duration or 0, av.time_base)
    if stream.frames:
        # An edit list shows only a part of the frames; then all packets of the part are there, up to its end.
        own = stream.duration * stream.time_base if stream.duration and stream.time_base else stated
        is_part = container.format.name == MP4 and read >= whole and end >= own - period / 2
        is_short = read < stream.frames and not is_part
        return f"{read} frames could be read; its header announces {stream.frames}." if is_short else ""
    # The last frame need not say how long it is shown.
    is_short = container.format.name in STATE_DURATION and end < stated - 3 * period
    return f"It ends at {float(end):.2f} s; its header announces {float(stated):.2f} s." if is_short else ""


def _timed(
    frames: Iterator[av.VideoFrame], rate: fractions.Fraction, unit: fractions.Fraction, complaints: list[str]
) -> Iterator[tuple[av.VideoFrame, int]]:
    """The frames and their times, which begin at 0 and always grow.

    Where a clock was set anew, as in broadcasts and in files put together of several, times go on as if it was not.
    """
    period, time, resets = max(round(1 / rate / unit), 1), -1, 0
    origin: int | None = None
    for frame in frames:
        own = time + period if time >= 0 else 0
        if frame.pts is not None:
            step = (frame.pts - origin - time) * unit if origin is not None else fractions.Fraction(0)
            is_reset = time >= 0 and not -STEP_BACK <= step <= max(fractions.Fraction(STEP_FORWARD), 3 * period * unit)
            if origin is None or is_reset:
                resets += is_reset
                origin = frame.pts - own
            own = frame.pts - origin
        time = max(own, time + 1)
        yield frame, time
    if resets:
        complaints.append(f"Its clock jumps {resets} times; the times of its frames go on without the jumps.")


def _skipped(steps: collections.Counter[int]) -> int:
    """How many frames are missing between others, by the steps of their times; 0 where these tell of no rate."""
    usual = max(steps, key=steps.__getitem__, default=1)
    even = collections.Counter({step: count for step, count in steps.items() if round(step / usual) == 1})
    if even.total() < max(EVEN * steps.total(), 1):
        return 0
    period = sum(even.elements()) / even.total()
    return sum(count * (round(step / period) - 1) for step, count in steps.items() if step > period)


def read(path: pathlib.Path, complaints: list[str]) -> Iterator[tuple[str, Picture, int]]:
    """Yields (name, picture, time) of the frames of a video file, turned upright.

    Names count from 00000001; times are in `describe`'s unit, begin at 0 and always grow.

    Args:
      complaints: a list that gets sentences about what could not be read.

    Raises:
      UserError: no frame can be decoded, or they are to be shown as no camera is held.
    """
    stated, rate, unit = describe(path)
    number, last, steps = 0, 0, collections.Counter[int]()
    for number, (frame, time) in enumerate(_timed(_decoded(path, complaints), rate, unit, complaints), start=1):
        yield f"{number:08d}", _upright(frame, path), time
        if number > 1:
            steps[time - last] += 1
        last = time
    if not stated and (skipped := _skipped(steps)):  # Else the number of frames says what is missing.
        complaints.append(
            f"By their times, {skipped} frames are missing between those that could be read, "
            "unless it was recorded at a changing rate."
        )
    if not number:
        raise UserError(f"{path} holds no frame that can be decoded. {' '.join(complaints)}".strip())


def _fit(image_HWC: Picture, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """The picture at another size: cut where it is at most one row and column too large, else scaled, with grey around.

    Its proportions stay.
    """
    own = image_HWC.shape[:2]
    if 0 <= own[0] - height <= 1 and 0 <= own[1] - width <= 1:
        return np.ascontiguousarray(image_HWC[:height, :width])
    factor = min(height / own[0], width / own[1])
    rows, columns = (max(round(side * factor), 1) for side in own)
    top, left = (height - rows) // 2, (width - columns) // 2
    result = np.full((height, width, 3), 128, np.uint8)
    result[top : top + rows, left : left + columns] = cv2.resize(image_HWC, (columns, rows))
    return result


@contextlib.contextmanager
def video_writer(
    path: pathlib.Path | str, rate: fractions.Fraction | float, unit: fractions.Fraction | None = None
) -> Iterator[Callable[..., None]]:
    """Gives a function (picture, time=None) that appends to an H.264 file.

    The first picture sets the size; H.264 needs even sides, so an odd side loses a row or column. Other pictures are
    scaled into that size. Times are whole multiples of `unit` seconds and must grow; pictures without a time are 1/rate
    apart. The file takes its name when it is whole.
    """
    rate = fractions.Fraction(rate).limit_denominator(1001)
    unit = fractions.Fraction(unit or 1 / rate)
    own_unit = max(unit, FINEST_UNIT)
    with whole_file(path) as partial, av.open(_url(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=max(rate, fractions.Fraction(1)), options={"crf": "18"})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = own_unit
        count, last = 0, -1

        def append(image_HWC: Picture, time: int | None = None) -> None:
            nonlocal count, last
            if not stream.codec_context.is_open:
                stream.height, stream.width = (max(side // 2 * 2, 2) for side in image_HWC.shape[:2])
            frame = av.VideoFrame.from_ndarray(_fit(image_HWC, stream.height, stream.width), format="rgb24")
            seconds = count / rate if time is None else time * unit
            last = max(round(seconds / own_unit), last + 1)
            frame.pts, frame.time_base = last, own_unit
            count += 1
            container.mux(stream.encode(frame))

        yield append
        if count:
            container.mux(stream.encode())
