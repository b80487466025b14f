"""Folders that hold a part of a bucket go by the bucket's address."""

import io
import sys

import pytest

from vspw_jax.console import ending, places


@pytest.fixture(autouse=True)
def no_names(monkeypatch):
    monkeypatch.setattr(places, "_ADDRESSES", {})


def test_what_is_printed_has_addresses():
    places.name("/cache/x1/run", "gs://bucket/run")
    out, err = io.StringIO(), io.StringIO()
    with places.told(out, err):
        print("All scores: /cache/x1/run/evaluation.json")
        print("Warning: /cache/x1/run", file=sys.stderr)
        assert not sys.stdout.isatty()
    assert out.getvalue() == "All scores: gs://bucket/run/evaluation.json\n"
    assert err.getvalue() == "Warning: gs://bucket/run\n"


def test_a_path_without_a_name_stays():
    assert places.shown("/cache/x1/run") == "/cache/x1/run"


def test_all_that_is_left_to_the_end_is_done_the_last_first_though_one_fails():
    done = []

    def fail():
        raise ValueError("a failure")

    with pytest.raises(ValueError, match="a failure"), ending.awaited():
        ending.at_end(lambda: done.append(1))
        ending.at_end(fail)
        ending.at_end(lambda: done.append(2))
    assert done == [2, 1]
    ending.reached()
    assert done == [2, 1]
