"""Frames in and out of video files: sizes, times, rotation, damage."""

import fractions
import pathlib
import re
import types

import av
import numpy as np
import pytest

from tests.inputs import films
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


def test_frames_of_another_size_are_scaled_into_the_first(tmp_path):
    write(tmp_path / "a.mp4", [np.zeros((48, 64, 3), np.uint8), np.zeros((96, 64, 3), np.uint8)])
    first, second = read(tmp_path / "a.mp4")[1]
    assert first.shape == second.shape == (48, 64, 3)
    assert second[:, 18:46].max() < 60 and second[:, :14].min() > 100 and second[:, 50:].min() > 100


MATRICES = {  # a, b, c, d, and what the picture is then: rows that go down and columns that go to the right, or not.
    "as it is": ((1, 0, 0, 1), lambda image: image),
    "turned left": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "turned round": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "turned right": ((0, 1, -1, 0), lambda image: np.rot90(image, 3)),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "rows as columns": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    "mirrored and turned": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize(("matrix", "expected"), MATRICES.values(), ids=MATRICES.keys())
def test_turns_and_mirrors_of_a_file_are_those_of_its_frames(tmp_path, matrix, expected):
    path = films.shown_through(films.film(tmp_path / "a.mp4", [films.corners()] * 2), *matrix)
    found, expected = read(path)[1][0], expected(films.corners())
    assert found.shape == expected.shape
    assert np.median(np.abs(found.astype(int) - expected)) <= 6


@pytest.mark.parametrize("matrix", [(0.7, 0.7, -0.7, 0.7), (1, 0.5, 0, 1), (0, 0, 0, 0), (1, 0, 0, 0)])
def test_a_slanted_picture_is_refused(tmp_path, matrix):
    path = films.shown_through(films.film(tmp_path / "a.mp4", [films.corners()] * 2), *matrix)
    with pytest.raises(UserError, match=r"a.mp4 is to be shown through the matrix .* neither a turn by 90, 180 or 270"):
        read(path)


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_a_file_without_a_number_of_frames_that_is_cut_off(tmp_path, suffix):
    codec = {"mkv": "libx264", "webm": "libvpx"}[suffix]
    path = films.film(tmp_path / f"a.{suffix}", films.noise(40), codec=codec)
    assert video.describe(path)[0] is None
    names, *_, complaints = read(path)
    assert (len(names), complaints) == (40, [])
    names, *_, complaints = read(films.cut(path, 0.6))
    assert 10 < len(names) < 35
    assert any(re.fullmatch(r"It ends at [123]\.\d\d s; its header announces 4\.0\d s\.", said) for said in complaints)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "avi"])
def test_a_file_with_a_number_of_frames_that_is_cut_off(tmp_path, suffix):
    path = films.film(tmp_path / f"a.{suffix}", films.noise(40), **({} if suffix == "avi" else FIRST))
    assert read(path)[3] == []
    names, *_, complaints = read(films.cut(path, 0.6))
    assert 10 < len(names) < 35
    assert f"{len(names)} frames could be read; its header announces 40." in complaints


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "libx264"), ("webm", "libvpx"), ("ts", "libx264")])
def test_frames_that_are_missing_in_the_middle_are_counted(tmp_path, suffix, codec):
    path = films.film(tmp_path / f"a.{suffix}", films.noise(40), codec=codec)
    assert read(path)[3] == []
    names, *_, complaints = read(films.with_hole(path))
    assert 25 < len(names) < 35
    said = f"By their times, {40 - len(names)} frames are missing between those that could be read, "
    assert f"{said}unless it was recorded at a changing rate." in complaints


def test_gaps_of_a_film_without_a_rate_are_no_missing_frames(tmp_path):
    times = np.random.default_rng(0).integers(1, 9, 40).cumsum().tolist()
    assert read(films.film(tmp_path / "a.mkv", films.noise(40), times))[3] == []


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi"])
def test_frames_that_the_decoder_mends_are_counted(tmp_path, suffix):
    path = films.with_wrong_bytes(films.film(tmp_path / f"a.{suffix}", films.noise(40)))
    names, *_, complaints = read(path)
    assert len(names) == 40
    (said,) = complaints
    assert re.fullmatch(
        r"[1-6] of its frames are damaged: the decoder filled in what it could not read of them\.", said
    )


FIRST = {"movflags": "faststart"}
"""The index stands before the frames, so that a file can be opened when its end is missing."""


@pytest.mark.parametrize(("suffix", "seconds"), [("mkv", 80000), ("mkv", 3), ("ts", 80000), ("ts", -2)])
def test_times_begin_at_0(tmp_path, suffix, seconds):
    times = [10 * seconds + number for number in (0, 1, 2, 9)]
    path = films.film(tmp_path / f"a.{suffix}", films.noise(4), times, avoid_negative_ts="disabled")
    found, unit = read(path)[2], video.describe(path)[2]
    np.testing.assert_allclose([float(time * unit) for time in found], [0, 0.1, 0.2, 0.9], atol=1e-3)


@pytest.mark.parametrize("jump", [-500, 800_000])
def test_times_go_on_where_a_clock_was_set_anew(tmp_path, jump):
    """As in recordings of broadcasts. The frames come as packets of a file could not be muxed so."""
    frame = lambda pts: types.SimpleNamespace(pts=pts)
    complaints = []
    pts = [1000, 1001, 1001, None, 1003 + jump, 1004 + jump, 1014 + jump]
    unit = fractions.Fraction(1, 10)
    times = [time for _, time in video._timed(map(frame, pts), fractions.Fraction(10), unit, complaints)]
    assert times == [0, 1, 2, 3, 4, 5, 15]
    assert complaints == ["Its clock jumps 1 times; the times of its frames go on without the jumps."]


@pytest.mark.parametrize("unit", [fractions.Fraction(1, 10**9), fractions.Fraction(1, 90000), fractions.Fraction(2)])
def test_units_of_time_of_any_size_can_be_written(tmp_path, unit):
    seconds = [0, 2, 4, 3000]
    write(tmp_path / "a.mp4", moving_square(4, 48, 64), times=[round(second / unit) for second in seconds], unit=unit)
    found, unit = read(tmp_path / "a.mp4")[2], video.describe(tmp_path / "a.mp4")[2]
    np.testing.assert_allclose([float(time * unit) for time in found], seconds, atol=1e-3)


def test_what_an_edit_list_leaves_out_is_not_missing(tmp_path):
    path = films.film(tmp_path / "a.mp4", films.noise(40))
    whole = read(path)
    names, images, times, complaints = read(films.shortened_by_edit_list(path, first=0, seconds=2))
    assert (len(names), complaints) == (20, [])
    np.testing.assert_array_equal(images, whole[1][:20])


def test_of_several_streams_the_first_is_read_which_is_said(tmp_path):
    path = films.film(tmp_path / "a.mkv", films.noise(5), streams=2)
    names, *_, complaints = read(path)
    assert (len(names), complaints) == (5, ["It holds 2 video streams: only the first was read."])


NO_FILMS = {
    "sound": (films.sound, "a.m4a", "it has no video stream, only audio"),
    "song": (films.song_with_cover, "a.m4a", "it has no video stream, only audio, cover picture"),
    "text": (lambda path: path.write_text("1_a\n" * 5000) and path, "train.txt", "it is a text file"),
}


@pytest.mark.parametrize(("make", "name", "message"), NO_FILMS.values(), ids=NO_FILMS.keys())
def test_what_is_no_film(tmp_path, make, name, message):
    with pytest.raises(UserError, match=f"{name} cannot be read as a video: {message}"):
        video.describe(make(tmp_path / name))


@pytest.mark.parametrize(
    "name", ["concat:a.mp4", "-i.mp4", "pipe:", "http:x.mp4", "a%03d.mp4", "a b.mp4", "\udce9.mp4"]
)
def test_a_name_is_a_name(tmp_path, monkeypatch, name):
    """FFmpeg has a protocol for what stands before a colon."""
    monkeypatch.chdir(tmp_path)
    films.film(tmp_path / "made.mp4", films.noise(3)).rename(name)
    assert len(read(pathlib.Path(name))[0]) == 3
    write(pathlib.Path(name), moving_square(4, 48, 64))
    assert len(read(pathlib.Path(name))[0]) == 4


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
