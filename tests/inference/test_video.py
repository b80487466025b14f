"""Frames in and out of folders and video files."""

import cv2
import numpy as np
import pytest

from vspw_jax.errors import UserError
from vspw_jax.inference import video


def moving_square(frames, height, width):
    images = np.full((frames, height, width, 3), 40, np.uint8)
    for number in range(frames):
        images[number, 8:24, 2 * number : 2 * number + 16] = (200, 60, 30)
    return images


def write(path, images, rate=10):
    with video.video_writer(path, rate) as append:
        for image in images:
            append(image)


@pytest.mark.parametrize("size", [(48, 64), (49, 65)], ids=["even", "odd"])
def test_a_video_file_gives_back_its_frames(tmp_path, size):
    images = moving_square(12, *size)
    write(tmp_path / "a.mp4", images)
    frames, count, rate = video.read_frames(tmp_path / "a.mp4")
    names, read = zip(*frames, strict=True)
    assert (count, rate, names[0], names[-1]) == (12, 10.0, "00000001", "00000012")
    assert read[0].shape == (48, 64, 3)
    # H.264 at quality 18 with halved colour resolution: right but for edges.
    difference = np.abs(np.stack(read).astype(int) - images[:, :48, :64])
    assert np.median(difference) <= 4 and difference.mean() < 8


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path):
    write(tmp_path / "a.mp4", [np.zeros((48, 64, 3), np.uint8), np.zeros((96, 80, 3), np.uint8)])
    frames, _, _ = video.read_frames(tmp_path / "a.mp4")
    assert [image.shape for _, image in frames] == [(48, 64, 3)] * 2


def test_a_folder_is_read_in_order_of_names(tmp_path):
    for name in ("00000012.jpg", "00000003.jpg", "00000007.png"):
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), int(name[6:8]) * 10, np.uint8))
    (tmp_path / "._00000001.jpg").write_bytes(b"junk")
    (tmp_path / "notes.txt").write_text("no frame")
    frames, count, rate = video.read_frames(tmp_path)
    assert count == 3 and rate == 15
    assert [(name, int(image[0, 0, 0])) for name, image in frames] == [
        ("00000003", 30),
        ("00000007", 70),
        ("00000012", 120),
    ]


def test_colours_are_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((8, 8, 3), (0, 0, 255), np.uint8))
    frames, _, _ = video.read_frames(tmp_path)
    assert next(frames)[1][0, 0].tolist() == [255, 0, 0]


def test_nothing_to_read_says_what_was_expected(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        video.read_frames(tmp_path / "missing.mp4")
    with pytest.raises(UserError, match="holds no frames.*jpg"):
        video.read_frames(tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    with pytest.raises(UserError, match="broken.mp4 cannot be read as a video"):
        video.read_frames(tmp_path / "broken.mp4")
    (tmp_path / "broken.mp4").rename(tmp_path / "broken.jpg")
    with pytest.raises(UserError, match="broken.jpg cannot be read"):
        next(video.read_frames(tmp_path)[0])


def test_an_interrupted_video_leaves_no_file_of_that_name(tmp_path):
    with pytest.raises(KeyboardInterrupt), video.video_writer(tmp_path / "a.mp4", 10) as append:
        append(np.zeros((16, 16, 3), np.uint8))
        raise KeyboardInterrupt
    assert not (tmp_path / "a.mp4").exists()
