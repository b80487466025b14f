"""Names and shapes of the published BEiT-L with UperNet at 640 (150 classes) against the table of names."""

import csv
import pathlib

import pytest

from configs import upernet
from vspw_jax import optimizer, train_step
from vspw_jax.interop import name_maps

KEYS = pathlib.Path(__file__).parents[3] / "shared" / "reference" / "checkpoint_keys"
BUFFERS = ("relative_position_index", "num_batches_tracked")
"""Not parameters: made anew, or a count."""


def conv_module(name, channels_out, channels_in, size):
    yield f"{name}.conv.weight", (channels_out, channels_in, size, size)
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.bn.{part}", (channels_out,)


def block(name, width):
    for vector in ("gamma_1", "gamma_2", "attn.q_bias", "attn.v_bias", "attn.proj.bias", "mlp.fc2.bias"):
        yield f"{name}.{vector}", (width,)
    for norm in ("norm1", "norm2"):
        yield from ((f"{name}.{norm}.{part}", (width,)) for part in ("weight", "bias"))
    yield f"{name}.attn.relative_position_bias_table", (79 * 79 + 3, 16)
    yield f"{name}.attn.qkv.weight", (3 * width, width)
    yield f"{name}.attn.proj.weight", (width, width)
    yield f"{name}.mlp.fc1.weight", (4 * width, width)
    yield f"{name}.mlp.fc1.bias", (4 * width,)
    yield f"{name}.mlp.fc2.weight", (width, 4 * width)


def published(width=1024, classes=150):
    """microsoft/unilm beit/semantic_segmentation: the state dict but for `BUFFERS`."""
    yield "backbone.cls_token", (1, 1, width)
    yield "backbone.patch_embed.proj.weight", (width, 3, 16, 16)
    yield "backbone.patch_embed.proj.bias", (width,)
    for number in range(24):
        yield from block(f"backbone.blocks.{number}", width)
    for name in ("fpn1.0", "fpn1.3", "fpn2.0"):
        yield f"backbone.{name}.weight", (width, width, 2, 2)
        yield f"backbone.{name}.bias", (width,)
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"backbone.fpn1.1.{part}", (width,)
    for number in range(4):
        yield from conv_module(f"decode_head.psp_modules.{number}.1", width, width, 1)
    for number in range(3):
        yield from conv_module(f"decode_head.lateral_convs.{number}", width, width, 1)
        yield from conv_module(f"decode_head.fpn_convs.{number}", width, width, 3)
    yield from conv_module("decode_head.bottleneck", width, 5 * width, 3)
    yield from conv_module("decode_head.fpn_bottleneck", width, 4 * width, 3)
    yield from conv_module("auxiliary_head.convs.0", 256, width, 3)
    for head, channels in (("decode_head", width), ("auxiliary_head", 256)):
        yield f"{head}.conv_seg.weight", (classes, channels, 1, 1)
        yield f"{head}.conv_seg.bias", (classes,)


def test_the_pattern_is_that_of_the_listed_checkpoint():
    path = KEYS / "upernet_beit_large_640_ade20k.csv"
    if not path.exists():
        pytest.skip("no list of checkpoint keys here")
    with path.open(newline="") as file:
        listed = {
            row["key"]: tuple(map(int, row["shape"].split("x")))
            for row in csv.DictReader(file)
            if not row["key"].endswith(BUFFERS)
        }
    assert listed == dict(published())


def test_every_tensor_of_the_file_and_of_the_network_is_accounted_for():
    config = upernet.get_config()
    config.model.update(image_size=(640, 640), num_classes=150)
    shapes = {}
    for tree in train_step.describe(config)[1:]:
        optimizer.map_with_path(lambda path, leaf: shapes.__setitem__(path, leaf.shape), tree)
    rows = [*name_maps.beit_pyramid("encoder", "backbone", config.model.encoder)]
    rows += name_maps.upernet("decoder", "decode_head", config.model.decoder)

    # Shape here without stacked axes, in PyTorch's order, with its trailing 1x1.
    found = {}
    for row in rows:
        shape = shapes[row.ours][len(row.index) :]
        shape = tuple(shape[axis] for axis in row.layout.to_torch or range(len(shape)))
        assert row.theirs not in found
        found[row.theirs] = shape + (1,) * row.layout.pad
    assert {name: shape for name, shape in found.items() if not name.endswith(BUFFERS)} == dict(published())
    assert {row.ours for row in rows} == shapes.keys()
    places = [(row.ours, row.index) for row in rows]
    assert len(set(places)) == len(places)
