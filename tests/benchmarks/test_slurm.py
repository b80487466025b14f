"""The trial of SLURM's launcher: what it refuses before it starts a cluster."""

import pytest

from benchmarks.slurm import __main__ as trial
from benchmarks.slurm import cluster
from vspw_jax.console.errors import UserError


def test_what_it_cannot_begin_with_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PROGRAMS", ("sh",))
    for arguments, message in (
        (["--steps=99"], "--steps=99: expected 100 or more"),
        ([f"--output={tmp_path}"], f"{tmp_path} exists: expected a new folder"),
    ):
        with pytest.raises(UserError, match=message):
            trial.main(arguments)
    monkeypatch.setattr(cluster, "PROGRAMS", ("sh", "no_such_daemon"))
    with pytest.raises(UserError, match="^no_such_daemon not found: install SLURM"):
        trial.main([])


def test_what_does_not_happen_ends_the_wait():
    with pytest.raises(TimeoutError, match="within 0 s that pigs fly"):
        cluster.wait_until(lambda: False, 0, "pigs fly")
