"""The table of names against the released networks' lists of tensors, at full size and without allocating them."""

import csv
import functools
import pathlib

import numpy as np
import pytest

from configs import baseline, upernet
from tests.interop.conftest import drawn, tiny_upernet, variables
from vspw_jax.interop import convert, namings
from vspw_jax.models import segmenter
from vspw_jax.training import train_state

KEYS = pathlib.Path(__file__).parent / "keys"


def listed(name):
    with (KEYS / f"{name}.csv").open(newline="") as file:
        return {
            row["key"]: () if row["shape"] == "scalar" else tuple(map(int, row["shape"].split("x")))
            for row in csv.DictReader(file)
        }


@functools.cache
def full_size(crop, num_classes=124):
    """(config, abstract params and model_state) of the full recipe."""
    config = baseline.get_config()
    config.model.update(image_size=(crop, crop), num_classes=num_classes)
    return config, train_state.describe(config)[1:]


def exported(config, weights, naming):
    tensors = convert.new_tensors(config.model, weights, namings.NAMINGS[naming])
    return {name: tensor.shape for name, tensor in tensors.items()}


@pytest.mark.parametrize("num_classes", [150, 171])
def test_the_896_network_has_the_released_tensors(num_classes):
    wanted = listed("mask2former_896_ade20k")
    wanted["decode_head.cls_embed.weight"], wanted["decode_head.cls_embed.bias"] = (
        (num_classes + 1, 1024),
        (num_classes + 1,),
    )
    assert len(wanted) == 942
    assert exported(*full_size(896, num_classes), "mmseg") == wanted


def test_plain_beit_with_upernet_has_the_released_tensors():
    config = upernet.get_config()
    config.model.update(image_size=(640, 640), num_classes=150)
    wanted = listed("upernet_640_ade20k")
    assert len(wanted) == 504
    assert exported(config, train_state.describe(config)[1:], "mmseg") == wanted


def test_beitv2_is_the_encoder_and_a_head():
    wanted = {name: shape for name, shape in listed("beitv2_large").items() if not name.startswith(("fc_norm", "head"))}
    assert exported(*full_size(224), "unilm") == wanted


def millions(params):
    return sum(np.prod(leaf.shape, dtype=np.int64) for leaf in convert.leaves_by_path(params).values()) / 1e6


def test_the_published_sizes():
    """Of czczup/ViT-Adapter segmentation/README.md: 571 M and 120 M."""
    assert round(millions(full_size(896, 150)[1][0]), 2) == 570.74
    config = baseline.get_config()
    config.model.update(image_size=(512, 512), num_classes=150)
    config.model.encoder.update(dim=768, depth=12, heads=12, adapter_heads=12)
    config.model.decoder.update(dim=256, heads=8, encoder_ffn_dim=1024, ffn_dim=2048, num_queries=100)
    assert round(millions(train_state.describe(config)[1]), 1) == 120.2


@pytest.mark.parametrize("naming", namings.NAMINGS)
@pytest.mark.parametrize("network", ["vit_adapter, mask2former", "beit, upernet"])
def test_every_place_of_a_variable_has_one_name(tiny, naming, network):
    """Rows fill each of the places they claim once; a whole naming claims all places of the network."""
    config, model = tiny if network.endswith("mask2former") else (tiny_upernet(), drawn(tiny_upernet()))
    parts = [segmenter.encoder_of(config)]
    parts += [segmenter.decoder_of(config)] if namings.NAMINGS[naming].decoder is not None else []
    if not all(naming in part.TORCH_NAMES for part in parts):
        pytest.skip("such files hold another network")
    rows = namings.NAMINGS[naming].rows(config, ())
    filled = {path: np.zeros(array.shape, np.int32) for path, array in variables(model).items()}
    for row in rows:
        row.view(filled[row.ours])[...] += 1
    assert {int(array.max(initial=0)) for array in filled.values()} <= {0, 1}
    assert all(array.min() == array.max() for array in filled.values())
    if namings.NAMINGS[naming].whole(config):
        assert all(array.min() == 1 for array in filled.values())
