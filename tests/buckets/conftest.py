"""Buckets on this machine; without the packages that bring their servers these tests are skipped."""

import contextlib
import itertools

import pytest
from fsspec.registry import get_filesystem_class

from benchmarks.buckets import servers
from vspw_jax.buckets import answers, cache, fetched, mirrors
from vspw_jax.console import ending, places

_NUMBERS = itertools.count()


@pytest.fixture(scope="session", params=servers.KINDS)
def line(request):
    """(kind, the line to its server) of each kind of bucket."""
    if missing := servers.missing(request.param):
        pytest.skip(f"{', '.join(missing)} not installed")
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(servers.running(request.param))
        get_filesystem_class(request.param).clear_instance_cache()  # Each would know the server before this one.
        yield request.param, found


@pytest.fixture
def mended(line, monkeypatch, tmp_path):
    """(kind, line without faults), the environment set for it, and a cache of its own."""
    kind, found = line
    found.mend()
    for name, value in servers.variables(kind, found.url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(answers, "PATIENCE_SECONDS", 5.0)
    monkeypatch.setattr(answers, "FIRST_WAIT", 0.1)
    fetched.copy_of.cache_clear()
    fetched.copy_of_records.cache_clear()
    yield kind, found
    found.mend()
    ending.reached()
    places._ADDRESSES.clear()
    mirrors._OPEN.clear()


@pytest.fixture
def address(mended):
    """An address in the bucket under which nothing is, with a space and letters beyond ASCII."""
    return f"{mended[0]}://{servers.BUCKET}/{next(_NUMBERS)} über/runs"
