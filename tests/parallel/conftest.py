"""The small network of program.py, for tests in this process."""

import importlib.util
import pathlib

import pytest

from vspw_jax.models import segmenter

PROGRAM = pathlib.Path(__file__).with_name("program.py")


@pytest.fixture(scope="session")
def program():
    """The module that the processes run."""
    spec = importlib.util.spec_from_file_location("program", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:  # It puts its network in the others' place.
        for table in (segmenter.ENCODERS, segmenter.DECODERS):
            for name, value in table.items():
                patch.setitem(table, name, value)
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def small_network(program, monkeypatch):
    """`configs/upernet.py` has the small network."""
    monkeypatch.setitem(segmenter.ENCODERS, "beit", program.Encoder)
    monkeypatch.setitem(segmenter.DECODERS, "upernet", program.Decoder)
