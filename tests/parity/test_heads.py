"""Decoders of per-pixel logits against PyTorch's heads with the same random weights, on drawn maps.

Every stage, which is a convolution with its batch norm, both logits, running statistics, and gradients of parameters
and maps, in evaluation and in training.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from configs import ocrnet
from tests.interop.conftest import tiny_fcn, tiny_hrnet, tiny_ocrnet, tiny_of_resnet, tiny_resnet, tiny_swin
from tests.parity.comparison import channels_first, draw, largest_error, load_part, weighted_gradients
from tests.torch_libraries import library
from vspw_jax.interop import namings
from vspw_jax.models import layers, segmenter
from vspw_jax.models.decoders.decoder import Training
from vspw_jax.models.folded_bias import FoldedBias

torch = pytest.importorskip("torch")

from benchmarks import torch_heads, torch_hrnet, torch_ocrnet, torch_resnet  # noqa: E402

ALLOWED = 1e-6
"""Relative error of everything. Both sides are in float64, where no ReLU's input is so near to zero that rounding gives
it another sign; only UperNet's averages over bins are float32 here."""

CLASSES, RESNET = 7, dict(width=8, depths=(1, 2, 1, 1), dim=16, auxiliary_dim=12)
OCR = dict(dim=12, key_dim=6, num_classes=CLASSES)
HRNET = dict(width=4, stem_width=6, bottleneck_width=3, bottlenecks=2, modules=(1, 2, 1), blocks=2)
IMAGES = ((96, 128), (97, 130))
"""All strides divide the first, none the second."""


class Head(NamedTuple):
    """Our network, the kind of file whose names the reference has, and the reference."""

    model: Callable[[], ConfigDict]
    naming: str
    theirs: Callable


def over_resnet():
    model = tiny_of_resnet(ocrnet)
    model.decoder.update(inputs="coarsest", dim=12, key_dim=6, auxiliary_size=3)
    return model


class JoinedFcn(torch.nn.Module):
    """HRNet's head in mmsegmentation."""

    def __init__(self):
        super().__init__()
        width = 15 * HRNET["width"]
        self.decode_head = torch_heads.MmsegFcn(width, width, CLASSES, 1, False, size=1)

    def forward(self, maps):
        return (self.decode_head(torch_hrnet.joined(maps)),)


class OwnJoinedFcn(torch.nn.Module):
    """HRNet's head in its own code."""

    def __init__(self):
        super().__init__()
        self.last_layer = torch_hrnet.HrnetFcn(HRNET, CLASSES, True).model.last_layer

    def forward(self, maps):
        return (self.last_layer(torch_hrnet.joined(maps, align_corners=True)),)


class HuggingFaceUpernet(torch.nn.Module):
    """Its two heads, on maps of the widths of `tiny_swin`."""

    def __init__(self):
        super().__init__()
        upernet = library("transformers").models.upernet.modeling_upernet
        sizes = dict(hidden_size=16, auxiliary_channels=12, auxiliary_in_channels=64, num_labels=CLASSES)
        config, widths = library("transformers").UperNetConfig(**sizes), [16, 32, 64, 128]
        self.decode_head, self.auxiliary_head = (
            head(config, widths) for head in (upernet.UperNetHead, upernet.UperNetFCNHead)
        )

    def forward(self, maps):
        return self.decode_head(maps), self.auxiliary_head(maps)


def of_resnet(make):
    return lambda: make(**RESNET, num_classes=CLASSES)


HEADS = {
    "DeepLabV3 of mmseg": Head(lambda: tiny_resnet("mmseg"), "mmseg", of_resnet(torch_heads.mmseg_deeplabv3)),
    "DeepLabV3 of torchvision": Head(
        lambda: tiny_resnet("torchvision"), "torchvision", of_resnet(torch_heads.torchvision_deeplabv3)
    ),
    "FCN of mmseg": Head(lambda: tiny_fcn("mmseg"), "mmseg", of_resnet(torch_heads.mmseg_fcn)),
    "FCN of torchvision": Head(
        lambda: tiny_fcn("torchvision"), "torchvision", of_resnet(torch_heads.torchvision_fcn_resnet)
    ),
    "FCN on all maps": Head(tiny_hrnet, "mmseg", JoinedFcn),
    "FCN on all maps, HRNet's own": Head(lambda: tiny_hrnet("hrnet"), "hrnet", OwnJoinedFcn),
    "OCRNet on ResNet": Head(
        over_resnet,
        "mmseg",
        lambda: torch_ocrnet.MmsegOcrnet(torch_ocrnet.resnet(8, (1, 2, 1, 1)), auxiliary_dim=12, **OCR),
    ),
    "OCRNet on HRNet": Head(
        tiny_ocrnet,
        "mmseg",
        lambda: torch_ocrnet.MmsegOcrnet(torch_hrnet.HRNet(**HRNET, upsampling="bilinear"), auxiliary_dim=60, **OCR),
    ),
    "OCRNet on HRNet, its own": Head(
        lambda: tiny_ocrnet("hrnet"), "hrnet", lambda: torch_ocrnet.OwnOcrnet(HRNET, **OCR)
    ),
    "UperNet on Swin": Head(tiny_swin, "hugging_face_backbone_upernet", HuggingFaceUpernet),
}


@pytest.fixture(autouse=True)
def maps_pass(monkeypatch):
    """The references are whole networks: their encoders give the maps that they are given."""
    for encoder in (torch_hrnet.HRNet, torch_resnet.ResNet):
        monkeypatch.setattr(encoder, "forward", lambda self, maps: maps)


def drawn(head, model):
    """(the reference with random weights, rows of our decoder)."""
    theirs = draw(head.theirs()).double()
    rows = [
        dataclasses.replace(row, ours=row.ours.removeprefix("decoder/"))
        for row in namings.NAMINGS[head.naming].rows(model, theirs.state_dict())
        if row.ours.startswith("decoder/")
    ]
    with torch.no_grad():
        for row in rows:  # Biases before norms are part of running means here: tests of whole files compare these.
            if isinstance(row.fit, FoldedBias):
                theirs.get_parameter(row.fit.bias).zero_()
    return theirs, rows


def drawn_maps(model, size):
    """Such as the encoder gives of three images."""
    rng, described = np.random.default_rng(0), segmenter.encoder_of(model).maps(model.encoder)
    return [rng.normal(size=(3, *(-(-side // x.stride) for side in size), x.width)) for x in described]


def their_outputs(theirs, norms, maps):
    """(outputs of the batch norms of these names, logits of both heads), channels last."""
    found = {}
    hooks = [
        theirs.get_submodule(name).register_forward_hook(lambda _, inputs, x, name=name: found.__setitem__(name, x))
        for name in norms
    ]
    logits = [x for x in theirs(maps) if x is not maps]
    for hook in hooks:
        hook.remove()
    return [x.movedim(1, -1) for x in (*(found[name] for name in norms), *logits)]


def gradient_of(tensor):
    """Channels last; of a map that the heads do not read it is 0."""
    return (torch.zeros_like(tensor) if tensor.grad is None else tensor.grad).movedim(1, -1)


def error(ours, theirs):
    """The largest difference over the largest value; regions are a map of one row in PyTorch."""
    theirs = theirs.reshape(ours.shape).numpy()
    return np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30)


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("size", IMAGES, ids=["divides", "does not divide"])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_every_stage_and_gradients(head, size, train, float64, monkeypatch):
    model = head.model()
    theirs, rows = drawn(head, model)
    norms = {
        row.ours.removesuffix("/scale"): row.theirs.removesuffix(".weight") for row in rows if "/scale" in row.ours
    }
    kind, described = segmenter.decoder_of(model), segmenter.encoder_of(model).maps(model.encoder)
    make = lambda: kind(described, CLASSES, model.decoder, "none", dtype=jnp.float64, rngs=nnx.Rngs(0))
    state, maps = load_part(make, rows, theirs, jnp.float64), drawn_maps(model, size)

    def run(decoder, maps):
        """Outputs of the norms, and logits."""
        found, paths = {}, {id(module): "/".join(map(str, path)) for path, module in nnx.iter_modules(decoder)}
        call = layers.BatchNorm.__call__
        with monkeypatch.context() as patch:
            keep = lambda norm, x, **mode: found.setdefault(paths[id(norm)], call(norm, x, **mode))
            patch.setattr(layers.BatchNorm, "__call__", keep)
            outputs = decoder(maps, Training() if train else None)
        logits = [outputs[name] for name in ("logits_NHWC", "auxiliary_logits_NHWC") if name in outputs]
        assert found.keys() == norms.keys()
        return [*(found[name] for name in norms), *logits]

    their_maps = [channels_first(x).requires_grad_() for x in maps]
    wanted = their_outputs(theirs.train(train), norms.values(), their_maps)
    weights = [np.random.default_rng(number).normal(size=x.shape[-1]) for number, x in enumerate(wanted)]
    (gradients, of_maps), (found, after) = weighted_gradients(state, maps, weights, run)
    sum((x * torch.from_numpy(weight)).mean() for x, weight in zip(wanted, weights, strict=True)).backward()
    there = {name: x.grad.numpy() for name, x in theirs.named_parameters() if x.grad is not None}
    errors = {"outputs": max(map(error, found, (x.detach() for x in wanted)))}
    errors["gradients of parameters"] = largest_error(gradients, rows, there)
    errors["gradients of maps"] = max(map(error, of_maps, map(gradient_of, their_maps)))
    if train:
        errors["statistics"] = largest_error(after, rows, {n: b.numpy() for n, b in theirs.named_buffers()})
    assert max(errors.values()) < ALLOWED, errors
