"""The page of encoders and decoders: nothing is left out, and what is counted is what public code has."""

import pathlib

import jax.numpy as jnp
import pytest
from flax import nnx

from benchmarks import networks
from configs.parts import models
from vspw_jax.console.errors import UserError
from vspw_jax.models import segmenter

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "networks.md"


def test_every_encoder_and_decoder_is_listed():
    """In the tables and on the page, which the command wrote."""
    page = PAGE.read_text()
    assert all(f"| {network.title} | {network.size[0]}x{network.size[1]} |" in page for network in networks.wholes())
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
    kinds = segmenter.ENCODERS.keys() | segmenter.DECODERS.keys()
    for _, name, *_, parameters, macs, public_parameters, public_macs in (row for row in rows if row[1] in kinds):
        if "." in public_parameters:
            assert parameters == public_parameters
        if "." in public_macs:
            assert float(macs) == pytest.approx(float(public_macs), rel=0.01), name
            compared += 1
    assert compared > 15


def test_whole_networks_on_the_page_have_their_published_figures():
    """Parameters to the digits published, operations to 1 % of what may be rounded to whole ones."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if " on " in line]
    compared = [row[2:] for row in rows if len(row) == 6 and "x" in row[1]]
    assert len(compared) == len(networks.wholes())
    for parameters, macs, published, published_macs in compared:
        assert float(parameters) == pytest.approx(float(published), abs=0.5)
        if published_macs != "-":
            assert float(macs) == pytest.approx(float(published_macs), abs=0.01 * float(published_macs) + 0.5)


@pytest.mark.parametrize("title", ["UperNet on Swin-T", "Mask2Former on ResNet-50"])
def test_a_whole_network_costs_what_the_page_says(title):
    network = next(network for network in networks.wholes() if network.title == title)
    assert networks.whole_row(network, networks.cost_of_whole(network)) in PAGE.read_text()


def test_another_crop_has_other_operations(monkeypatch, capsys):
    """And none of public code, which are those of the usual crop."""
    networks_of = [network for network in networks.encoders() if network.title == "MiT-B0"]
    monkeypatch.setattr(networks, "encoders", lambda: networks_of)
    monkeypatch.setattr(networks, "decoders", list)
    monkeypatch.setattr(networks, "wholes", list)
    monkeypatch.setattr("sys.argv", ["networks", "--crop=256"])
    networks.main()
    found = capsys.readouterr().out
    assert "python -m benchmarks.networks --crop=256\n" in found and "one image of 256x256" in found
    (line,) = (line for line in found.splitlines() if line.startswith("| MiT-B0 | mit | 3.32 | "))
    assert line.endswith(" | 3.32 | - |") and 3.2 / 4 / 2 < float(line.split(" | ")[3]) <= 3.2 / 4
    monkeypatch.setattr("sys.argv", ["networks", "--crop=500"])
    with pytest.raises(UserError, match="--crop=500: expected a multiple of 32"):
        networks.main()


def test_decoders_cost_what_the_page_says():
    """A change of a decoder's parts or of its recipe's fields makes the page untrue: run its command again."""
    wanted = [network for network in networks.decoders() if network.title in ("Decoder A", "DeepLabV3", "TMANet")]
    assert all(networks.row(network, networks.cost_of_decoder(*network[1:3])) in PAGE.read_text() for network in wanted)


def resnet(size, stem):
    return networks.changed(networks.sized(models.resnet_101(), size), stem=stem, output_stride=32)


def swin(size):
    return networks.sized(models.swin_base(), size)


WITH_UPERNET = {
    "ResNet-50": (resnet("ResNet-50", "deep"), 67),
    "ResNet-101": (resnet("ResNet-101", "deep"), 86),
    "Swin-T": (swin("Swin-T"), 59.942),
    "Swin-S": (swin("Swin-S"), 81.260),
    "Swin-B": (swin("Swin-B"), 121.280),
    "Swin-B, windows of 12": (swin("Swin-B with windows of 12"), 121.415),
    "Swin-L, windows of 12": (swin("Swin-L with windows of 12"), 233.963),
}
"""Millions of parameters for ADE20K, with the auxiliary head, 512 wide. Swin: counted in mmsegmentation's code. ResNet,
which public code rounds to a million: Swin's and Vim's papers, arXiv 2103.14030 and 2401.09417."""
WITH_MASK2FORMER = {
    "ResNet-50": (resnet("ResNet-50", "plain"), 44, 100),
    "ResNet-101": (resnet("ResNet-101", "plain"), 63, 100),
    "Swin-T": (swin("Swin-T"), 47, 100),
    "Swin-S": (swin("Swin-S"), 69, 100),
    "Swin-B, windows of 12": (swin("Swin-B with windows of 12"), 107, 100),
    "Swin-L, windows of 12": (swin("Swin-L with windows of 12"), 216, 200),
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
    decoder = networks.changed(networks.mask2former_256(), num_queries=queries)
    assert round(parameters(encoder, decoder, 133)) == millions
