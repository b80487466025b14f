"""Frames in and out of video files: sizes, times, rotation, damage."""

import fractions
import struct

import av
import numpy as np
import pytest

from vspw_jax.console.errors import UserError
from vspw_jax.inference import video


def moving_square(frames, height, width):
    images = np.full((frames, height, width, 3), 40, np.uint8)
    for number in range(frames):
        images[number, 8:24, 2 * number : 2 * number + 16] = (200, 60, 30)
    return images


def write(path, images, rate=10, times=None, unit=None):
    with video.video_writer(path, rate, unit) as append:
        for number, image in enumerate(images):
            append(image, times and times[number])


def read(path):
    """(names, images, times, complaints)."""
    complaints = []
    return *zip(*video.read(path, complaints), strict=True), complaints


@pytest.mark.parametrize("size", [(48, 64), (49, 65)], ids=["even", "odd"])
def test_a_video_file_gives_back_its_frames(tmp_path, size):
    images = moving_square(12, *size)
    write(tmp_path / "a.mp4", images)
    names, found, times, complaints = read(tmp_path / "a.mp4")
    count, rate, unit = video.describe(tmp_path / "a.mp4")
    assert (count, rate, names[0], names[-1], complaints) == (12, 10, "00000001", "00000012", [])
    assert [time * unit for time in times] == [fractions.Fraction(number, 10) for number in range(12)]
    assert found[0].shape == (48, 64, 3)
    # H.264 at quality 18 with halved colour resolution: right but for edges.
    difference = np.abs(np.stack(found).astype(int) - images[:, :48, :64])
    assert np.median(difference) <= 4 and difference.mean() < 8


def test_frames_keep_their_times_when_the_rate_varies(tmp_path):
    unit, times = fractions.Fraction(1, 1000), [0, 33, 67, 300, 301, 1200, 1233]
    write(tmp_path / "a.mp4", moving_square(7, 48, 64), times=times, unit=unit)
    _, _, found, _ = read(tmp_path / "a.mp4")
    assert [time * video.describe(tmp_path / "a.mp4")[2] for time in found] == [time * unit for time in times]


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path):
    write(tmp_path / "a.mp4", [np.zeros((48, 64, 3), np.uint8), np.zeros((96, 80, 3), np.uint8)])
    assert [image.shape for image in read(tmp_path / "a.mp4")[1]] == [(48, 64, 3)] * 2


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_phones_rotation_is_undone(tmp_path, turns):
    """The file's matrix (ISO 14496-12, tkhd) says how to turn what it stores; nothing else in it changes."""
    path, image = tmp_path / "a.mp4", moving_square(1, 48, 64)[0]
    write(path, [np.rot90(image, -turns)] * 3)
    content = bytearray(path.read_bytes())
    cos, sin = [(1, 0), (0, -1), (-1, 0), (0, 1)][turns]
    # Version 0: box name, version and flags, then 36 bytes up to the matrix.
    start = content.index(b"tkhd") + 4 + 4 + 36
    content[start : start + 36] = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    found = read(path)[1]
    assert found[0].shape == image.shape
    assert np.median(np.abs(found[0].astype(int) - image)) <= 4
    assert np.abs(found[0][10:22, 2:14].astype(int) - (200, 60, 30)).mean() < 20


def long_video(path):
    """120 frames of noise, whose index stands before them: it can be opened when its end is missing."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in rng.integers(0, 256, (120, 48, 64, 3), np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def test_what_can_be_decoded_of_a_file_cut_off_is_read_and_the_rest_is_said(tmp_path):
    path = tmp_path / "a.mp4"
    long_video(path)
    whole = read(path)
    assert len(whole[0]) == 120 and not whole[3]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    names, images, _, complaints = read(path)
    assert 40 <= len(names) < 120
    np.testing.assert_array_equal(images[:40], whole[1][:40])
    assert f"{len(names)} frames could be read; its header announces 120." in complaints


def test_damaged_packets_are_left_out(tmp_path):
    path = tmp_path / "a.mp4"
    long_video(path)
    content = bytearray(path.read_bytes())
    content[20000:28000] = np.random.default_rng(1).integers(0, 256, 8000, np.uint8).tobytes()
    path.write_bytes(content)
    names, _, times, complaints = read(path)
    assert 100 <= len(names) < 120 and times == tuple(sorted(set(times)))
    assert complaints[0].endswith("of its packets could not be decoded and were left out.")
    assert complaints[1] == f"{len(names)} frames could be read; its header announces 120."


def test_a_file_that_is_no_video(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    with pytest.raises(UserError, match="broken.mp4 cannot be read as a video"):
        video.describe(tmp_path / "broken.mp4")


def test_a_video_of_which_nothing_can_be_decoded(tmp_path):
    path = tmp_path / "a.mp4"
    long_video(path)
    content = path.read_bytes()
    start = content.index(b"mdat") + 4
    path.write_bytes(content[:start] + bytes(len(content) - start))
    with pytest.raises(UserError, match="holds no frame that can be decoded"):
        read(path)


def test_an_interrupted_video_leaves_no_file_of_that_name(tmp_path):
    with pytest.raises(KeyboardInterrupt), video.video_writer(tmp_path / "a.mp4", 10) as append:
        append(np.zeros((16, 16, 3), np.uint8))
        raise KeyboardInterrupt
    assert not (tmp_path / "a.mp4").exists()
