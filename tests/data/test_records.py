"""The record schema: bytes in, frames out; damaged shards are named."""

import hashlib
import io
import json
import shutil

import numpy as np
import pytest
import scipy.sparse
from PIL import Image

from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError
from vspw_jax.data import records


def png(array, mode=None):
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    if mode == "P":
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    image.save(buffer, "png")
    return buffer.getvalue()


RAW = np.array([[0, 1, 2, 124], [125, 252, 254, 255]], np.uint8)
TRAIN = np.array([[255, 0, 1, 123], [255, 255, 255, 255]])


@pytest.mark.parametrize("mode", ["L", "P"])
def test_raw_ids_become_train_ids_whatever_the_palette(mode):
    np.testing.assert_array_equal(records.decode_mask(png(RAW, mode)), TRAIN)


def test_grey_saved_as_colour_is_read():
    np.testing.assert_array_equal(records.decode_mask(png(np.stack([RAW] * 3, axis=-1))), TRAIN)


def test_colours_are_refused():
    with pytest.raises(UserError, match="holds colours"):
        records.decode_mask(png(np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)))


def test_ids_round_trip():
    ids = np.arange(vspw.NUM_CLASSES, dtype=np.uint8)
    np.testing.assert_array_equal(vspw.from_raw(vspw.to_raw(ids)), ids)
    assert vspw.to_raw(np.array([255], np.uint8))[0] == 255
    assert (vspw.classes().names[0], vspw.classes().names[123], len(set(vspw.classes().names))) == (
        "wall",
        "train",
        124,
    )


def test_index_leads_from_videos_to_their_frames_in_order(generated_vspw, generated_records):
    frames = records.Frames(generated_records, "train")
    assert [video.name for video in frames.videos] == (generated_vspw / "train.txt").read_text().split()
    assert len(frames) == 50
    for video in frames.videos:
        names = [frames[number]["frame"] for number in range(video.start, video.start + video.count)]
        assert names == [f"{number:08d}" for number in range(1, 11)]
        assert {frames[number]["video"] for number in range(video.start, video.start + video.count)} == {video.name}


def test_bytes_are_kept_as_they_are(generated_vspw, generated_records):
    frames = records.Frames(generated_records, "val")
    record = frames[13]
    folder = generated_vspw / "data" / record["video"]
    assert record["image_jpeg"] == (folder / "origin" / f"{record['frame']}.jpg").read_bytes()
    assert record["mask_png"] == (folder / "mask" / f"{record['frame']}.png").read_bytes()
    image, label = frames.image_and_label(13)
    assert image.shape == (48, 64, 3) and label.shape == (48, 64)


def test_test_frames_have_no_mask(generated_records):
    frames = records.Frames(generated_records, "test")
    assert frames[0]["mask_png"] == b"" and frames.max_classes == 0
    assert (frames.image_and_label(0)[1] == 255).all()


def test_an_unknown_split_is_named(generated_records):
    with pytest.raises(UserError, match="no split 'dev'.*test, train, val"):
        records.Frames(generated_records, "dev")


def test_missing_data_names_the_conversion_command(tmp_path):
    with pytest.raises(UserError, match="python -m data_prep.vspw"):
        records.find(tmp_path / "nowhere")


def test_metadata_says_what_the_data_is(generated_vspw, generated_records):
    """The fingerprint anew from the source's files; the counts of pixels from its masks."""
    metadata = records.read_metadata(generated_records)
    assert (metadata["dataset"], metadata["numbering"]) == ("vspw", "raw_1_124")
    digest, pixels = hashlib.sha256(), []
    for video in (generated_vspw / "train.txt").read_text().split():
        for image in sorted((generated_vspw / "data" / video / "origin").iterdir()):
            mask = generated_vspw / "data" / video / "mask" / f"{image.stem}.png"
            digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (image, mask)]
            digest.update("\0".join([video, image.stem, *digests]).encode() + b"\n")
            pixels.append(np.bincount(np.asarray(Image.open(mask)).ravel(), minlength=256))
    frames = records.Frames(generated_records, "train")
    assert metadata["fingerprint"]["train"] == digest.hexdigest() == frames.fingerprint
    found = scipy.sparse.load_npz(records.find(generated_records) / "class_pixels-train.npz")
    assert found.format == "csr" and found.dtype == np.uint32
    np.testing.assert_array_equal(found.toarray(), pixels)
    expected = max(int(np.count_nonzero(row[1:125])) for row in pixels)
    assert frames.max_classes == expected == metadata["max_classes"]["train"]


def test_records_of_an_older_layout_are_named(generated_records, tmp_path):
    copy = shutil.copytree(generated_records, tmp_path / "records")
    path = next(copy.rglob("metadata.json"))
    metadata = json.loads(path.read_text())
    del metadata["fingerprint"]
    path.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="lacks fingerprint: an older version.*python -m data_prep.vspw"):
        records.Frames(copy, "train")


def test_lost_or_swapped_pixel_counts_are_named(generated_records, tmp_path):
    copy = shutil.copytree(generated_records, tmp_path / "records")
    path = next(copy.rglob("class_pixels-train.npz"))
    shutil.copyfile(path.with_name("class_pixels-val.npz"), path)
    with pytest.raises(UserError, match="class_pixels-train.npz is of 30 records, split train has 50"):
        records.Frames(copy, "train")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="class_pixels-train.npz cannot be read"):
        records.Frames(copy, "train")
    path.unlink()
    with pytest.raises(UserError, match="class_pixels-train.npz is missing"):
        records.Frames(copy, "train")
