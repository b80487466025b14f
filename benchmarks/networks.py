"""Every encoder and decoder: its parameters, and the multiplications of a forward pass, as docs/networks.md lists them.

    python -m benchmarks.networks --crop=512

It prints that page; nothing is run. A multiplication with its addition (MAC) counts once, in convolutions and matrix
products. What counts is what does in public code: depthwise convolutions, which are sums of products here, and cells
that pad Swin's windows; not resizes, which are matrix products here, nor sampling at offsets. Published "FLOPs" are
such MACs. Networks have ADE20K's 150 classes and a crop of 512, as is usual.

Beside them stand the figures of public code, counted in the same way: parameters of backbones by mmsegmentation's code,
operations by its and the authors'; both of SegFormer by transformers'. Those of whole networks are their authors', of
arXiv 2112.01527, table V (Mask2Former), and the README.md of SwinTransformer/Swin-Transformer-Semantic-Segmentation,
OpenGVLab/InternImage and microsoft/FocalNet; Swin-L's operations of arXiv 2201.03545, where the repository has 3230
GMAC. Those of DeepLabV3, FCN and OCRNet are of mmsegmentation's code.
"""

import argparse
import contextlib
import functools
import math
import unittest.mock
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict, FrozenConfigDict

from configs.parts import models
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.inspection import step_cost
from vspw_jax.models import convolution, deformable_attention, layers, segmenter

CROP, CLASSES = (512, 512), 150
"""Where nothing else is said."""
RESIZES = ("_resize", "resize_aligned")
"""Names of the traced functions that resize."""


class Cost(NamedTuple):
    """Millions of parameters and thousand millions of MACs; None where nobody counted."""

    parameters: float | None = None
    macs: float | None = None


UNKNOWN = Cost()


class Network(NamedTuple):
    """An encoder or a decoder of a name, with the encoder that gives a decoder its maps."""

    title: str
    encoder: ConfigDict
    decoder: ConfigDict | None = None
    public: Cost = UNKNOWN


class Whole(NamedTuple):
    """A published network, and the image (height, width) of which its operations were published."""

    title: str
    encoder: ConfigDict
    decoder: ConfigDict
    size: layers.Size
    published: Cost


def changed(config: ConfigDict, **fields: object) -> ConfigDict:
    """The section with other fields."""
    config.update(fields)
    return config


def sized(encoder: ConfigDict, size: str) -> ConfigDict:
    """The encoder in the published size of a name."""
    return changed(encoder, **segmenter.ENCODERS[encoder.name].PUBLISHED[size])


def published(encoder: ConfigDict, size: str, public: Cost = UNKNOWN) -> Network:
    """The encoder in the published size of a name, which is its title."""
    return Network(size, sized(encoder, size), public=public)


def encoders() -> list[Network]:
    """Those that released weights have."""
    resnet, hrnet, swin, mit = models.resnet_101, models.hrnet_w48, models.swin_base, models.mit_b2
    focalnet, internimage = models.focalnet_base, models.internimage_xl
    plain = lambda size: sized(models.resnet_50(), size)
    return [
        Network("BEiT-L", models.beit_large()),
        Network("BEiT-L with ViT-Adapter", models.vit_adapter_large()),
        Network("ResNet-50 (V1c, stride 8)", sized(resnet(), "ResNet-50"), public=Cost(23.527, 100.9)),
        Network("ResNet-101 (V1c, stride 8)", resnet(), public=Cost(42.519, 178.5)),
        Network("ResNet-50 (plain stem, stride 8)", plain("ResNet-50"), public=Cost(23.508)),
        Network("ResNet-101 (plain stem, stride 8)", plain("ResNet-101"), public=Cost(42.500)),
        published(hrnet(), "HRNetV2-W18"),
        published(hrnet(), "HRNetV2-W48", Cost(65.325, 84.7)),
        published(internimage(), "InternImage-T", Cost(28.770, 24.9)),
        published(internimage(), "InternImage-S", Cost(48.503, 42.5)),
        published(internimage(), "InternImage-B", Cost(94.910, 83.3)),
        published(internimage(), "InternImage-L", Cost(218.952, 189.4)),
        published(internimage(), "InternImage-XL", Cost(328.971, 286.7)),
        Network("EVA-01-g with ViT-Adapter", models.eva01_giant_adapter(), public=Cost(1053.230)),
        published(models.eva02_large(), "EVA-02-B", Cost(93.567)),
        published(models.eva02_large(), "EVA-02-L", Cost(316.826, 387.7)),
        Network("FocalNet-B (LRF), windows from 9", focalnet(), public=Cost(91.192, 85.1)),
        published(focalnet(), "FocalNet-L (FL4)", Cost(macs=186.7)),
        published(mit(), "MiT-B0", Cost(3.319, 3.2)),
        published(mit(), "MiT-B1", Cost(13.151, 10.4)),
        published(mit(), "MiT-B2", Cost(24.196, 20.2)),
        published(mit(), "MiT-B3", Cost(44.072, 36.9)),
        published(mit(), "MiT-B4", Cost(60.843, 53.5)),
        published(mit(), "MiT-B5", Cost(81.443, 69.4)),
        published(swin(), "Swin-T", Cost(27.521, 25.5)),
        published(swin(), "Swin-S", Cost(48.839, 49.2)),
        published(swin(), "Swin-B", Cost(86.745, 86.8)),
        published(swin(), "Swin-B with windows of 12", Cost(86.880, 93.4)),
        published(swin(), "Swin-L with windows of 12", Cost(195.201, 205.6)),
    ]


def decoders() -> list[Network]:
    """Those of the recipes, with their auxiliary heads, on the encoders that the recipes give them."""
    hrnet, beit, resnet = models.hrnet_w48(), models.beit_large(), models.resnet_101()
    hrnet_w18, upernet = sized(models.hrnet_w48(), "HRNetV2-W18"), changed(models.upernet(), dim=512)
    upernet_alone = changed(models.upernet(), dim=512, auxiliary_dim=0)
    return [
        Network("Mask2Former", models.vit_adapter_large(), models.mask2former()),
        Network("Mask2Former, 256 wide", models.swin_base(), mask2former_256()),
        Network("UperNet, 1024 wide", beit, models.upernet()),
        Network("UperNet, 512 wide", models.swin_base(), upernet),
        Network("UperNet alone on Swin-T", models.swin_small(), upernet_alone, Cost(macs=211.4)),
        Network("Decoder A", beit, models.memory_a()),
        Network("Decoder B", beit, models.memory_b(models.memory_a())),
        Network("DeepLabV3", resnet, models.deeplabv3(), Cost(42.288 + 2.398)),
        Network("DeepLabV3 alone", resnet, changed(models.deeplabv3(), auxiliary_dim=0), Cost(42.288, 168.9)),
        Network("FCN", resnet, models.fcn()),
        Network("MCIBI", resnet, models.mcibi()),
        Network("TMANet", sized(models.resnet_101(), "ResNet-50"), models.tmanet()),
        Network("SegFormer", models.mit_b2(), models.segformer(), Cost(3.266)),
        Network("FCN on all maps", hrnet, models.joined_fcn(hrnet), Cost(0.628, 10.3)),
        Network("FCN on all maps of HRNetV2-W18", hrnet_w18, models.joined_fcn(hrnet_w18)),
        Network("OCRNet", hrnet, models.ocrnet(hrnet), Cost(5.208, 82.4)),
        Network("OCRNet on the last map", models.swin_small(), models.ocrnet_vspw()),
        Network("SSLTM on Swin-S", models.swin_small(), models.ssltm()),
        Network("SSLTM on ResNet-101", resnet, models.ssltm()),
    ]


def mask2former_256() -> ConfigDict:
    """The published head: facebookresearch/Mask2Former configs/ade20k/semantic-segmentation/."""
    fields = dict(dim=256, heads=8, encoder_ffn_dim=1024, ffn_dim=2048, num_queries=100)
    return changed(models.mask2former(), **fields)


def wholes() -> list[Whole]:
    """Networks of ADE20K's 150 classes whose parameters and operations their authors or mmsegmentation published."""
    swin, internimage, hrnet = models.swin_base, models.internimage_xl, models.hrnet_w48()
    resnet = lambda size: changed(sized(models.resnet_50(), size), output_stride=32)
    upernet = changed(models.upernet(), dim=512)

    def over(head: ConfigDict, encoder: ConfigDict, name: str, size: layers.Size, *published: float | None) -> Whole:
        title = {"upernet": "UperNet", "mask2former": "Mask2Former"}[head.name]
        return Whole(f"{title} on {name}", sized(encoder, name), head, size, Cost(*published))

    wide, large, square = (512, 2048), (640, 2560), (640, 640)
    mask2former = mask2former_256()
    dilated = sized(models.resnet_101(), "ResNet-50")
    return [
        Whole("DeepLabV3 on ResNet-50 (V1c)", dilated, models.deeplabv3(), CROP, Cost(68.214)),
        Whole("DeepLabV3 on ResNet-101 (V1c)", models.resnet_101(), models.deeplabv3(), CROP, Cost(87.206)),
        Whole("FCN on HRNetV2-W48", hrnet, models.joined_fcn(hrnet), CROP, Cost(65.953, 95.0)),
        Whole("OCRNet on HRNetV2-W48", hrnet, models.ocrnet(hrnet), CROP, Cost(70.533, 167.1)),
        over(upernet, models.focalnet_base(), "FocalNet-B (LRF)", wide, 126, 1192),
        over(upernet, internimage(), "InternImage-T", wide, 59, 944),
        over(upernet, internimage(), "InternImage-S", wide, 80, 1017),
        over(upernet, internimage(), "InternImage-B", wide, 128, 1185),
        over(upernet, internimage(), "InternImage-L", large, 256, 2526),
        over(upernet, internimage(), "InternImage-XL", large, 368, 3142),
        over(upernet, swin(), "Swin-T", wide, 60, 945),
        over(upernet, swin(), "Swin-S", wide, 81, 1038),
        over(upernet, swin(), "Swin-B", wide, 121, 1188),
        over(upernet, swin(), "Swin-L", large, 234, 2468),
        over(mask2former, resnet("ResNet-50"), "ResNet-50", CROP, 44, 71),
        over(mask2former, resnet("ResNet-101"), "ResNet-101", CROP, 63, 90),
        over(mask2former, swin(), "Swin-T", CROP, 47, 74),
        over(mask2former, swin(), "Swin-S", CROP, 69, 98),
        over(mask2former, swin(), "Swin-B with windows of 12", square, 107, 223),
        over(mask2former, swin(), "Swin-L with windows of 12", square, 215, 403),
    ]


def millions(tree: PyTree) -> float:
    """Millions of numbers in the arrays of a tree."""
    return sum(np.prod(leaf.shape, dtype=np.int64) for leaf in jax.tree.leaves(tree)) / 1e6


def _as_convolution(image_NHWC: Array, kernel_hwC: Array) -> Array:
    axes, channels = ("NHWC", "HWIO", "NHWC"), image_NHWC.shape[-1]
    kernel = kernel_hwC[:, :, None]
    return lax.conv_general_dilated(
        image_NHWC, kernel, (1, 1), "SAME", dimension_numbers=axes, feature_group_count=channels
    )


@contextlib.contextmanager
def _as_public_code() -> Iterator[None]:
    """Traces within have depthwise and dilated convolutions as such, and no multiplications in sampling at offsets."""
    replace = unittest.mock.patch.object
    sampled = lambda value_NSGD, shapes_V2, locations_NQGVP2, weights_NQGVP: jnp.zeros(
        (*weights_NQGVP.shape[:3], value_NSGD.shape[-1]), value_NSGD.dtype
    )
    with (
        convolution.with_padding(),
        replace(convolution, "_depthwise", _as_convolution),
        replace(convolution, "_depthwise_on_cpu", _as_convolution),
        replace(deformable_attention, "sample_every_head", sampled),
    ):
        yield


def macs_of_padding(config: ConfigDict, size: layers.Size) -> int:
    """MACs of Swin's projections behind the attention for the cells that pad its maps; they are left out here."""
    total = 0
    for depth, of_stage in zip(config.depths, segmenter.ENCODERS[config.name].maps(config), strict=True):
        sides = [-(-side // of_stage.stride) for side in size]
        padded = [side + -side % config.window for side in sides]
        total += depth * (padded[0] * padded[1] - sides[0] * sides[1]) * of_stage.width**2
    return total


def cost(make: Callable[[], nnx.Module], call: Callable, *inputs: PyTree) -> tuple[Cost, PyTree]:
    """(the cost of call(make(), *inputs), the shapes that it gives); `inputs` are shapes."""
    graphdef, params, others = nnx.split(nnx.eval_shape(make), nnx.Param, ...)
    run = lambda params, others, *inputs: call(nnx.merge(graphdef, params, others), *inputs)
    with _as_public_code():
        jaxpr, outputs = jax.make_jaxpr(run, return_shape=True)(params, others, *inputs)
    macs = step_cost.matrix_flops(jaxpr.jaxpr, leave_out=RESIZES) / 2
    return Cost(millions(params), macs / 1e9), outputs


@functools.cache
def _cost_of_encoder(config: FrozenConfigDict, size: layers.Size) -> tuple[Cost, PyTree]:
    kind, options = segmenter.ENCODERS[config.name], dict(dtype=jnp.float32)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    make = lambda: kind(config, size, "none", **options, rngs=nnx.Rngs(0))
    found, maps = cost(make, lambda encoder, image: encoder(image), image)
    if config.name == "swin":
        found = found._replace(macs=found.macs + macs_of_padding(config, size) / 1e9)
    return found, maps


def cost_of_encoder(config: ConfigDict, size: layers.Size = CROP) -> tuple[Cost, PyTree]:
    """(of one image of a size, shapes of its maps)."""
    return _cost_of_encoder(FrozenConfigDict(config), size)


def cost_of_decoder(encoder: ConfigDict, decoder: ConfigDict, size: layers.Size = CROP) -> Cost:
    """Of one image of a size; a decoder that remembers takes a video's second frame."""
    kind, maps = segmenter.DECODERS[decoder.name], cost_of_encoder(encoder, size)[1]
    described = segmenter.ENCODERS[encoder.name].maps(encoder)
    make = lambda: kind(described, CLASSES, decoder, "none", dtype=jnp.float32, rngs=nnx.Rngs(0))
    if not kind.remembers:
        return cost(make, lambda decoder, maps: decoder(maps), maps)[0]
    memory = cost(make, lambda decoder, maps: decoder.memory(maps), maps)[1]
    return cost(make, lambda decoder, maps, memory: decoder.look(maps, memory), maps, memory)[0]


def cost_of_whole(network: Whole) -> Cost:
    """Parameters of all, and operations as published: without an auxiliary head that predicting does without, and with
    the product of classes and masks of the image's size that makes scores of queries."""
    encoder, decoder = network.encoder, network.decoder
    found = (cost_of_encoder(encoder, network.size)[0], cost_of_decoder(encoder, decoder, network.size))
    macs = [part.macs for part in found]
    if decoder.get("auxiliary_dim") and decoder.name != "ocrnet":
        alone = changed(decoder.copy_and_resolve_references(), auxiliary_dim=0)
        macs[1] = cost_of_decoder(encoder, alone, network.size).macs
    macs.append(CLASSES * decoder.get("num_queries", 0) * math.prod(network.size) / 1e9)
    return Cost(sum(part.parameters for part in found), sum(macs))


def row(network: Network, found: Cost, with_macs: bool = True) -> str:
    """A line of a table; public operations are those of an image of `CROP`."""
    parameters, macs = network.public
    known = [f"{parameters:.2f}" if parameters else "-", f"{macs:.1f}" if macs and with_macs else "-"]
    on = [network.encoder.name] if network.decoder is not None else []
    cells = [network.title, (network.decoder or network.encoder).name, *on]
    return f"| {' | '.join([*cells, f'{found.parameters:.2f}', f'{found.macs:.1f}', *known])} |"


def whole_row(network: Whole, found: Cost) -> str:
    """A line of the table of whole networks."""
    size = "x".join(map(str, network.size))
    known = [f"{figure:.4g}" if figure else "-" for figure in network.published]
    return f"| {' | '.join([network.title, size, f'{found.parameters:.2f}', f'{found.macs:.1f}', *known])} |"


def page(side: int = CROP[0]) -> str:
    """docs/networks.md, for square images of a side."""
    size, option = (side, side), "" if side == CROP[0] else f" --crop={side}"
    is_usual = size == CROP
    lines = [
        "# Encoders and decoders",
        "",
        f"    python -m benchmarks.networks{option}",
        "",
        f"This command prints this page. It counts a forward pass of one image of {side}x{side} with 150 classes:",
        "millions of parameters (M), and thousand millions of multiplications with their additions (GMAC), in",
        "convolutions and matrix products. Where a paper says FLOPs it mostly means these. `--crop=640` counts larger",
        "images. The names are those of `model.encoder.name` and `model.decoder.name`; `configs/parts/models.py` has",
        "the other fields, and `PUBLISHED` of an encoder's class those of its sizes.",
        "",
        "It counts as public code does. Depthwise convolutions count, which are sums of products here. Sampling at",
        "offsets does not: once a corner of a point it would be 2 % of InternImage-T. Swin's figures have the cells",
        "that pad a map, in the projection behind the attention too. This codebase leaves them out there, so it runs",
        "2 % less than the page has.",
        "",
        "| encoder | name | M | GMAC | public code: M | GMAC |",
        "|---|---|---|---|---|---|",
        *(row(network, cost_of_encoder(network.encoder, size)[0], is_usual) for network in encoders()),
        "",
        "A decoder's figures have its auxiliary head, unless it is alone; predicting does without but for OCRNet.",
        "SegFormer's joins the maps behind its convolution, not before it; in public code the same takes 42.1 GMAC at",
        "512x512.",
        "",
        "| decoder | name | on | M | GMAC | public code: M | GMAC |",
        "|---|---|---|---|---|---|---|",
        *(row(network, cost_of_decoder(*network[1:3], size), is_usual) for network in decoders()),
        "",
        "Whole networks, at the height and width that their figures were published for. Operations are without the",
        "auxiliary head. Mask2Former's have the product that makes scores of classes for every pixel of the image.",
        "",
        "| network | image | M | GMAC | published: M | GMAC |",
        "|---|---|---|---|---|---|",
        *(whole_row(network, cost_of_whole(network)) for network in wholes()),
    ]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--crop", type=int, default=CROP[0], metavar="PIXELS", help="side of the image, default 512")
    return result


def main() -> None:
    """Command line."""
    crop = parser().parse_args().crop
    if crop < 32 or crop % 32:
        raise UserError(f"--crop={crop}: expected a multiple of 32, such as 640.")
    print(page(crop))


if __name__ == "__main__":
    run_program(main)
