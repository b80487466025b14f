"""Frames from a video file or a folder, and frames into a video file."""

import contextlib
import pathlib

import av
import cv2

from vspw_jax.errors import UserError
from vspw_jax.whole_files import whole_file

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
DEFAULT_RATE = 15
"""Frames a second of a folder of frames: VSPW's."""


def _folder_frames(folder):
    paths = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not paths:
        raise UserError(f"{folder} holds no frames: expected files ending in {', '.join(IMAGE_SUFFIXES)}.")

    def read():
        for path in paths:
            image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
            if image is None:
                raise UserError(f"{path} cannot be read as a picture.")
            yield path.stem, image

    return read(), len(paths), DEFAULT_RATE


def _file_frames(path):
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate, count = float(stream.average_rate or DEFAULT_RATE), stream.frames or None
    except (av.FFmpegError, IndexError) as error:
        raise UserError(f"{path} cannot be read as a video: {error}") from error

    def read():
        number = 0
        try:
            with av.open(str(path)) as container:
                for number, frame in enumerate(container.decode(video=0), start=1):
                    yield f"{number:08d}", frame.to_ndarray(format="rgb24")
        except av.FFmpegError as error:
            raise UserError(f"{path} cannot be read after frame {number}: {error}") from error
        if not number:
            raise UserError(f"{path} holds no frames.")

    return read(), count, rate


def read_frames(source):
    """The frames of a video file, or of a folder of pictures in the order of their names.

    Returns:
      (iterator of (name, (H, W, 3) uint8 RGB), number of frames or None if unknown, frames a second).

    Raises:
      UserError: there is no such file or folder, or nothing in it can be read.
    """
    source = pathlib.Path(source)
    if not source.exists():
        raise UserError(f"{source} does not exist: expected a video file or a folder of frames in --input.")
    return _folder_frames(source) if source.is_dir() else _file_frames(source)


@contextlib.contextmanager
def video_writer(path, rate):
    """Gives a function that appends a frame (H, W, 3) uint8 RGB to an H.264 file.

    The first frame fixes the size, less a row or column where it is odd; others are scaled to it. The file takes its
    name when it is whole.
    """
    with whole_file(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=max(round(rate), 1), options={"crf": "18"})
        stream.pix_fmt = "yuv420p"

        def append(image_HWC):
            if not stream.codec_context.is_open:
                stream.height, stream.width = (side // 2 * 2 for side in image_HWC.shape[:2])
            if image_HWC.shape[:2] != (stream.height, stream.width):
                image_HWC = cv2.resize(image_HWC, (stream.width, stream.height))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image_HWC, format="rgb24")))

        yield append
        container.mux(stream.encode())
