"""Data that several tests of the input read."""

import pytest

from data_prep import generate, vspw
from data_prep.drawing import layouts


@pytest.fixture(scope="package")
def image_records(tmp_path_factory):
    """Seven drawn single images of another size, converted."""
    folder = tmp_path_factory.mktemp("images")
    generate.generate(folder / "source", lambda aside: layouts.write_vspw(aside, {"train": 7}, 1, 60, 50, 1))
    vspw.convert(folder / "source", folder / "records")
    return folder / "records"
