"""InternImage against a PyTorch module written from its formulas, with the same weights and OpenGVLab's names."""

import jax
import numpy as np
import pytest
from flax import nnx

from configs import upernet_internimage
from tests.interop.conftest import assert_reads, drawn, listed, tiny_internimage, variables, written
from tests.parity.comparison import (
    assert_same_maps,
    channels_first,
    checked_gradients,
    draw,
    largest_error,
    relative_error,
)
from vspw_jax.console.errors import UserError
from vspw_jax.interop import convert, namings
from vspw_jax.models import segmenter
from vspw_jax.training import train_state

torch = pytest.importorskip("torch")
from benchmarks import torch_internimage  # noqa: E402 - imports PyTorch.

FORWARD, GRADIENT = 1e-5, 1e-4
"""Relative errors allowed: the largest difference over the largest value."""
DIM, DEPTHS, GROUP = 16, (1, 2, 1, 1), 8
OPTIONS = {"T": dict(post_norm=False, reach=1.0), "XL": dict(post_norm=True, reach=2.0)}
IMAGES = ((64, 96), (75, 101))
"""Of the second no side is divided by the strides."""


def sampled(value_CHW, x, y):
    """A map at a place, in float or not: the four cells around it, of which those outside the map are zero."""
    channels, height, width = value_CHW.shape
    left, top, total = torch.floor(x), torch.floor(y), 0.0
    for row, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            cell = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            found = value_CHW.reshape(channels, -1)[:, cell]
            total = total + found * (share_y * share_x * inside)
    return total


class PointByPoint(torch_internimage.DeformableConvolution):
    """With samples by the formula, in place of a library's."""

    def sampled(self, value_NCHW, x_NHWGP, y_NHWGP, mask_NHWGP):
        images = []
        for value, x, y, mask in zip(value_NCHW, x_NHWGP, y_NHWGP, mask_NHWGP, strict=True):
            groups = []
            for g, mine in enumerate(value.chunk(self.groups)):
                points = [sampled(mine, x[:, :, g, p], y[:, :, g, p]) * mask[:, :, g, p] for p in range(9)]
                groups.append(sum(points))
            images.append(torch.cat(groups))
        return torch.stack(images)


def network(post_norm, reach, convolution=PointByPoint):
    return torch_internimage.InternImage(DIM, DEPTHS, GROUP, 2.0, post_norm, reach, convolution)


def test_the_reference_samples_as_the_benchmarks_peer():
    """The formula and PyTorch's `grid_sample`, within the map and outside."""
    formula, peer = (draw(network(True, 2.0, kind)) for kind in (PointByPoint, torch_internimage.DeformableConvolution))
    image = channels_first(np.random.default_rng(0).normal(size=(2, *IMAGES[1], 3)).astype(np.float32))
    with torch.no_grad():
        for x, wanted in zip(peer(image), formula(image), strict=True):
            assert relative_error(x.numpy(), wanted.numpy()) < FORWARD


@pytest.fixture(scope="module", params=OPTIONS.values(), ids=OPTIONS.keys())
def pair(request, tmp_path_factory):
    """(their network, ours, read from a file in OpenGVLab's names, our config.model)."""
    theirs, path = draw(network(**request.param)).eval(), tmp_path_factory.mktemp("torch") / "theirs.pth"
    torch.save({"model": theirs.state_dict()}, path)
    model = tiny_internimage(**request.param)
    return theirs, convert.load_torch(drawn(model, seed=1), path).encoder, model


def test_every_stage(pair):
    """The drawn offsets reach many cells, and beyond the map's borders."""
    theirs, ours, _ = pair
    assert_same_maps(ours, theirs, IMAGES, FORWARD)


def test_maps_and_gradients_in_training(pair):
    """Of all parameters and the image, on maps that the strides do not divide."""
    theirs, ours, model = pair
    gradients = checked_gradients(ours, theirs, IMAGES[1], (FORWARD, GRADIENT), train=True)
    wanted = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    rows = namings.NAMINGS["opengvlab_internimage"].rows(model, wanted)
    assert largest_error({"encoder": gradients}, rows, wanted) < GRADIENT


def test_files_give_every_tensor_back(pair, tmp_path):
    theirs, ours, config = pair
    model = drawn(config)
    nnx.update(model.encoder, nnx.state(ours))
    convert.save_torch(model, tmp_path / "A.pth", "opengvlab_internimage")
    found, wanted = written(tmp_path / "A.pth"), theirs.state_dict()
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(array, wanted[name].numpy()) for name, array in found.items())


@pytest.mark.parametrize("fields", OPTIONS.values(), ids=OPTIONS.keys())
def test_sizes_are_read_off_a_file_of_the_whole_network(fields, tmp_path):
    config = tiny_internimage(drop_path=0.4, **fields | {"reach": 1.0})
    config.image_size = (512, 512)
    convert.save_torch(drawn(config), tmp_path / "A.pth")
    assert assert_reads(tmp_path / "A.pth", config) == "mmseg"


def test_hugging_faces_prefix_and_a_classifier_are_left_out(tmp_path):
    """The prefix is written back, where it is asked for."""
    config = tiny_internimage()
    model = drawn(config)
    convert.save_torch(model, tmp_path / "A.pth", "opengvlab_internimage")
    arrays = {name: torch.from_numpy(array.copy()) for name, array in written(tmp_path / "A.pth").items()}
    convert.save_torch(model, tmp_path / "C.pth", "hugging_face_internimage")
    hugging_face = torch.load(tmp_path / "C.pth")
    assert hugging_face.keys() == {f"model.{name}" for name in arrays}
    assert all(torch.equal(hugging_face[f"model.{name}"], array) for name, array in arrays.items())
    arrays |= {"conv_head.0.weight": torch.ones(4, 4, 1, 1), "head.weight": torch.ones(9, 4)}
    torch.save({f"model.{name}": array for name, array in arrays.items()}, tmp_path / "B.pth")
    same = convert.load_torch(drawn(config, seed=1), tmp_path / "B.pth").encoder
    assert all(np.array_equal(variables(same)[name], array) for name, array in variables(model.encoder).items())


T = dict(dim=64, depths=(4, 4, 18, 4), reach=1.0, post_norm=False)


@pytest.mark.parametrize(("fields", "parameters"), [(T, 28.770), ({}, 328.971)])
def test_published_numbers_of_parameters(fields, parameters):
    """In millions, of InternImage-T and XL without a head."""
    config = upernet_internimage.get_config()
    config.model.encoder.update(fields)
    leaves = jax.tree.leaves(train_state.describe(config)[1]["encoder"])
    assert round(sum(np.prod(leaf.shape) for leaf in leaves) / 1e6, 3) == parameters


def test_the_released_list_of_tensors():
    config = upernet_internimage.get_config()
    weights = train_state.describe(config)[1:]
    tensors = convert.new_tensors(config.model, weights, namings.NAMINGS["opengvlab_internimage"])
    found = {name: tensor.shape for name, tensor in tensors.items()}
    assert found == listed("internimage_xl_backbone_official")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (2, 2, 6)}, "expected four counts of blocks"),
        ({"group_width": 5}, "model.encoder.group_width is 5"),
        ({"layer_scale": 0.0}, "expected numbers above 0"),
    ],
)
def test_what_makes_no_network_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        segmenter.check(tiny_internimage(**changes))
