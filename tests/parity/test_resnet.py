"""ResNet against PyTorch with the same random weights: every stage, batch statistics and gradients, either stem."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from tests.interop.conftest import drawn, listed, tiny_resnet
from tests.parity.comparison import (
    channels_last,
    draw,
    encoder_in_training,
    encoder_rows,
    largest_error,
    load_part,
    relative_error,
)
from tests.torch_libraries import library
from vspw_jax.interop import convert
from vspw_jax.models.encoders.resnet import ResNet

torch = pytest.importorskip("torch")

from benchmarks import torch_resnet  # noqa: E402

FORWARD, GRADIENT = 1e-5, 1e-9
"""Relative errors allowed: the largest difference over the largest value; gradients are taken in float64."""

WIDTH, DEPTHS = 8, (2, 1, 3, 2)
CASES = {
    "plain, stride 8": ("plain", 8, (64, 96)),
    "deep, stride 8, odd": ("deep", 8, (97, 70)),
    "plain, stride 16, odd": ("plain", 16, (97, 70)),
    "deep, stride 32": ("deep", 32, (64, 96)),
}
"""Stem, output stride, size of the image."""


def encoder_config(stem, output_stride, width=WIDTH, depths=DEPTHS):
    return ConfigDict(dict(stem=stem, width=width, depths=depths, output_stride=output_stride))


def load(config, theirs, dtype):
    make = lambda: ResNet(config, (64, 64), "none", dtype=dtype, rngs=nnx.Rngs(0))
    return load_part(make, rows_of(config, theirs.state_dict()), theirs, dtype)


def rows_of(config, names):
    return encoder_rows(ResNet, "torchvision_resnet", config, names)


def random_image(size, dtype):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(dtype)


def channels_first(image_NHWC):
    return torch.from_numpy(image_NHWC.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_stage_in_evaluation(case):
    stem, output_stride, size = case
    config = encoder_config(stem, output_stride)
    theirs = draw(torch_resnet.ResNet(stem, WIDTH, DEPTHS, output_stride)).eval()
    image = random_image(size, np.float32)
    with torch.no_grad():
        wanted = theirs(channels_first(image))
    model = nnx.merge(*load(config, theirs, jnp.float32))
    maps = jax.jit(lambda image: model(image))(image)
    described = ResNet.maps(config)
    for ours, expected, place in zip(maps, wanted, described, strict=True):
        assert ours.shape[1:] == (*(-(-side // place.stride) for side in size), place.width)
        assert relative_error(ours, channels_last(expected)) < FORWARD


@pytest.mark.parametrize(("name", "remat"), [("plain, stride 8", "none"), ("deep, stride 8, odd", "full")])
def test_statistics_and_gradients_in_training(name, remat):
    """In float64, where no ReLU's input is so near to zero that rounding gives it another sign."""
    stem, output_stride, size = CASES[name]
    config = encoder_config(stem, output_stride)
    theirs = draw(torch_resnet.ResNet(stem, WIDTH, DEPTHS, output_stride)).double().train()
    image = random_image(size, np.float64)
    with jax.enable_x64(True):
        graphdef, *arrays = load(config, theirs, jnp.float64)
        graphdef = with_remat(graphdef, *arrays, remat)
        weights = [np.random.default_rng(i).normal(size=x.width) for i, x in enumerate(ResNet.maps(config))]
        (gradients, of_image), (maps, after) = encoder_in_training((graphdef, *arrays), image, weights)
    rows = rows_of(config, theirs.state_dict())
    their_image = channels_first(image).requires_grad_()
    wanted = theirs(their_image)
    sum((x * torch.from_numpy(w)[:, None, None]).mean() for x, w in zip(wanted, weights, strict=True)).backward()
    for ours, expected in zip(maps, wanted, strict=True):
        assert relative_error(ours, channels_last(expected.detach())) < GRADIENT
    assert relative_error(of_image, channels_last(their_image.grad)) < GRADIENT
    assert largest_error(gradients, rows, {n: p.grad.numpy() for n, p in theirs.named_parameters()}) < GRADIENT
    # The moving averages are float32 here.
    assert largest_error(after, rows, {n: b.numpy() for n, b in theirs.named_buffers()}) < FORWARD


def with_remat(graphdef, params, statistics, remat):
    model = nnx.merge(graphdef, params, statistics)
    model.remat = remat
    return nnx.graphdef(model)


def test_torchvisions_list_of_tensors_is_the_references():
    """The file's names and shapes, and the published number of parameters, are what both sides are compared by."""
    wanted = {name: shape for name, shape in listed("torchvision_resnet50").items() if not name.startswith("fc.")}
    with torch.device("meta"):
        reference = torch_resnet.ResNet("plain", 64, (3, 4, 6, 3), 32)
    assert {name: tuple(x.shape) for name, x in reference.state_dict().items()} == wanted
    assert sum(x.numel() for x in reference.parameters()) + 2048 * 1000 + 1000 == 25_557_032


@pytest.mark.parametrize("dilate", [(False, False, False), (False, False, True), (False, True, True)])
def test_the_reference_is_torchvisions(dilate):
    resnet = library("torchvision").models.resnet
    theirs = resnet.ResNet(resnet.Bottleneck, list(DEPTHS), replace_stride_with_dilation=list(dilate))
    theirs = draw(theirs).eval()
    reference = torch_resnet.ResNet("plain", 64, DEPTHS, 32 >> sum(dilate)).eval()
    state = {name: x for name, x in theirs.state_dict().items() if not name.startswith("fc.")}
    reference.load_state_dict(state, strict=True)
    seen = []
    theirs.layer4.register_forward_hook(lambda module, inputs, output: seen.append(output))
    image = channels_first(random_image((97, 70), np.float32))
    with torch.no_grad():
        theirs(image)
        assert relative_error(reference(image)[-1].numpy(), seen[0]) < FORWARD


@pytest.mark.parametrize("kind", ["ResNetModel", "ResNetForImageClassification"])
def test_transformers_resnet_in_memory_and_as_saved(kind, tmp_path):
    """Maps of the network that starts from it, and its tensors given back by name."""
    transformers = library("transformers")
    widths = dict(embedding_size=WIDTH, hidden_sizes=[4 * WIDTH << stage for stage in range(4)])
    theirs = getattr(transformers, kind)(transformers.ResNetConfig(**widths, depths=list(DEPTHS), num_labels=3))
    theirs = draw(theirs).eval()
    model = tiny_resnet("torchvision")
    model.encoder.update(depths=DEPTHS, output_stride=32)
    theirs.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "memory.pth")
    for name in ("model.safetensors", "memory.pth"):
        loaded = convert.load_torch(drawn(model), tmp_path / name)
        convert.save_torch(loaded, tmp_path / "B.pth", "hugging_face_resnet")
        body = getattr(theirs, "resnet", theirs)
        wanted, found = body.state_dict(), torch.load(tmp_path / "B.pth")
        assert found.keys() == wanted.keys() and all(torch.equal(found[name], x) for name, x in wanted.items())
    image = random_image((97, 70), np.float32)
    with torch.no_grad():
        expected = body(channels_first(image), output_hidden_states=True).hidden_states[1:]
    for ours, their_map in zip(loaded.encoder(image), expected, strict=True):
        assert relative_error(ours, channels_last(their_map)) < FORWARD
