"""Conversion of VSPW's layout with every kind of dirt that the real set has."""

import errno
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep import vspw
from data_prep.conversion import video_folders
from tests.inputs import frames, lists, masks
from vspw_jax.console.errors import UserError
from vspw_jax.data import records
from vspw_jax.files import mask_png, sources


@pytest.fixture
def video(source):
    """The folder of the first training video."""
    return source / "data" / (source / "train.txt").read_text().split()[0]


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-200])


def colours(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)).save(path)


def deep(path):
    Image.fromarray(np.ones((48, 64), np.uint16) * 300).save(path)


def stray_label(path):
    Image.fromarray(np.full((48, 64), 125, np.uint8)).save(path)


def gif_inside(path):
    Image.fromarray(np.ones((48, 64), np.uint8)).save(path, "gif")


def broken_tables(path):
    """The end marker is there, but the Huffman tables are not what they were."""
    data = bytearray(path.read_bytes())
    for start in [number for number in range(len(data)) if data[number : number + 2] == b"\xff\xc4"]:
        data[start + 5 : start + 21] = bytes([255] * 16)
    path.write_bytes(data)


def huge(path):
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)


def other_size(path):
    Image.fromarray(np.ones((48, 60), np.uint8)).save(path)


DAMAGE = {
    "empty frame": ("origin/00000003.jpg", lambda path: path.write_bytes(b""), "is empty"),
    "empty mask": ("mask/00000003.png", lambda path: path.write_bytes(b""), "is empty"),
    "missing frame": ("origin/00000003.jpg", lambda path: path.unlink(), "is missing"),
    "missing mask": ("mask/00000003.png", lambda path: path.unlink(), "is missing"),
    "cut-off frame": ("origin/00000003.jpg", cut_off, "cut off"),
    "cut-off mask": ("mask/00000003.png", cut_off, "00000003.png"),
    "no picture": ("origin/00000003.jpg", lambda path: path.write_text("hello"), "cannot identify"),
    "mask in colours": ("mask/00000003.png", colours, "holds colours"),
    "JPEG that cannot be decoded": ("origin/00000003.jpg", broken_tables, "cannot be decoded"),
    "JPEG of 65535 pixels a side": ("origin/00000003.jpg", huge, "pixels"),
    "GIF named JPEG": ("origin/00000003.jpg", gif_inside, "is a GIF file, expected one of JPEG"),
    "mask of 16 bits": ("mask/00000003.png", deep, "more than 8 bits"),
    "label out of range": ("mask/00000003.png", stray_label, "labels that raw_1_124 does not have: 125"),
    "mask of another size": ("mask/00000003.png", other_size, "is 60x48 pixels, its frame 64x48"),
}


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_bad_frame_stops_the_conversion_or_is_left_out(source, video, tmp_path, name, damage, message):
    damage(video / name)
    with pytest.raises(UserError, match=message) as caught:
        vspw.convert(source, tmp_path / "records")
    assert f"{video / name} (video {video.name})" in str(caught.value)
    assert not records.exist(tmp_path / "records")

    (left_out,) = vspw.convert(source, tmp_path / "records", max_bad=1)
    assert name in left_out
    frames = records.Frames(tmp_path / "records", "train")
    kept = [frames[number]["frame"] for number in range(frames.videos[0].count)]
    assert kept == [f"{number:08d}" for number in range(1, 11) if number != 3]
    assert len(frames) == 49


def test_stray_values_of_the_release_and_bytes_after_the_end_are_taken(source, video, tmp_path):
    Image.fromarray(np.resize(np.array([0, 5, 252, 253, 254, 255], np.uint8), (48, 64))).save(
        video / "mask" / "00000001.png"
    )
    image = video / "origin" / "00000001.jpg"
    image.write_bytes(image.read_bytes() + b"\0\0trailing")
    assert vspw.convert(source, tmp_path / "records") == []
    label = records.Frames(tmp_path / "records", "train").image_and_label(0)[1]
    assert label.ravel()[:6].tolist() == [255, 4, 255, 255, 255, 255]


def test_short_side_follows_the_480p_releases_rule(source, video, tmp_path):
    """VSPW_baseline change2_480p.py: Pillow, (int(480 * w / h), 480), bilinear and nearest, default quality."""
    vspw.main([f"--source={source}", f"--output={tmp_path / 'records'}", "--short-side=31"])
    frames = records.Frames(tmp_path / "records", "train")
    record = frames[4]
    image = Image.open(video / "origin" / "00000005.jpg").resize((41, 31), Image.BILINEAR)
    image.save(tmp_path / "expected.jpg")
    assert record["image_jpeg"] == (tmp_path / "expected.jpg").read_bytes()
    mask = Image.open(video / "mask" / "00000005.png").resize((41, 31), Image.NEAREST)
    np.testing.assert_array_equal(mask_png.decode(record["mask_png"]), np.asarray(mask))
    assert Image.open(io.BytesIO(record["mask_png"])).mode == "P"
    assert records.Frames(tmp_path / "records", "test")[0]["mask_png"] == b""
    # Frames of that height are kept as they are.
    vspw.convert(source, tmp_path / "kept", short_side=48)
    assert (
        records.Frames(tmp_path / "kept", "train")[4]["image_jpeg"] == (video / "origin" / "00000005.jpg").read_bytes()
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_of_grey_stay_grey_where_frames_are_resized(source, video, tmp_path, kind):
    (video / "origin" / "00000001.jpg").unlink()
    (video / "origin" / f"00000001.{kind.lower()}").write_bytes(frames.deep_grey(kind))
    for height in (31, 48):  # The second keeps the bytes.
        vspw.convert(source, tmp_path / str(height), short_side=height)
        image, _ = records.Frames(tmp_path / str(height), "train").image_and_label(0)
        np.testing.assert_allclose(image.mean(axis=(0, 2)), np.linspace(0, 255, image.shape[1]), atol=4)


def test_a_file_that_the_disk_does_not_give_back_is_named(source, video, tmp_path, monkeypatch):
    read = sources.Folder.read

    def fail(self, name):
        if name.endswith(f"{video.name}/mask/00000002.png"):
            raise OSError(errno.EIO, "Input/output error")
        return read(self, name)

    monkeypatch.setattr(sources.Folder, "read", fail)
    with pytest.raises(UserError, match=f"00000002.png .video {video.name}.: cannot be read .*Input/output error"):
        vspw.convert(source, tmp_path / "records")


@pytest.mark.parametrize("line", ["../../etc", "0_a/b", ".hidden"])
def test_a_list_that_names_no_video(source, tmp_path, line):
    with (source / "val.txt").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match="no video name"):
        vspw.convert(source, tmp_path / "records")


def test_a_video_listed_twice(source, tmp_path):
    first = (source / "train.txt").read_text().split()[0]
    with (source / "train.txt").open("a") as file:
        file.write(f"{first}\n")
    with pytest.raises(UserError, match=f"lists {first} twice"):
        vspw.convert(source, tmp_path / "records")


@pytest.fixture
def strange_names(source):
    """The training videos with names that hold spaces and accents."""
    old = (source / "train.txt").read_text().split()
    new = [f"{number} Caf\u00e9 {number}" for number in range(len(old))]
    for before, after in zip(old, new, strict=True):
        (source / "data" / before).rename(source / "data" / after)
    return new


@pytest.mark.parametrize("write", [lists.utf16, lists.utf8_with_mark, lists.old_mac, lists.ragged])
def test_a_line_of_a_list_is_a_name(source, strange_names, write):
    (source / "train.txt").write_bytes(write(strange_names))
    opened = sources.open_source(source)
    prefix, splits = video_folders.read_splits(opened)
    assert splits["train"] == strange_names
    assert len(video_folders.split_frames(opened, prefix, splits["train"], "train")) == 50


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lists.latin1, "is not UTF-8 text: .*can't decode byte 0xe9.*Save it as UTF-8"),
        (lists.utf16_without_mark, "is not UTF-8 text: .*Save it as UTF-8"),
        (lambda names: b"\n \r\n", "lists no video. Expected one video name a line"),
        (lambda names: lists.utf16([names[0], names[0]]), "lists 0 Caf\u00e9 0 twice"),
        (lambda names: lists.utf16(names)[:-1], "is not UTF-8 text"),
    ],
)
def test_a_list_that_cannot_be_read_is_named(source, strange_names, write, message):
    (source / "train.txt").write_bytes(write(strange_names))
    with pytest.raises(UserError, match=f"(?s)train.txt {message}"):
        video_folders.read_splits(sources.open_source(source))


def test_a_video_in_two_lists_is_said(source, capsys):
    first = (source / "train.txt").read_text().split()[0]
    with (source / "val.txt").open("a") as file:
        file.write(f"{first}\n")
    video_folders.read_splits(sources.open_source(source))
    assert f"lists {first} in train.txt and in val.txt: scores will look too good." in capsys.readouterr().err


def test_videos_that_no_list_names_are_said(source, tmp_path, capsys):
    video_folders.all_frames(sources.open_source(source))
    assert capsys.readouterr().err == ""
    left = [lists.without_last(source / f"{split}.txt") for split in ("train", "val")]
    vspw.convert(source, tmp_path / "records")
    said = f"2 videos or images of {source} are left out, as no list names them: {', '.join(sorted(left))}."
    assert said in capsys.readouterr().err


def test_files_that_start_with_a_dot_are_passed_over(source, video, tmp_path):
    (video / "origin" / "._00000001.jpg").write_bytes(b"junk")
    (video / "mask" / "._00000001.png").write_bytes(b"junk")
    assert vspw.convert(source, tmp_path / "records") == []
    assert len(records.Frames(tmp_path / "records", "train")) == 50


def test_frame_numbers_may_start_anywhere_and_have_gaps(source, video, tmp_path):
    for kind, suffix in (("origin", "jpg"), ("mask", "png")):
        for number in range(1, 11):
            (video / kind / f"{number:08d}.{suffix}").rename(video / kind / f"{2058 + 3 * number:08d}.{suffix}")
    vspw.convert(source, tmp_path / "records")
    frames = records.Frames(tmp_path / "records", "train")
    assert [frames[number]["frame"] for number in range(10)] == [f"{2058 + 3 * n:08d}" for n in range(1, 11)]


def test_the_most_classes_of_a_frame_are_recorded(source, video, tmp_path):
    mask = np.arange(48 * 64).reshape(48, 64) % 30
    Image.fromarray(mask.astype(np.uint8)).save(video / "mask" / "00000001.png")
    vspw.convert(source, tmp_path / "records")
    assert records.Frames(tmp_path / "records", "train").max_classes == 29  # 30 ids, of which 0 is void.


def test_converting_again_changes_nothing(source, tmp_path):
    vspw.convert(source, tmp_path / "records")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "records").rglob("*")}
    assert vspw.convert(source, tmp_path / "records") == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "records").rglob("*")} == before


def test_other_data_at_the_output_is_refused(source, generated_records):
    (source / "train.txt").write_text("0_drawn-0\n")
    with pytest.raises(UserError, match="holds records of another source"):
        vspw.convert(source, generated_records)


def test_no_room_is_found_before_writing(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(UserError, match="No room"):
        vspw.convert(source, tmp_path / "records")
    assert not records.exist(tmp_path / "records")


def test_a_folder_that_is_not_vspw_says_what_was_expected(tmp_path):
    with pytest.raises(UserError, match="train.txt.*data/<video>/origin"):
        vspw.convert(tmp_path, tmp_path / "records")
    with pytest.raises(UserError, match="no such folder"):
        vspw.convert(tmp_path / "missing", tmp_path / "records")


def test_a_video_without_a_folder_is_named(source, tmp_path):
    with (source / "val.txt").open("a") as file:
        file.write("999_missing\n")
    with pytest.raises(UserError, match="999_missing"):
        vspw.convert(source, tmp_path / "records")


def test_command_line_prints_what_it_wrote(source, tmp_path, capsys):
    vspw.main([f"--source={source}", f"--output={tmp_path / 'records'}"])
    assert "train: 5 videos, 50 frames" in capsys.readouterr().out


UNPADDED = ["1.jpg", "10.jpg", "2.jpg", "9.jpg", "100.jpg"]


def names_of(output, split, video):
    data = records.Frames(output, split)
    (found,) = (one for one in data.videos if one.name == video)
    return [data[found.start + number]["frame"] for number in range(found.count)]


@pytest.mark.parametrize("split", ["val", "test"])
def test_frames_come_in_the_order_of_their_numbers(source, tmp_path, split):
    frames.vspw_video(source, split, UNPADDED, masks=split == "val")
    vspw.convert(source, tmp_path / "records")
    assert names_of(tmp_path / "records", split, "9_new") == ["1", "2", "9", "10", "100"]


def test_numbers_that_are_written_in_two_ways_are_refused(source, tmp_path):
    frames.vspw_video(source, "val", ["1.jpg", "01.jpg"])
    with pytest.raises(UserError, match="Several frames of .*9_new/origin have the same number: 0?1 and 0?1"):
        vspw.convert(source, tmp_path / "records")


def test_names_of_several_kinds_are_said(source, tmp_path, capsys):
    frames.vspw_video(source, "test", ["take_1.jpg", "take_2.jpg", "frame_3.jpg"], masks=False)
    vspw.convert(source, tmp_path / "records")
    assert "several kinds: 9_new (frame_#, take_#; first frame_3, last take_2)" in capsys.readouterr().err


FILES = {"1.JPG": "JPEG", "2.jpeg": "JPEG", "3.png": "PNG", "4.webp": "WEBP", "5.BMP": "BMP", "6.tif": "TIFF"}
FILES |= {"7.JFIF": "JPEG", "8.jpe": "JPEG", "9.jp2": "JPEG2000", "10.ppm": "PPM", "11.pgm": "PPM"}


@pytest.mark.parametrize("split", ["val", "test"])
def test_frames_of_any_usual_format_are_taken_and_the_rest_is_said(source, tmp_path, capsys, split):
    folder = frames.vspw_video(source, split, FILES, masks=split == "val")
    for name, kind in FILES.items():
        (folder / "origin" / name).write_bytes(frames.encoded(kind))
    (folder / "origin" / "notes.txt").write_text("no frame")
    (folder / "origin" / "raw.heic").write_text("no frame")
    vspw.convert(source, tmp_path / "records")
    assert names_of(tmp_path / "records", split, "9_new") == [name.partition(".")[0] for name in FILES]
    said = capsys.readouterr().err
    assert f"2 files among the frames of split {split}" in said and "9_new/origin/notes.txt" in said
    data = records.Frames(tmp_path / "records", split)
    for number in range(data.videos[-1].start, len(data)):
        record = data[number]
        assert record["image_jpeg"] == frames.encoded(list(FILES.values())[int(record["frame"]) - 1])
        assert records.decode_image(record["image_jpeg"], shrink=8).shape == (6, 8, 3)


def test_a_video_of_other_files_alone_is_told_what_is_expected(source, tmp_path):
    folder = frames.vspw_video(source, "val", [])
    (folder / "origin" / "1.heic").write_text("no frame")
    with pytest.raises(UserError, match=r"Video 9_new has no frames: .*end in .jpg, .*, .pgm, found 1.heic\."):
        vspw.convert(source, tmp_path / "records")


def half(path):
    path.write_bytes(frames.half_with_end(path.read_bytes()))


def half_png(path):
    path.write_bytes(frames.half_png_with_end(frames.encoded("PNG")))


@pytest.mark.parametrize("damage", [half, half_png])
def test_half_a_frame_with_an_end_is_refused(source, video, tmp_path, damage):
    damage(video / "origin" / "00000003.jpg")
    with pytest.raises(UserError, match=r"00000003\.jpg \(video .*is damaged or cut off"):
        vspw.convert(source, tmp_path / "records")


def test_a_mask_of_few_bits_means_its_ids(source, video, tmp_path):
    ids = np.random.default_rng(0).integers(0, 16, (48, 64))
    (video / "mask" / "00000001.png").write_bytes(masks.png(ids, bits=4))
    vspw.convert(source, tmp_path / "records")
    label = records.Frames(tmp_path / "records", "train").image_and_label(0)[1]
    np.testing.assert_array_equal(label, np.where(ids == 0, 255, ids - 1))


def test_a_lossy_file_in_a_masks_place_is_refused(source, video, tmp_path):
    (video / "mask" / "00000003.png").write_bytes(frames.encoded("JPEG"))
    with pytest.raises(UserError, match=r"mask/00000003\.png .*is a JPEG file: expected PNG"):
        vspw.convert(source, tmp_path / "records")


@pytest.mark.parametrize("shard_bytes", [1 << 27, 4000])
def test_a_video_of_changing_sizes_is_refused(source, video, tmp_path, shard_bytes):
    (video / "origin" / "00000008.jpg").write_bytes(frames.encoded("JPEG", size=(60, 48)))
    other_size(video / "mask" / "00000008.png")
    said = r"origin/00000008\.jpg \(video .*\): is 60x48 pixels, frame 00000001 of its video 64x48"
    with pytest.raises(UserError, match=said):
        vspw.convert(source, tmp_path / "records", shard_bytes=shard_bytes)
    assert len(vspw.convert(source, tmp_path / "records", max_bad=1, shard_bytes=shard_bytes)) == 1


def test_a_frame_that_its_exif_turns_is_a_bad_frame(source, video, tmp_path):
    (video / "origin" / "00000003.jpg").write_bytes(frames.turned("JPEG", 6))
    said = r"origin/00000003\.jpg \(video .*\): is turned by its EXIF orientation 6: save it upright"
    with pytest.raises(UserError, match=said):
        vspw.convert(source, tmp_path / "records")
    (left_out,) = vspw.convert(source, tmp_path / "records", max_bad=1)
    assert "is turned by its EXIF" in left_out


def test_frames_without_masks_may_change_their_size(source, tmp_path):
    folder = frames.vspw_video(source, "test", ["1.jpg", "2.jpg"], masks=False)
    (folder / "origin" / "2.jpg").write_bytes(frames.encoded("JPEG", size=(60, 48)))
    assert vspw.convert(source, tmp_path / "records") == []


def test_a_link_to_nowhere_is_named(source, tmp_path):
    folder = frames.vspw_video(source, "test", ["1.jpg", "2.jpg"], masks=False)
    (folder / "origin" / "3.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(UserError, match=r"9_new/origin/3\.jpg \(video 9_new\): is a link to a file that is not there"):
        vspw.convert(source, tmp_path / "records")


@pytest.mark.parametrize(
    ("name", "message"), [("x" * 250 + ".jpg", "has 250 bytes, 240 are allowed"), ("\udcff1.jpg", "is not UTF-8")]
)
def test_names_that_no_result_can_have_are_refused(source, tmp_path, name, message):
    frames.vspw_video(source, "test", [name], masks=False)
    with pytest.raises(UserError, match=message):
        vspw.convert(source, tmp_path / "records")
