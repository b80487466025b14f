"""An encoder or a whole network beside its peer: no figure where they differ."""

import argparse
import re

import pytest

from configs.parts import models
from tests.torch_libraries import library
from vspw_jax.console.errors import UserError

library("transformers")
from benchmarks import encoders  # noqa: E402 - imports PyTorch.

FLAGS = argparse.Namespace(crop=32, batch=2, rounds=1, clock="cpu")
SIZES = dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))
SMALL = encoders.Pair(
    "small",
    encoders.section(models.mit_b2, **SIZES, head_dim=8, epsilons="hugging_face"),
    lambda side: encoders.segformer(**SIZES),
    encoders.of_segformer,
)


OF_MIT_B0 = dict(depths=(1, 1, 1, 1), dims=(32, 64, 160, 256), decoder_hidden_size=8, num_labels=3)
NETWORK = encoders.Pair(
    "a whole network",
    None,
    lambda side: encoders.segformer(kind="SegformerForSemanticSegmentation", **OF_MIT_B0),
    lambda module, image: [module(image).logits],
)


@pytest.mark.parametrize(("pair", "millions"), [(SMALL, "0.1"), (NETWORK, "1.9")])
def test_a_row_of_the_table(pair, millions, monkeypatch):
    monkeypatch.setitem(encoders.PAIRS, "small", pair)
    monkeypatch.setattr(encoders.measure, "take_turns", lambda functions, *_: [3.0, 2.0])
    cells = encoders.row("small", FLAGS).strip("| ").split(" | ")
    assert cells[:-1] == [pair.title, millions, "3.000", "2.000", "1.50", "3.000", "2.000", "1.50"]
    assert int(cells[-1]) >= 0


@pytest.mark.parametrize(
    ("changes", "found"), [(dict(hidden_act="relu"), "outputs"), (dict(drop_path_rate=0.9), "grad")]
)
def test_no_figure_for_another_network(changes, found, monkeypatch):
    """Of another activation, and of one that differs in training alone."""
    monkeypatch.setitem(
        encoders.PAIRS, "other", SMALL._replace(theirs=lambda side: encoders.segformer(**SIZES, **changes))
    )
    with pytest.raises(UserError, match="small differs from its peer") as error:
        encoders.row("other", FLAGS)
    outputs, gradients = (float(x) for x in re.findall(r"\d\.\de[+-]\d\d", str(error.value)))
    assert outputs > 1e-4 if found == "outputs" else outputs < 1e-5 and gradients > 1e-2


def test_an_unknown_name(monkeypatch):
    monkeypatch.setattr("sys.argv", ["encoders", "--networks=swin,bert"])
    with pytest.raises(UserError, match="No network here is called bert: expected some of resnet"):
        encoders.main()


def test_a_network_of_one_image_is_refused(monkeypatch):
    monkeypatch.setattr("sys.argv", ["encoders", "--batch=1"])
    with pytest.raises(UserError, match="--batch is 1: expected 2 or more for deeplabv3, upernet_swin"):
        encoders.main()
