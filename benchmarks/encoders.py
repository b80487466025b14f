"""Encoders, alone and with a head, beside the same in PyTorch: time of a forward pass and of a training step, on CPU.

    python -m benchmarks.encoders --crop=224 --rounds=5
    python -m benchmarks.encoders --networks=swin,upernet_swin --threads=1 --clock=cpu

The peers are timm's, transformers' and torchvision's networks. No library has the others: InternImage in its form
without the operator that its public code must compile (benchmarks/torch_internimage.py), HRNet's and OCRNet's heads
(benchmarks/torch_hrnet.py, torch_ocrnet.py). benchmarks/torch_libraries.py says how to install the libraries. BEiT with
ViT-Adapter is in benchmarks/network.py, which has EVA-01's layers too.

Both have the same weights, through a file in the peer's names, and images, on the same cores, in float32. What they
give (an encoder its maps, a network its logits, the auxiliary head's too) and all gradients are compared first; no
figure is printed if they differ by more than `TOLERANCES`. Then they take turns, under an allocator that keeps freed
memory (see benchmarks/network.py); medians and their ratio (below 1: JAX is the faster) are printed. "Step" is the
forward and backward pass in training mode of the outputs' sum weighted by drawn numbers, without an optimizer, drop-out
and stochastic depth.
"""

import argparse
import contextlib
import copy
import io
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from benchmarks import measure, network, torch_hrnet, torch_internimage, torch_libraries, torch_ocrnet
from configs import upernet
from configs.parts import models
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.interop import convert
from vspw_jax.models import segmenter
from vspw_jax.parallel.mesh import compiler_options, make_mesh

TOLERANCES = {"encoder": (1e-4, 1e-2), "network": (1e-4, 5e-2)}
"""Of the outputs and of the gradients, the length of the difference as a share of the length: batch norms of few images
see few cells, and rounding gives inputs of ReLU another sign. PyTorch's own gradients of DeepLabV3, HRNet and OCRNet
(2 images of 96x96) lie 0.02 from those that it has in float64."""

CLASSES = 150
"""Of a whole network: ADE20K's."""


class Pair(NamedTuple):
    """An encoder or a whole network, and the peer for images of a side."""

    title: str
    config: Callable[[], ConfigDict] | None
    """The encoder's section; None of a whole network, whose sizes are read off the peer's file."""
    theirs: Callable[[int], torch.nn.Module]
    outputs: Callable[[torch.nn.Module, torch.Tensor], Sequence[torch.Tensor]]
    """The peer's maps, or its logits and an auxiliary head's; channels first."""
    compared: slice = slice(None)
    """Which of our outputs the peer has."""
    only_ours: tuple[str, ...] = ()
    """Parts of our encoder that the peer has not: norms of the maps, the finer maps of BEiT's pyramid."""
    least_images: int = 1
    """In training; two where a batch norm sees the mean of an image, one cell."""


def from_timm(name: str, **fields: object) -> torch.nn.Module:
    """A network of timm without its classifier."""
    return torch_libraries.load("timm").create_model(name, num_classes=0, **fields)


def after_stages(module, image):
    """The last four maps of a network of timm."""
    return module.forward_intermediates(image, indices=4, intermediates_only=True)


def normed_after_stages(module, image):
    """With norms as they begin: ours has one for each map, and the peer none."""
    last = [x.permute(0, 2, 3, 1) for x in after_stages(module, image)]
    return [torch.nn.functional.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2) for x in last]


def of_hrnet(module, image):
    """Before what timm adds to classify."""
    x = module.act1(module.bn1(module.conv1(image)))
    return module.stages(module.act2(module.bn2(module.conv2(x))))


def of_eva(third: int, last: int) -> Callable:
    """The two coarser maps of BEiT's pyramid, after these blocks, counted from 0; timm has no finer ones."""

    def maps(module, image):
        found = module.forward_intermediates(image, indices=[third, last], intermediates_only=True)
        return [found[0], torch.nn.functional.max_pool2d(found[1], 2, 2)]

    return maps


def of_segformer(module, image):
    """transformers': all four."""
    return list(module(image, output_hidden_states=True).hidden_states)


def segformer(
    depths: Sequence[int], dims: Sequence[int], kind: str = "SegformerModel", **others: object
) -> torch.nn.Module:
    """transformers' MiT, or SegFormer by the name of its class, without dropout."""
    transformers = torch_libraries.load("transformers")
    heads = [dim // dims[0] for dim in dims]
    fields = dict(depths=list(depths), hidden_sizes=list(dims), num_attention_heads=heads)
    dropout = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"), 0.0)
    config = transformers.SegformerConfig(**fields, **(dropout | dict(drop_path_rate=0.0) | others))
    return getattr(transformers, kind)(config)


def without_dropout(module: torch.nn.Module) -> torch.nn.Module:
    """The same network."""
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return module


def deeplabv3(side: int) -> torch.nn.Module:
    """torchvision's, on ResNet-50."""
    networks = torch_libraries.load("torchvision").models.segmentation
    fields = dict(weights=None, weights_backbone=None, aux_loss=True, num_classes=CLASSES)
    return without_dropout(networks.deeplabv3_resnet50(**fields))


def of_deeplabv3(module, image):
    """Before they are resized to the image."""
    maps = module.backbone(image)
    return module.classifier(maps["out"]), module.aux_classifier(maps["aux"])


def upernet_swin(side: int) -> torch.nn.Module:
    """transformers', on Swin-T."""
    transformers = torch_libraries.load("transformers")
    stages = [f"stage{number}" for number in range(1, 5)]
    swin = transformers.SwinConfig(depths=list(SMALL), drop_path_rate=0.0, out_features=stages)
    fields = dict(backbone_config=swin, num_labels=CLASSES, auxiliary_in_channels=384)
    return without_dropout(transformers.UperNetForSemanticSegmentation(transformers.UperNetConfig(**fields)))


def of_upernet(module, image):
    """Before they are resized to the image."""
    maps = module.backbone(image).feature_maps
    return module.decode_head(maps), module.auxiliary_head(maps)


def section(make: Callable[[], ConfigDict], size: str = "", **fields: object) -> Callable[[], ConfigDict]:
    """An encoder's section, in the published size of a name, with other fields."""

    def made() -> ConfigDict:
        result = make()
        result.update({**(segmenter.ENCODERS[result.name].PUBLISHED[size] if size else {}), **fields})
        if "drop_path" in result:
            result.drop_path = 0.0
        return result

    return made


def hrnet_fcn(side: int) -> torch.nn.Module:
    """HRNetV2-W18 with the head of its own code."""
    return torch_hrnet.HrnetFcn(HRNET_W18, CLASSES, align_corners=True)


def ocrnet(side: int) -> torch.nn.Module:
    """OCRNet on HRNetV2-W18, as mmsegmentation has it."""
    backbone = torch_hrnet.HRNet(**HRNET_W18, upsampling="bilinear")
    width = sum(backbone.widths)
    return torch_ocrnet.MmsegOcrnet(backbone, dim=512, key_dim=256, auxiliary_dim=width, num_classes=CLASSES)


SMALL = (2, 2, 6, 2)
"""Blocks of the stages of Swin-T."""
HRNET_W18 = dict(width=18, stem_width=64, bottleneck_width=64, bottlenecks=4, modules=(1, 4, 3), blocks=4)
MIT_B2 = (3, 4, 6, 3), (64, 128, 320, 512)
"""Blocks and channels of the stages."""
INTERNIMAGE_T = dict(segmenter.ENCODERS["internimage"].PUBLISHED["InternImage-T"], group_width=16, mlp_ratio=4.0)
PAIRS = {
    "resnet": Pair(
        "ResNet-50, stride 32",
        section(models.resnet_50, output_stride=32),
        lambda side: from_timm("resnet50"),
        after_stages,
    ),
    "hrnet": Pair(
        "HRNetV2-W18",
        section(models.hrnet_w48, "HRNetV2-W18", upsampling="nearest"),
        lambda side: from_timm("hrnet_w18"),
        of_hrnet,
    ),
    "swin": Pair(
        "Swin-T",
        section(models.swin_base, "Swin-T"),
        lambda side: from_timm(
            "swin_tiny_patch4_window7_224",
            img_size=side,
            drop_path_rate=0.0,
            always_partition=True,
        ),
        normed_after_stages,
        only_ours=("norms",),
    ),
    "focalnet": Pair(
        "FocalNet-T, windows from 3",
        section(models.focalnet_base, "FocalNet-T (LRF)", window=3),
        lambda side: from_timm("focalnet_tiny_lrf", drop_path_rate=0.0),
        normed_after_stages,
        only_ours=("norms",),
    ),
    "internimage": Pair(
        "InternImage-T",
        section(models.internimage_xl, "InternImage-T"),
        lambda side: torch_internimage.InternImage(**INTERNIMAGE_T),
        lambda module, image: module(image),
    ),
    "eva02": Pair(
        "EVA-02-B",
        section(models.eva02_large, "EVA-02-B"),
        lambda side: from_timm("eva02_base_patch14_448", img_size=side, patch_size=16),
        of_eva(7, 11),
        slice(2, 4),
        ("fpn1", "fpn2"),
    ),
    "mit": Pair(
        "MiT-B2",
        section(models.mit_b2, epsilons="hugging_face"),
        lambda side: segformer(*MIT_B2),
        of_segformer,
    ),
    "deeplabv3": Pair("DeepLabV3 on ResNet-50, stride 8", None, deeplabv3, of_deeplabv3, least_images=2),
    "hrnet_fcn": Pair("HRNetV2-W18 with its head", None, hrnet_fcn, lambda module, image: module(image)[1:]),
    "ocrnet": Pair("OCRNet on HRNetV2-W18", None, ocrnet, lambda module, image: module(image)[1:]),
    "upernet_swin": Pair("UperNet on Swin-T", None, upernet_swin, of_upernet, least_images=2),
    "segformer": Pair(
        "SegFormer-B2",
        None,
        lambda side: segformer(
            *MIT_B2, "SegformerForSemanticSegmentation", decoder_hidden_size=768, num_labels=CLASSES
        ),
        lambda module, image: [module(image).logits],
    ),
}


class Torch:
    """The peer, with the same methods."""

    def __init__(self, pair: Pair, image_NHWC: np.ndarray) -> None:
        torch.manual_seed(0)
        self.outputs, self.module = pair.outputs, pair.theirs(image_NHWC.shape[1])
        self.image = torch.from_numpy(image_NHWC.transpose(0, 3, 1, 2).copy())
        self.weighing = [torch.from_numpy(x) for x in network.directions(self.forward())]

    def forward(self):
        """What the peer gives, channels first."""
        with torch.inference_mode():
            return self.outputs(self.module.eval(), self.image)

    def step(self):
        """Leaves gradients at the parameters."""
        self.module.train().zero_grad(set_to_none=True)
        outputs = self.outputs(self.module, self.image)
        sum((x * weight).sum() for x, weight in zip(outputs, self.weighing, strict=True)).backward()

    def gradients(self):
        """The network with the gradients of a step in its weights' place."""
        self.step()
        result = copy.deepcopy(self.module)
        with torch.no_grad():
            for x, own in zip(result.parameters(), self.module.parameters(), strict=True):
                x.copy_(torch.zeros_like(x) if own.grad is None else own.grad)
        return result


def saved(module: torch.nn.Module, folder: pathlib.Path) -> pathlib.Path:
    """A file of its weights; transformers' files have other names than its modules."""
    if hasattr(module, "save_pretrained"):
        with contextlib.redirect_stderr(io.StringIO()):  # A progress bar.
            module.save_pretrained(folder)
        return folder / "model.safetensors"
    torch.save(module.state_dict(), folder / "theirs.pth")
    return folder / "theirs.pth"


def read(pair: Pair, module: torch.nn.Module, side: int) -> nnx.Module:
    """Our encoder or network with the weights of a peer, through a file."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # It says what it read.
        path = saved(module, pathlib.Path(folder))
        if pair.config is None:
            return convert.model_from_torch(path)[0]
        return convert.load_torch(segmenter.build(_with_encoder(pair.config(), side), jax.random.key(0)), path).encoder


def _with_encoder(encoder: ConfigDict, side: int) -> ConfigDict:
    """`config.model` of a network with this encoder, as those that read files ask for one."""
    model = upernet.get_config("demo").model
    model.encoder, model.image_size, model.dtype = encoder, (side, side), "float32"
    return model


def outputs_of(pair: Pair, module: nnx.Module, image_NHWC: jax.Array, train: bool) -> Sequence[jax.Array]:
    """Those of our encoder or network that the peer gives too."""
    if pair.config is not None:
        return module(image_NHWC, train=train)[pair.compared]
    found = module(image_NHWC[:, None], train)
    return [found[name][:, 0] for name in ("logits_BTHWC", "auxiliary_logits_BTHWC") if name in found]


def parameters(pair: Pair, module: nnx.Module) -> list[jax.Array]:
    """Those that the peer has too."""
    tree = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    return jax.tree.leaves({part: leaves for part, leaves in tree.items() if part not in pair.only_ours})


class Jax:
    """Ours, with the same weights; `compile_seconds` are the step's."""

    def __init__(self, pair: Pair, theirs: Torch, image_NHWC: np.ndarray) -> None:
        module = read(pair, theirs.module, image_NHWC.shape[1])
        self.parameters = sum(x.size for x in parameters(pair, module))
        graphdef, *variables = nnx.split(module, nnx.Param, ...)
        self.params, self.others = map(nnx.to_pure_dict, variables)
        self.image, mesh = jnp.asarray(image_NHWC), make_mesh(devices=jax.devices()[:1])
        self.weighing = [jnp.asarray(x.numpy().transpose(0, 2, 3, 1)) for x in theirs.weighing]

        def outputs(params, others, image, train):
            return outputs_of(pair, nnx.merge(graphdef, params, others), image, train)

        def step(params, others, image, weighing):
            def loss(params):
                found = outputs(params, others, image, True)
                return sum((x * weight).sum() for x, weight in zip(found, weighing, strict=True))

            return jax.grad(loss)(params)

        options = compiler_options(mesh)  # As train_step has them.
        self._forward = jax.jit(lambda *arguments: outputs(*arguments, False), compiler_options=options)
        mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(),) * 4, out_specs=P(), check_vma=False)
        started = time.perf_counter()
        lowered = jax.jit(mapped, compiler_options=options).lower(self.params, self.others, self.image, self.weighing)
        self._step = lowered.compile()
        self.compile_seconds = time.perf_counter() - started

    def forward(self):
        """What ours gives, channels last."""
        return jax.block_until_ready(self._forward(self.params, self.others, self.image))

    def step(self):
        """Gradients as a tree; zero where the outputs do not depend on a parameter."""
        return jax.block_until_ready(self._step(self.params, self.others, self.image, self.weighing))


def difference(found, wanted) -> float:
    """The length of the difference of all arrays together, as a share of the length of what is wanted."""
    of_difference = sum(network.squares(np.asarray(x) - np.asarray(y)) for x, y in zip(found, wanted, strict=True))
    return (of_difference / sum(map(network.squares, wanted))) ** 0.5


def check_equal(pair: Pair, ours: Jax, theirs: Torch) -> None:
    """Compares outputs, and gradients of all parameters that both have.

    Raises:
      UserError: they differ.
    """
    of_outputs = difference(ours.forward(), [x.numpy().transpose(0, 2, 3, 1) for x in theirs.forward()])
    wanted = parameters(pair, read(pair, theirs.gradients(), theirs.image.shape[-1]))
    shared = {part: leaves for part, leaves in ours.step().items() if part not in pair.only_ours}
    of_gradients = difference(jax.tree.leaves(shared), wanted)
    largest = TOLERANCES["encoder" if pair.config else "network"]
    if not (of_outputs < largest[0] and of_gradients < largest[1]):
        raise UserError(
            f"{pair.title} differs from its peer: outputs by {of_outputs:.1e}, gradients by {of_gradients:.1e}."
        )


def row(name: str, flags: argparse.Namespace) -> str:
    """A line of the table."""
    pair = PAIRS[name]
    image = np.random.default_rng(1).normal(size=(flags.batch, flags.crop, flags.crop, 3)).astype(np.float32)
    theirs = Torch(pair, image)
    ours = Jax(pair, theirs, image)
    check_equal(pair, ours, theirs)
    cells = [pair.title, f"{ours.parameters / 1e6:.1f}"]
    for part in ("forward", "step"):
        here, there = measure.take_turns(
            [getattr(ours, part), getattr(theirs, part)], flags.rounds, measure.CLOCKS[flags.clock]
        )
        cells += [f"{here:.3f}", f"{there:.3f}", f"{here / there:.2f}"]
    return f"| {' | '.join([*cells, f'{ours.compile_seconds:.0f}'])} |"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--networks", default=",".join(PAIRS), help="names joined by commas (default: %(default)s)")
    result.add_argument("--crop", type=int, default=224, help="pixels a side, a multiple of 32 (default: 224)")
    result.add_argument("--batch", type=int, default=2, help="images (default: 2)")
    measure.add_timing_flags(result)
    return result


def main() -> None:
    """Command line."""
    flags = parser().parse_args()
    names = flags.networks.split(",")
    if unknown := [name for name in names if name not in PAIRS]:
        raise UserError(f"No network here is called {', '.join(unknown)}: expected some of {', '.join(PAIRS)}.")
    if larger := [name for name in names if PAIRS[name].least_images > flags.batch]:
        least = max(PAIRS[name].least_images for name in larger)
        raise UserError(f"--batch is {flags.batch}: expected {least} or more for {', '.join(larger)}.")
    if flags.crop % 32:
        raise UserError(f"--crop is {flags.crop}: expected a multiple of 32.")
    try:
        for library in ("timm", "torchvision", "transformers"):
            torch_libraries.load(library)
    except ImportError as error:
        raise UserError(f"{error}: see benchmarks/torch_libraries.py for what to install.") from error
    measure.keep_freed_memory("benchmarks.encoders")
    measure.keep_to_cores(flags.threads)
    torch.set_num_threads(flags.threads)
    jax.config.update("jax_platforms", "cpu")
    print(f"crop {flags.crop}, batch {flags.batch}, {flags.threads} threads, {flags.clock} clock;")
    print(f"JAX {jax.__version__}, PyTorch {torch.__version__}; seconds\n")
    print("| network | M | forward: JAX | PyTorch | ratio | step: JAX | PyTorch | ratio | step compiled in |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in names:
        print(row(name, flags), flush=True)


if __name__ == "__main__":
    run_program(main)
