"""The page of encoders and decoders: nothing is left out, and what is counted is what public code has."""

import pathlib

import pytest

from benchmarks import networks
from vspw_jax.models import segmenter

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "networks.md"


def test_every_encoder_and_decoder_is_listed():
    """In the tables and on the page, which the command wrote."""
    page = PAGE.read_text()
    for listed, kinds in ((networks.encoders(), segmenter.ENCODERS), (networks.decoders(), segmenter.DECODERS)):
        names = {(network.decoder or network.encoder).name for network in listed}
        assert names == set(kinds)
        assert all(f"| {network.title} | {(network.decoder or network.encoder).name} |" in page for network in listed)


@pytest.mark.parametrize("title", ["ResNet-50", "Swin-T", "MiT-B0", "InternImage-T", "FocalNet-B"])
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
