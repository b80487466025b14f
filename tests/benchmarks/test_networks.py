"""The page of encoders and decoders: nothing is left out, and what is counted is what public code has."""

import pathlib

import jax.numpy as jnp
import pytest
from flax import nnx

from benchmarks import networks
from configs.parts import models
from vspw_jax.models import segmenter

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "networks.md"


def test_every_encoder_and_decoder_is_listed():
    """In the tables and on the page, which the command wrote."""
    page = PAGE.read_text()
    for listed, kinds in ((networks.encoders(), segmenter.ENCODERS), (networks.decoders(), segmenter.DECODERS)):
        names = {(network.decoder or network.encoder).name for network in listed}
        assert names == set(kinds)
        assert all(f"| {network.title} | {(network.decoder or network.encoder).name} |" in page for network in listed)


COSTED = ("ResNet-50", "ResNet-101", "HRNetV2-W48", "Swin-T", "Swin-S", "Swin-B", "Swin-L", "MiT-B0")


@pytest.mark.parametrize("title", [*COSTED, "InternImage-T", "FocalNet-B"])
def test_an_encoder_costs_what_public_code_does(title):
    """Parameters to the last digit, operations to 1 %; and the page has what is counted."""
    network = next(network for network in networks.encoders() if network.title.startswith(title))
    found, _ = networks.cost_of_encoder(network.encoder)
    assert round(found.parameters, 3) == network.public.parameters
    assert found.macs == pytest.approx(network.public.macs, rel=0.01)
    assert networks.row(network, found) in PAGE.read_text()


def test_the_page_agrees_with_public_code():
    """Parameters to the last digit, operations to 1 %."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    compared = 0
    for _, name, *_, parameters, macs, public_parameters, public_macs in (row for row in rows if len(row) > 5):
        if "." in public_parameters:
            assert parameters == public_parameters
        if "." in public_macs:
            assert float(macs) == pytest.approx(float(public_macs), rel=0.01), name
            compared += 1
    assert compared > 15


def test_decoders_cost_what_the_page_says():
    """A change of a decoder's parts or of its recipe's fields makes the page untrue: run its command again."""
    wanted = [network for network in networks.decoders() if network.title in ("Decoder A", "DeepLabV3", "TMANet")]
    assert all(networks.row(network, networks.cost_of_decoder(network)) in PAGE.read_text() for network in wanted)


def resnet(depths, stem):
    return networks.changed(models.resnet_101(), depths=depths, stem=stem, output_stride=32)


R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)
WITH_UPERNET = {
    "ResNet-50": (resnet(R50, "deep"), 67),
    "ResNet-101": (resnet(R101, "deep"), 86),
    "Swin-T": (networks.swin(dim=96, depths=(2, 2, 6, 2)), 59.942),
    "Swin-S": (models.swin_small(), 81.260),
    "Swin-B": (models.swin_base(), 121.280),
    "Swin-B, windows of 12": (networks.swin(window=12), 121.415),
    "Swin-L, windows of 12": (networks.swin(dim=192, window=12), 233.963),
}
"""Millions of parameters for ADE20K, with the auxiliary head, 512 wide. Swin: counted in mmsegmentation's code. ResNet,
which public code rounds to a million: Swin's and Vim's papers, arXiv 2103.14030 and 2401.09417."""
WITH_MASK2FORMER = {
    "ResNet-50": (resnet(R50, "plain"), 44, 100),
    "ResNet-101": (resnet(R101, "plain"), 63, 100),
    "Swin-T": (networks.swin(dim=96, depths=(2, 2, 6, 2)), 47, 100),
    "Swin-S": (models.swin_small(), 69, 100),
    "Swin-B, windows of 12": (networks.swin(window=12), 107, 100),
    "Swin-L, windows of 12": (networks.swin(dim=192, window=12), 216, 200),
}
"""Millions of parameters for COCO's 133 panoptic classes, rounded to a million, and queries: Mask2Former's paper, arXiv
2112.01527, table 1. Batch norms are frozen there: 0.1 million scales and biases that may count or not."""


def parameters(encoder, decoder, num_classes):
    """Millions, in a whole network."""
    kind, options = segmenter.ENCODERS[encoder.name], lambda: dict(dtype=jnp.float32, rngs=nnx.Rngs(0))
    decoder_kind, maps = segmenter.DECODERS[decoder.name], kind.maps(encoder)
    make_encoder = lambda: kind(encoder, networks.CROP, "none", **options())
    make_decoder = lambda: decoder_kind(maps, num_classes, decoder, "none", **options())
    return sum(networks.millions(nnx.state(nnx.eval_shape(make), nnx.Param)) for make in (make_encoder, make_decoder))


@pytest.mark.parametrize("name", WITH_UPERNET)
def test_published_numbers_of_parameters_with_upernet(name):
    encoder, millions = WITH_UPERNET[name]
    found = parameters(encoder, networks.changed(models.upernet(), dim=512), networks.CLASSES)
    assert round(found, 0 if isinstance(millions, int) else 3) == millions


@pytest.mark.parametrize("name", WITH_MASK2FORMER)
def test_published_numbers_of_parameters_with_mask2former(name):
    encoder, millions, queries = WITH_MASK2FORMER[name]
    sizes = dict(dim=256, heads=8, encoder_ffn_dim=1024, ffn_dim=2048, num_queries=queries)
    assert round(parameters(encoder, networks.changed(models.mask2former(), **sizes), 133)) == millions
