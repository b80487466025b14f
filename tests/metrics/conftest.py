"""Predictions on disk of the generated videos, made from their truth."""

import shutil

import numpy as np
import pytest

from vspw_jax.classes import vspw
from vspw_jax.files import mask_png
from vspw_jax.metrics import predictions
from vspw_jax.metrics.truth import open_truth


def write_shifted(truth, folder, shift):
    """The truth rolled to the right in odd frames, void as the class of the first pixel that has one."""
    for video in truth.videos:
        for number, frame in enumerate(video.frames):
            label = np.roll(truth.label(video.name, frame), shift * (number % 2), axis=1)
            filled = np.where(label == vspw.VOID, label[label != vspw.VOID][0], label)
            mask_png.save(filled.astype(np.uint8), predictions.path_of(folder, video.name, frame), vspw.classes())


@pytest.fixture(scope="session")
def truth(generated_vspw):
    return open_truth(generated_vspw, "val")


@pytest.fixture(scope="session")
def shifted(truth, tmp_path_factory):
    """A folder of good predictions, not to be changed."""
    folder = tmp_path_factory.mktemp("predictions") / "shifted"
    write_shifted(truth, folder, 2)
    return folder


@pytest.fixture(scope="session")
def more_shifted(truth, tmp_path_factory):
    """Worse ones."""
    folder = tmp_path_factory.mktemp("predictions") / "more_shifted"
    write_shifted(truth, folder, 9)
    return folder


@pytest.fixture
def spoilt(shifted, tmp_path):
    """A copy of the good predictions, to be changed."""
    return shutil.copytree(shifted, tmp_path / "spoilt")
