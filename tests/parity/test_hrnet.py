"""HRNet against PyTorch with the same random weights: every map, batch statistics and gradients, each upsampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from tests.interop.conftest import listed
from tests.parity.comparison import (
    channels_last,
    draw,
    encoder_in_training,
    encoder_rows,
    largest_error,
    load_part,
    relative_error,
)
from vspw_jax.interop import convert
from vspw_jax.models import layers
from vspw_jax.models.encoders import hrnet
from vspw_jax.models.encoders.hrnet import HRNet

torch = pytest.importorskip("torch")

from benchmarks import torch_hrnet  # noqa: E402

FORWARD, GRADIENT = 1e-5, 1e-9
"""Relative errors allowed: the largest difference over the largest value; gradients are taken in float64."""

SIZES = dict(width=4, stem_width=6, bottleneck_width=3, bottlenecks=2, modules=(1, 2, 1), blocks=2)


def encoder_config(upsampling):
    return ConfigDict(dict(SIZES, upsampling=upsampling))


def pair(upsampling, dtype, remat="none"):
    """(the reference, our rows, our graphdef, parameters and statistics with its weights)."""
    config = encoder_config(upsampling)
    theirs = draw(torch_hrnet.HRNet(**SIZES, upsampling=upsampling))
    make = lambda: HRNet(config, (64, 64), remat, dtype=dtype, rngs=nnx.Rngs(0))
    rows = encoder_rows(HRNet, "hrnet_alone", config, theirs.state_dict())
    return theirs, rows, load_part(make, rows, theirs, dtype)


def random_image(size, dtype):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(dtype)


def channels_first(image_NHWC):
    return torch.from_numpy(image_NHWC.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("size", [(64, 96), (97, 70)])
def test_every_map_in_evaluation(size):
    theirs, _, state = pair("bilinear", jnp.float32)
    image = random_image(size, np.float32)
    with torch.no_grad():
        wanted = theirs.eval()(channels_first(image))
    model = nnx.merge(*state)
    maps = jax.jit(lambda image: model(image))(image)
    for ours, expected, place in zip(maps, wanted, HRNet.maps(encoder_config("bilinear")), strict=True):
        assert ours.shape[1:] == (*(-(-side // place.stride) for side in size), place.width)
        assert relative_error(ours, channels_last(expected)) < FORWARD


@pytest.mark.parametrize(
    ("upsampling", "size"),
    [("bilinear", (12, 20)), ("bilinear", (11, 17)), ("aligned", (11, 17)), ("once", (11, 17)), ("nearest", (12, 20))],
)
def test_upsamplings(upsampling, size):
    """Of a branch of a quarter of the cells a side; where a side is odd, the codes differ."""
    x = random_image((3, 5), np.float32)
    wanted = torch_hrnet.resized(channels_first(x), 4, size, upsampling)
    ours = hrnet.UPSAMPLINGS[upsampling](x, 4, size)
    np.testing.assert_allclose(ours, channels_last(wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "remat"), [((64, 32), "none"), ((49, 70), "full")])
def test_statistics_and_gradients_in_training(size, remat):
    """In float64, where no ReLU's input is so near to zero that rounding gives it another sign."""
    image = random_image(size, np.float64)
    with jax.enable_x64(True):
        theirs, rows, state = pair("bilinear", jnp.float64, remat)
        weights = [np.random.default_rng(i).normal(size=4 * 2**i) for i in range(4)]
        (gradients, of_image), (maps, after) = encoder_in_training(state, image, weights)
    theirs = theirs.double().train()
    their_image = channels_first(image).requires_grad_()
    wanted = theirs(their_image)
    sum((x * torch.from_numpy(w)[:, None, None]).mean() for x, w in zip(wanted, weights, strict=True)).backward()
    for ours, expected in zip(maps, wanted, strict=True):
        assert relative_error(ours, channels_last(expected.detach())) < GRADIENT
    assert relative_error(of_image, channels_last(their_image.grad)) < GRADIENT
    assert largest_error(gradients, rows, {n: p.grad.numpy() for n, p in theirs.named_parameters()}) < GRADIENT
    # The moving averages are float32 here.
    assert largest_error(after, rows, {n: b.numpy() for n, b in theirs.named_buffers()}) < FORWARD


@pytest.mark.parametrize(("num_classes", "aligns"), [(5, True), (19, False)])
def test_the_file_of_its_own_code(num_classes, aligns, tmp_path):
    """Read with the sizes off its tensors, under the prefix of the code's trainer; corners are aligned but for
    Cityscapes' classes, and the bias before the head's norm is in the running mean. An exported file gives the same
    logits there."""
    reference = draw(torch_hrnet.HrnetFcn(SIZES, num_classes, aligns)).eval()
    torch.save(reference.state_dict(), tmp_path / "A.pth")
    ours, config = convert.model_from_torch(tmp_path / "A.pth")
    assert config.model.encoder.to_dict() == dict(SIZES, name="hrnet", upsampling="aligned" if aligns else "once")
    assert (config.model.decoder.inputs, config.model.decoder.align_corners) == ("all", aligns)
    image = random_image((97, 70), np.float32)
    outputs = jax.jit(lambda image: ours(image[:, None]))(image)
    convert.save_torch(ours, tmp_path / "B.pth", "hrnet")
    for path in ("A.pth", "B.pth"):
        state = torch.load(tmp_path / path, weights_only=True)
        (reference if path == "A.pth" else reference.model).load_state_dict(state, strict=True)
        with torch.no_grad():
            maps, logits = reference(channels_first(image))
        assert relative_error(outputs["logits_BTHWC"][:, 0], channels_last(logits)) < FORWARD
        for x, expected in zip(outputs["encoder"], maps, strict=True):
            assert relative_error(x[:, 0], channels_last(expected)) < FORWARD


@pytest.mark.parametrize(("source", "target"), [((3, 5), (6, 9)), ((1, 4), (3, 1)), ((7, 2), (7, 5))])
def test_resizes_with_aligned_corners(source, target):
    x = np.random.default_rng(0).normal(size=(2, *source, 3)).astype(np.float32)
    wanted = torch.nn.functional.interpolate(channels_first(x), size=target, mode="bilinear", align_corners=True)
    np.testing.assert_allclose(layers.resize_aligned(x, *target), channels_last(wanted), rtol=1e-5, atol=1e-6)


def test_timms_list_of_tensors_is_the_references():
    """But for the head of classification."""
    heads = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")
    wanted = {name: shape for name, shape in listed("timm_hrnet_w48").items() if not name.startswith(heads)}
    published = dict(width=48, stem_width=64, bottleneck_width=64, bottlenecks=4, modules=(1, 4, 3), blocks=4)
    with torch.device("meta"):
        reference = torch_hrnet.HRNet(**published, upsampling="nearest")
    assert {name: tuple(x.shape) for name, x in reference.state_dict().items()} == wanted
