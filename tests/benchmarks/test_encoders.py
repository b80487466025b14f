"""An encoder beside its peer: no figure where they differ."""

import argparse
import functools

import pytest

from tests.torch_libraries import library
from vspw_jax.console.errors import UserError

torch = pytest.importorskip("torch")
library("transformers")
from benchmarks import encoders, torch_internimage  # noqa: E402 - imports PyTorch.

FLAGS = argparse.Namespace(crop=32, batch=1, rounds=1, clock="cpu")
SIZES = dict(dim=16, depths=(1, 1, 1, 1), group_width=8, mlp_ratio=2.0, post_norm=False, reach=1.0)
SMALL = encoders.Pair(
    "small",
    encoders.section(encoders.models.internimage_xl, **SIZES),
    lambda side: torch_internimage.InternImage(**SIZES),
    lambda network, image: network(image),
)


def test_a_row_of_the_table(monkeypatch):
    monkeypatch.setitem(encoders.PAIRS, "small", SMALL)
    cells = encoders.row("small", FLAGS).strip("| ").split(" | ")
    assert cells[0] == "small" and len(cells) == 9
    for here, there, ratio in (cells[2:5], cells[5:8]):
        assert float(here) > 0 and float(there) > 0 and float(ratio) > 0


class OfAnotherReach(torch_internimage.DeformableConvolution):
    """Not the same network, with the same weights."""

    def __init__(self, dim, group_width, reach):
        super().__init__(dim, group_width, 2 * reach)


def test_no_figure_for_another_network(monkeypatch):
    other = functools.partial(torch_internimage.InternImage, **SIZES, convolution=OfAnotherReach)
    monkeypatch.setitem(encoders.PAIRS, "other", SMALL._replace(theirs=lambda side: other()))
    with pytest.raises(UserError, match="other differs from its peer: maps by"):
        encoders.row("other", FLAGS)


def test_an_unknown_name(monkeypatch):
    monkeypatch.setattr("sys.argv", ["encoders", "--encoders=swin,bert"])
    with pytest.raises(UserError, match="No encoder here is called bert: expected some of resnet"):
        encoders.main()
