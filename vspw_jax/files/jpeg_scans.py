"""The scans of a JPEG, and whether all of them are there and whole.

Source of the markers: ITU-T T.81, annex B.
"""

import re

import av

from vspw_jax.console.errors import UserError

START = b"\xff\xd8"

MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
"""But for those that stand within a scan (restarts), and 255 as a number of one."""

STANDALONE = 0x01, 0xD8
"""Markers without a segment behind them, but for the end."""
PROGRESSIVE, SCAN, END = 0xC2, 0xDA, 0xD9

ONES = b"\xff\x00" * 16
"""No code of a scan is of ones alone, so a decoder that reads on into these fails."""

COEFFICIENTS = range(64)
"""Of a block."""


def check(jpeg: bytes) -> None:
    """Raises UserError where a JPEG's data ends too soon or cannot be decoded.

    OpenCV and Pillow fill with grey what is missing. FFmpeg does not, where it is asked to be strict. It makes an
    eighth of the rows and columns: all of the code is read, few pixels are made.
    """
    segments, end = _segments(jpeg)
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    decoder.options = {"err_detect": "explode", "lowres": "3"}
    try:
        # Bytes between the last scan and the end are read only where a part of that scan is missing.
        decoded = decoder.decode(av.Packet(jpeg[:end] + ONES + jpeg[end:]))
    except av.FFmpegError:
        decoded = []
    if not decoded:
        raise UserError("is damaged or cut off: its data cannot be decoded to the end")
    if not _complete(segments):
        raise UserError("is damaged or cut off: scans of it are missing")


def _segments(jpeg: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """(marker, segment behind it) of a JPEG, and where its end marker stands."""
    segments, place = list[tuple[int, bytes]](), len(START)
    while marker := MARKER.search(jpeg, place):
        kind, place = marker[1][0], marker.end()
        if kind == END:
            return segments, marker.start()
        if kind not in STANDALONE:
            length = int.from_bytes(jpeg[place : place + 2])
            segments.append((kind, jpeg[place + 2 : place + length]))
            place += length
    raise UserError("is damaged or cut off: it has no end marker")


def _complete(segments: list[tuple[int, bytes]]) -> bool:
    """Whether the scans of a progressive JPEG give every bit of every coefficient; True for other JPEGs.

    Source: FFmpeg libavcodec/mjpegdec.c, `coefs_finished`, of which it only warns.
    """
    frame = next((segment for kind, segment in segments if kind == PROGRESSIVE), None)
    if frame is None:
        return True
    missing = {(component, number) for component in frame[6::3] for number in COEFFICIENTS}
    for kind, scan in segments:
        if kind == SCAN:
            first, last, bits_left_out = scan[-3], scan[-2], scan[-1] & 15
            if not bits_left_out:
                missing -= {(component, number) for component in scan[1:-3:2] for number in range(first, last + 1)}
    return not missing
