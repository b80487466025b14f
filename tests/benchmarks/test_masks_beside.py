"""The picture of masks beside each other: what it shows, and what is refused."""

import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import masks_beside
from vspw_jax.console.errors import UserError
from vspw_jax.data import records
from vspw_jax.files import mask_png
from vspw_jax.metrics import predictions


@pytest.fixture
def masks(generated_records, tmp_path):
    """Two folders: the truth, and one class everywhere."""
    frames = records.Frames(generated_records, "val")
    for video in frames.videos:
        for number in range(video.start, video.start + video.count):
            record = frames[number]
            label = frames.label(record)
            for name, mask in (("right", label), ("one", np.full_like(label, 3))):
                path = predictions.path_of(tmp_path / name, video.name, record["frame"])
                mask_png.save(mask, path, frames.classes)
    return tmp_path


def run(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["masks_beside", *map(str, options)])
    masks_beside.main()


def test_a_row_has_the_frame_the_truth_and_every_folder(masks, generated_records, monkeypatch):
    given = [f"--masks=right={masks / 'right'}", f"--masks=one={masks / 'one'}"]
    run(monkeypatch, f"--records={generated_records}", f"--output={masks / 'X.png'}", "--videos=2", *given)
    picture = np.asarray(Image.open(masks / "X.png"))
    assert picture.shape[1] % 4 == 0
    frame, truth, right, one = np.split(picture, 4, axis=1)
    rows = np.array_split(np.arange(len(picture)), 2)
    for number in rows:
        below = number[masks_beside.LINE :]
        np.testing.assert_array_equal(truth[below], right[below])
        assert (one[below] != truth[below]).any() and (frame[below] != truth[below]).any()


def test_shares_count_labelled_pixels():
    label = np.array([[0, 1, 255, 2]])
    assert masks_beside.share_right(label, np.array([[0, 1, 7, 7]])) == pytest.approx(2 / 3)
    assert np.isnan(masks_beside.share_right(np.array([[255]]), np.array([[0]])))


@pytest.mark.parametrize(
    ("option", "message"),
    [("--masks={}/one", "expected a name and a folder"), ("--masks=A={}/none", "no such folder")],
)
def test_what_is_no_folder_of_masks_is_refused(masks, generated_records, monkeypatch, option, message):
    with pytest.raises(UserError, match=message):
        run(monkeypatch, f"--records={generated_records}", "--output=X.png", option.format(masks))
    next((masks / "one").glob("*/*.png")).unlink()
    with pytest.raises(UserError, match="lacks 1 of 30 frames"):
        run(monkeypatch, f"--records={generated_records}", "--output=X.png", f"--masks=A={masks / 'one'}")
