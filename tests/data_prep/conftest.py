"""What the tests of the converters share."""

import shutil

import pytest


@pytest.fixture
def source(generated_vspw, tmp_path):
    """A copy of the generated folder, to be damaged."""
    return shutil.copytree(generated_vspw, tmp_path / "source")
