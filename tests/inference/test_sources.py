"""What --input may name, and in which order it is read."""

import pathlib

import cv2
import numpy as np
import pytest

from tests.inputs import films, frames
from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError
from vspw_jax.files import pictures
from vspw_jax.inference import prediction_folder, sources, video
from vspw_jax.inference.overlay import Painter


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


CODECS = {".mpg": "mpeg2video", ".mpeg": "mpeg2video", ".vob": "mpeg2video", ".webm": "libvpx-vp9"}
CODECS |= {".wmv": "wmv2", ".asf": "wmv2", ".flv": "flv", ".ogv": "libvpx"}


@pytest.mark.parametrize("suffix", sources.VIDEO_SUFFIXES)
def test_a_folder_may_hold_films_of_every_suffix(tmp_path, suffix):
    container = {".asf": ".wmv"}.get(suffix, suffix)  # The same one, of which FFmpeg knows one suffix.
    made = films.film(tmp_path / f"made{container}", [films.corners()] * 2, codec=CODECS.get(suffix, "libx264"))
    made.rename(tmp_path / f"a{suffix.upper()}")
    (source,) = sources.find(tmp_path)
    shown = [image for _, image, _ in source.frames()]
    assert len(shown) == 2 and np.abs(shown[0].astype(int) - films.corners()).mean() < 12


@pytest.mark.parametrize("suffix", pictures.SUFFIXES)
def test_a_folder_may_hold_frames_of_every_suffix(tmp_path, suffix):
    kinds = {".jp2": "JPEG2000", ".ppm": "PPM", ".pgm": "PPM", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}
    frames.write(tmp_path, [f"1{suffix}", f"2{suffix.upper()}"], kinds.get(suffix, "TIFF" if "t" in suffix else "JPEG"))
    (source,) = sources.find(tmp_path)
    assert [(name, image.shape) for name, image, _ in source.frames()] == [("1", (48, 64, 3)), ("2", (48, 64, 3))]


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


NAMED = {  # What is there, what --input names of it, and what the videos are called.
    "VSPW": (
        ["data/1_a/origin/1.jpg", "data/2_b/origin/1.jpg", "data/1_a/mask/1.png"],
        "",
        ["1_a", "2_b"],
    ),
    "videos of it": (["1_a/origin/1.jpg", "2_b/origin/1.jpg", ".c/origin/1.jpg"], "", ["1_a", "2_b"]),
    "a video of it": (["1_a/origin/1.jpg", "1_a/mask/1.png"], "1_a", ["1_a"]),
    "its frames": (["1_a/origin/1.jpg"], "1_a/origin", ["1_a"]),
    "pattern of origins": (["1_a/origin/1.jpg", "2_b/origin/1.jpg"], "*/origin", ["1_a", "2_b"]),
    "pattern of frames": (["1_a/origin/1.jpg", "2_b/origin/2.jpg"], "*/origin/*.jpg", ["1_a", "2_b"]),
    "other folders": (["a/left/1.jpg", "b/left/1.jpg"], "*/left", ["a", "b"]),
    "folders that differ twice": (["a/x/1.jpg", "b/x/1.jpg", "b/y/1.jpg"], "*/*", ["a_x", "b_x", "b_y"]),
    "videos of one name": (["a/x.mp4", "b/x.mp4"], "*/x.mp4", ["a", "b"]),
    "one picture": (["a/7.jpg", "a/8.jpg"], "a/8.jpg", ["8"]),
    "strange names": (["concat:a.mp4", "-i.mp4", "b [1].mp4"], "", ["-i", "b [1]", "concat:a"]),
    "brackets": (["b [1].mp4"], "b [1].mp4", ["b [1]"]),
}


@pytest.mark.parametrize(("paths", "argument", "names"), NAMED.values(), ids=NAMED.keys())
def test_videos_are_called_by_what_differs(tmp_path, monkeypatch, paths, argument, names):
    monkeypatch.chdir(tmp_path)
    for path in map(pathlib.Path, paths):
        clip(path) if path.suffix == ".mp4" else picture(path)
    for found in (sources.find(argument or "."), sources.find(tmp_path / argument)):
        assert [source.name for source in found] == names
        assert all(source.count == 1 and len(list(source.frames())) == 1 for source in found)


@pytest.mark.parametrize("output", ["", "out", "out/deeper"])
def test_what_predictions_wrote_is_no_input(tmp_path, output):
    """The second run finds what the first one has found, wherever that wrote."""
    clip(tmp_path / "a.mp4")
    patterns = ["", "*", "*.mp4", "**/*.mp4"]
    find = lambda: [[source.name for source in sources.find(f"{tmp_path}/{pattern}")] for pattern in patterns]
    before = find()
    folder = prediction_folder.PredictionFolder(tmp_path / output, {}, Painter(vspw.classes()))
    clip(tmp_path / output / "overlay.mp4")
    clip(tmp_path / output / "partial-side_by_side.mp4")
    picture(folder.mask_path("1"))
    picture(folder.overlay_path("1"))
    assert before == find() == [["a"]] * 4
    assert [source.name for source in sources.find(tmp_path / output / "overlay.mp4")] == ["overlay"]
    with pytest.raises(UserError, match="matches only what predictions wrote, such as .*overlay.mp4"):
        sources.find(f"{tmp_path / output}/overlay*.mp4")


def frame_names(source):
    return [name for name, _, _ in source.frames()]


def test_frames_come_in_the_order_of_their_numbers(tmp_path, capsys):
    frames.write(tmp_path / "v", ["frame_9999.jpg", "frame_10000.jpg", "frame_2.jpg"])
    for argument in (tmp_path / "v", tmp_path / "v" / "*.jpg"):
        (source,) = sources.find(argument)
        assert frame_names(source) == ["frame_2", "frame_9999", "frame_10000"]
    assert capsys.readouterr().err == ""
    frames.write(tmp_path / "v", ["take_1.jpg"])
    sources.find(tmp_path / "v")
    assert "several kinds: v (frame_#, take_#; first frame_2, last take_1)" in capsys.readouterr().err
    frames.write(tmp_path / "v", ["frame_02.jpg"])
    with pytest.raises(UserError, match="Several frames of v have the same number: frame_0?2 and frame_0?2"):
        sources.find(tmp_path / "v")


def test_a_folder_of_a_frames_name_is_left_out(tmp_path, capsys):
    frames.write(tmp_path, ["1.jpg", "3.jpg"])
    frames.folder_of_a_frames_name(tmp_path, "2.jpg")
    frames.folder_of_a_frames_name(tmp_path, "film.mp4")
    (source,) = sources.find(tmp_path)
    assert frame_names(source) == ["1", "3"]
    assert "is left out (2 in number): 2.jpg, film.mp4" in capsys.readouterr().err


@pytest.mark.parametrize("above", ["data", "", None], ids=["a data set", "a folder of videos", "a video"])
def test_a_cover_beside_videos_in_vspws_layout_is_left_out(tmp_path, capsys, above):
    frames.write(tmp_path, ["cover.jpg"])
    videos = ["1_a", "2_b"] if above is not None else [""]
    for name in videos:
        frames.write(tmp_path / (above or "") / name / "origin", ["1.jpg", "2.jpg"])
    found = sources.find(tmp_path)
    assert [source.name for source in found] == [name or tmp_path.name for name in videos]
    assert [frame_names(source) for source in found] == [["1", "2"]] * len(videos)
    assert "the pictures beside the videos are left out (1 in number): cover.jpg" in capsys.readouterr().err
    assert [source.name for source in sources.find(f"{tmp_path}/*.jpg")] == [tmp_path.name]


def test_frames_beside_a_folder_of_an_origin_are_the_video(tmp_path):
    frames.write(tmp_path, ["1.jpg", "2.jpg", "3.jpg"])
    frames.write(tmp_path / "backup" / "origin", ["1.jpg"])
    (source,) = sources.find(tmp_path)
    assert frame_names(source) == ["1", "2", "3"]


def test_any_usual_format_is_taken_and_the_rest_is_said(tmp_path, capsys):
    for number, (suffix, kind) in enumerate([("JPG", "JPEG"), ("webp", "WEBP"), ("BMP", "BMP"), ("tiff", "TIFF")]):
        frames.write(tmp_path / "v", [f"{number}.{suffix}"], kind)
    (tmp_path / "v" / "notes.txt").write_text("no frame")
    (tmp_path / "v" / "raw").mkdir()
    (source,) = sources.find(tmp_path / "v")
    assert [image.shape for _, image, _ in source.frames()] == [(48, 64, 3)] * 4
    said = capsys.readouterr().err
    assert "is left out (2 in number): notes.txt, raw." in said
    (source,) = sources.find(tmp_path / "v" / "0.JPG")
    assert frame_names(source) == ["0"]


def test_a_pattern_of_frames_of_several_videos_is_several_videos(tmp_path):
    for name in ("b", "a"):
        frames.write(tmp_path / name, ["1.jpg", "2.jpg"])
    found = sources.find(tmp_path / "*" / "*.jpg")
    assert [(source.name, source.count) for source in found] == [("a", 2), ("b", 2)]


def test_a_pattern_of_several_kinds_is_refused(tmp_path):
    frames.write(tmp_path / "a", ["1.jpg"])
    clip(tmp_path / "a" / "film.mp4")
    with pytest.raises(UserError, match=r"holds pictures and videos, such as 1\.jpg and film\.mp4: name one kind"):
        sources.find(tmp_path / "a" / "*")
    frames.write(tmp_path, ["1.jpg"])
    with pytest.raises(UserError, match="names folders and files"):
        sources.find(tmp_path / "*")


@pytest.mark.parametrize("damage", [frames.half_with_end, lambda jpeg: frames.half_png_with_end(frames.encoded("PNG"))])
def test_half_a_frame_with_an_end_is_refused(tmp_path, damage):
    frames.write(tmp_path, ["1.jpg", "2.jpg"])
    (tmp_path / "2.jpg").write_bytes(damage((tmp_path / "2.jpg").read_bytes()))
    with pytest.raises(UserError, match=r"2\.jpg is damaged or cut off"):
        frame_names(sources.find(tmp_path)[0])


def test_links_to_nowhere_and_names_that_no_result_can_have_are_refused(tmp_path):
    frames.write(tmp_path / "link", ["1.jpg"])
    (tmp_path / "link" / "2.jpg").symlink_to(tmp_path / "gone.jpg")
    frames.write(tmp_path / "long", ["x" * 250 + ".jpg"])
    frames.write(tmp_path / "bytes", ["\udcff1.jpg"])
    frames.write(tmp_path / "\udcff folder", ["1.jpg"])
    clip(tmp_path / "clip.mp4")
    (tmp_path / "clip.mp4").rename(tmp_path / "\udcff film.mp4")
    frames.write(tmp_path / ("x" * 241), ["1.jpg"])
    for folder, message in (
        ("link", r"2\.jpg cannot be read: No such file"),
        ("long", "has 250 bytes, 240 are allowed"),
        ("bytes", "is not UTF-8"),
        ("\udcff folder", r"The name '\\udcff folder' of a video of .* is not UTF-8"),
        ("\udcff film.mp4", r"The name '\\udcff film' of a video of .* is not UTF-8"),
        ("x" * 241, "of a video of .* has 241 bytes, 240 are allowed"),
    ):
        with pytest.raises(UserError, match=message):
            sources.find(tmp_path / folder)
