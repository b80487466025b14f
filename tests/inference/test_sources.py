"""What --input may name, and in which order it is read."""

import cv2
import numpy as np
import pytest

from vspw_jax.console.errors import UserError
from vspw_jax.inference import sources, video


def picture(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((8, 8, 3), level, np.uint8))


def clip(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with video.video_writer(path, 10) as append:
        append(np.zeros((16, 16, 3), np.uint8))


def test_a_folder_is_read_in_order_of_names(tmp_path):
    for name in ("00000012.jpg", "00000003.jpg", "00000007.png"):
        picture(tmp_path / name, int(name[6:8]) * 10)
    (tmp_path / "._00000001.jpg").write_bytes(b"junk")
    (tmp_path / "notes.txt").write_text("no frame")
    (source,) = sources.find(tmp_path)
    assert (source.count, source.rate, source.unit * source.rate) == (3, 15, 1)
    assert [(name, int(image[0, 0, 0]), time) for name, image, time in source.frames()] == [
        ("00000003", 30, 0),
        ("00000007", 70, 1),
        ("00000012", 120, 2),
    ]


@pytest.mark.parametrize(("argument", "name"), [(".", "clip"), ("./", "clip"), ("..", "videos"), ("*.png", "clip")])
def test_a_folder_goes_by_its_own_name(tmp_path, monkeypatch, argument, name):
    picture(tmp_path / "videos" / "1.png")
    picture(tmp_path / "videos" / "clip" / "1.png")
    monkeypatch.chdir(tmp_path / "videos" / "clip")
    assert [source.name for source in sources.find(argument)] == [name]


def test_colours_are_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((8, 8, 3), (0, 0, 255), np.uint8))
    assert next(sources.find(tmp_path)[0].frames())[1][0, 0].tolist() == [255, 0, 0]


def test_videos_of_a_folder_or_a_pattern_are_one_source_each(tmp_path):
    for name in ("b.mp4", "a.mov", "more/c.mp4"):
        clip(tmp_path / name)
    picture(tmp_path / "more" / "frames" / "1.png")
    names = lambda argument: [source.name for source in sources.find(argument)]
    assert names(tmp_path) == ["a", "b"]
    assert names(tmp_path / "b.mp4") == ["b"]
    assert names(f"{tmp_path}/*.mp4") == ["b"]
    assert names(f"{tmp_path}/**/*.m*") == ["a", "b", "c"]
    assert names(f"{tmp_path}/more/fram*") == ["frames"]
    (pictures,) = sources.find(f"{tmp_path}/more/frames/*.png")
    assert (pictures.name, pictures.count) == ("frames", 1)


def test_another_content_has_another_fingerprint(tmp_path):
    for name, level in (("a/1.png", 0), ("b/1.png", 0), ("c/2.png", 0)):
        picture(tmp_path / name, level)
    clip(tmp_path / "x.mp4")
    content = (tmp_path / "x.mp4").read_bytes()
    (tmp_path / "y.mp4").write_bytes(content)
    (tmp_path / "z.mp4").write_bytes(content + b"\0")
    a, b, c, x, y, z = (
        sources.find(tmp_path / name)[0].fingerprint for name in ("a", "b", "c", "x.mp4", "y.mp4", "z.mp4")
    )
    assert a == b and x == y and len({a, c, x, z}) == 4


def test_nothing_to_read_says_what_was_expected(tmp_path):
    for argument, message in (
        (tmp_path / "missing.mp4", "does not exist"),
        (tmp_path / "*.mp4", "does not exist: expected a video file"),
        (tmp_path, "holds no frames.*jpg.*mp4"),
    ):
        with pytest.raises(UserError, match=message):
            sources.find(argument)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="broken.jpg cannot be read"):
        next(sources.find(tmp_path)[0].frames())


def test_what_would_be_written_to_one_place_is_refused(tmp_path):
    clip(tmp_path / "a.mp4")
    clip(tmp_path / "a.mov")
    with pytest.raises(UserError, match="Several inputs are called a"):
        sources.find(tmp_path)
    picture(tmp_path / "1.png")
    with pytest.raises(UserError, match="pictures and videos"):
        sources.find(tmp_path)
    picture(tmp_path / "p" / "1.png")
    picture(tmp_path / "p" / "1.jpg")
    with pytest.raises(UserError, match="Several frames of p are called 1"):
        sources.find(tmp_path / "p")
