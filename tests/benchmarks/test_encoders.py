"""An encoder beside its peer: no figure where they differ."""

import argparse

import pytest

from tests.torch_libraries import library
from vspw_jax.console.errors import UserError

torch = pytest.importorskip("torch")
library("transformers")
from benchmarks import encoders  # noqa: E402 - imports PyTorch.

FLAGS = argparse.Namespace(crop=32, batch=1, rounds=1, clock="cpu")
SIZES = dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))
SMALL = encoders.Pair(
    "small",
    encoders.section(encoders.models.mit_b2, **SIZES, head_dim=8, epsilons="hugging_face"),
    lambda side: encoders.segformer(**SIZES),
    encoders.of_segformer,
)


def test_a_row_of_the_table(monkeypatch):
    monkeypatch.setitem(encoders.PAIRS, "small", SMALL)
    cells = encoders.row("small", FLAGS).strip("| ").split(" | ")
    assert cells[0] == "small" and len(cells) == 9
    for here, there, ratio in (cells[2:5], cells[5:8]):
        assert float(here) > 0 and float(there) > 0 and float(ratio) > 0


def test_no_figure_for_another_network(monkeypatch):
    other = lambda side: encoders.segformer(**SIZES, hidden_act="relu")
    monkeypatch.setitem(encoders.PAIRS, "other", SMALL._replace(theirs=other))
    with pytest.raises(UserError, match="other differs from its peer: maps by"):
        encoders.row("other", FLAGS)


def test_an_unknown_name(monkeypatch):
    monkeypatch.setattr("sys.argv", ["encoders", "--encoders=swin,bert"])
    with pytest.raises(UserError, match="No encoder here is called bert: expected some of resnet"):
        encoders.main()
