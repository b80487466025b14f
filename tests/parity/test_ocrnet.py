"""OCRNet against PyTorch with the same random weights, through files in mmsegmentation's and HRNet's own names.

The files are read by `convert.model_from_torch`, so what is compared has the sizes that were read off the tensors.
"""

import re

import jax
import numpy as np
import pytest
from flax import nnx

from configs import deeplabv3, ocrnet
from configs.parts import models
from tests.interop.conftest import listed
from tests.parity.comparison import (
    channels_first,
    channels_last,
    draw,
    largest_error,
    loaded,
    relative_error,
    training_gradients,
)
from vspw_jax.interop import convert, namings

torch = pytest.importorskip("torch")

from benchmarks import torch_hrnet, torch_ocrnet  # noqa: E402

FORWARD, IN_FLOAT64 = 1e-5, 1e-9
"""Relative errors allowed: the largest difference over the largest value. In float32 the softmaxes of regions and
attention multiply the rounding of their logits, to 2e-5 at 75x101: other sizes are compared there."""

CLASSES = 7
HRNET = dict(width=4, stem_width=6, bottleneck_width=3, bottlenecks=2, modules=(1, 1, 1), blocks=1)
HEAD = dict(dim=12, key_dim=6, num_classes=CLASSES)


def over_hrnet():
    backbone = torch_hrnet.HRNet(**HRNET, upsampling="bilinear")
    return torch_ocrnet.MmsegOcrnet(backbone, auxiliary_dim=60, **HEAD)


def over_resnet():
    return torch_ocrnet.MmsegOcrnet(torch_ocrnet.resnet(4, (1, 1, 1, 1)), auxiliary_dim=10, **HEAD)


NETWORKS = {
    "over HRNet": ("mmseg", over_hrnet, "all", (64, 96)),
    "over ResNet": ("mmseg", over_resnet, "coarsest", (97, 70)),
    "HRNet's own": ("hrnet", lambda: torch_ocrnet.OwnOcrnet(HRNET, **HEAD), "all", (97, 70)),
}
"""Kind of file, the reference's network, the maps that it reads, the size of the image."""


def drawn(make):
    """The reference with weights whose softmaxes are not sharp: these would multiply the rounding of their logits."""
    theirs = draw(make())
    with torch.no_grad():
        for name, tensor in theirs.state_dict().items():
            if re.search(r"(head\.0\.conv_seg|aux_head\.3|query_project\.1\.bn|f_pixel\.3\.0)\.(weight|bias)$", name):
                tensor *= 0.05
    return theirs


@pytest.mark.parametrize("name", NETWORKS)
def test_both_heads_in_evaluation(name, tmp_path):
    """And an exported file is loaded strictly, and gives the same."""
    naming, make, inputs, size = NETWORKS[name]
    theirs = drawn(make).eval()
    torch.save(theirs.state_dict(), tmp_path / "A.pth")
    ours, config = convert.model_from_torch(tmp_path / "A.pth")
    decoder = config.model.decoder
    assert (decoder.name, decoder.inputs, decoder.dim, decoder.key_dim) == ("ocrnet", inputs, 12, 6)
    assert config.model.num_classes == CLASSES
    image = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    graphdef, state = nnx.split(ours)
    outputs = jax.jit(lambda state, image: nnx.merge(graphdef, state)(image[:, None]))(state, image)
    convert.save_torch(ours, tmp_path / "B.pth", naming)
    exported = torch.load(tmp_path / "B.pth", weights_only=True)
    for state in (theirs.state_dict(), exported.get("state_dict", exported)):
        theirs.load_state_dict(state, strict=True)
        with torch.no_grad():
            maps, logits, guess = theirs(channels_first(image))
        assert relative_error(outputs["logits_BTHWC"][:, 0], channels_last(logits)) < FORWARD
        assert relative_error(outputs["auxiliary_logits_BTHWC"][:, 0], channels_last(guess)) < FORWARD
        assert relative_error(outputs["encoder"][0][:, 0], channels_last(maps[0])) < FORWARD
    if naming == "mmseg":
        assert all(torch.equal(tensor, exported["state_dict"][name]) for name, tensor in theirs.state_dict().items())


def test_both_heads_in_float64(float64):
    theirs = drawn(over_hrnet).double().eval()
    size = (75, 101)
    config = ocrnet.get_config("demo")
    config.model.update(image_size=size, num_classes=CLASSES, dtype="float64")
    config.model.encoder.update(HRNET)
    config.model.decoder.update(dim=12, key_dim=6, auxiliary_dim=60)
    rows = namings.NAMINGS["mmseg"].rows(config.model, theirs.state_dict())
    state = loaded(config, rows, {name: x.numpy() for name, x in theirs.state_dict().items()})
    image = np.random.default_rng(0).normal(size=(2, *size, 3))
    outputs = jax.jit(lambda image: nnx.merge(*state)(image[:, None]))(image)
    with torch.no_grad():
        _, logits, guess = theirs(channels_first(image))
    assert relative_error(outputs["logits_BTHWC"][:, 0], channels_last(logits)) < IN_FLOAT64
    assert relative_error(outputs["auxiliary_logits_BTHWC"][:, 0], channels_last(guess)) < IN_FLOAT64


def test_loss_and_gradients_of_a_training_step(float64):
    """The recipe's loss of both heads, batch norms in training; the second head's gradients pass into the first."""
    theirs = drawn(over_resnet).double().train()
    size, rng = (66, 49), np.random.default_rng(1)
    config = deeplabv3.get_config("demo")
    config.model.update(image_size=size, num_classes=CLASSES, dtype="float64")
    config.model.encoder.update(stem="deep", width=4, depths=(1, 1, 1, 1))
    config.model.decoder = models.ocrnet(models.hrnet_w48())
    config.model.decoder.update(inputs="coarsest", dim=12, key_dim=6, auxiliary_dim=10, auxiliary_size=3)
    image = rng.normal(size=(3, 1, *size, 3))
    label = np.kron(rng.choice([*range(CLASSES), 255], (3, 1, 11, 7)), np.ones((6, 7))).astype(np.int32)
    rows = namings.NAMINGS["mmseg"].rows(config.model, theirs.state_dict())
    state = loaded(config, rows, {name: x.numpy() for name, x in theirs.state_dict().items()})
    loss, gradients = training_gradients(config, state, {"image_BTHWC": image, "label_BTHW": label})

    their_loss = 0.0
    for weight, logits in zip((1.0, 0.4), theirs(channels_first(image[:, 0]))[1:], strict=True):
        logits = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        target = torch.from_numpy(label[:, 0]).long()
        their_loss += weight * torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
    their_loss.backward()
    assert float(loss) == pytest.approx(their_loss.item(), rel=IN_FLOAT64)
    wanted = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    assert largest_error(gradients, rows, wanted) < IN_FLOAT64


def test_the_released_list_of_tensors_is_the_references():
    published = dict(width=48, stem_width=64, bottleneck_width=64, bottlenecks=4, modules=(1, 4, 3), blocks=4)
    with torch.device("meta"):
        backbone = torch_hrnet.HRNet(**published, upsampling="bilinear")
        reference = torch_ocrnet.MmsegOcrnet(backbone, 512, 256, 720, 150)
    wanted = listed("mmseg_ocrnet_hrnetv2_w48_ade20k")
    assert {name: tuple(x.shape) for name, x in reference.state_dict().items()} == wanted
