"""Each encoder beside the same encoder in PyTorch: time of a forward pass and of a training step, on CPU.

    python -m benchmarks.encoders --crop=224 --rounds=5
    python -m benchmarks.encoders --encoders=swin,focalnet --threads=1 --clock=cpu

The peers are timm's and transformers' networks, and for InternImage, whose public code needs a compiled operator, its
form without it (benchmarks/torch_internimage.py); benchmarks/torch_libraries.py says how to install them. BEiT with
ViT-Adapter is in benchmarks/network.py, which has EVA-01's layers too.

Both have the same weights, through a file in the peer's names, and images, on the same cores, in float32. Maps and all
gradients are compared first; no figure is printed if they differ by more than `TOLERANCES`. Then they take turns, under
an allocator that keeps freed memory (see benchmarks/network.py); medians and their ratio (below 1: JAX is the faster)
are printed. "Step" is the forward and backward pass in training mode of the maps' sum weighted by drawn numbers,
without an optimizer and without stochastic depth.
"""

import argparse
import contextlib
import copy
import io
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from benchmarks import measure, network, torch_internimage, torch_libraries
from configs import upernet
from configs.parts import models
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.interop import convert
from vspw_jax.models import segmenter
from vspw_jax.parallel.mesh import compiler_options, make_mesh

TOLERANCES = 1e-4, 1e-2
"""Of the maps and of the gradients, the length of the difference as a share of the length: batch norms of a single
image see few cells, and rounding gives inputs of ReLU another sign."""


class Pair(NamedTuple):
    """An encoder, and the peer for images of a side."""

    title: str
    config: Callable[[], ConfigDict]
    theirs: Callable[[int], torch.nn.Module]
    maps: Callable[[torch.nn.Module, torch.Tensor], list[torch.Tensor]]
    """The peer's, channels first."""
    compared: slice = slice(None)
    """Which of our maps the peer has."""
    only_ours: tuple[str, ...] = ()
    """Parts of our encoder that the peer has not: norms of the maps, the finer maps of BEiT's pyramid."""


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


def segformer(depths: tuple[int, ...], dims: tuple[int, ...], **others: object) -> torch.nn.Module:
    """transformers' MiT, without dropout."""
    transformers = torch_libraries.load("transformers")
    heads = [dim // dims[0] for dim in dims]
    fields = dict(depths=list(depths), hidden_sizes=list(dims), num_attention_heads=heads)
    dropout = dict(drop_path_rate=0.0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return transformers.SegformerModel(transformers.SegformerConfig(**fields, **(dropout | others)))


def section(make: Callable[[], ConfigDict], **fields: object) -> Callable[[], ConfigDict]:
    """An encoder's section with other fields."""

    def made() -> ConfigDict:
        result = make()
        result.update(fields)
        if "drop_path" in result:
            result.drop_path = 0.0
        return result

    return made


SMALL = (2, 2, 6, 2)
"""Blocks of the stages of Swin-T and FocalNet-T."""
EVA02_B = dict(dim=768, depth=12, heads=12, hidden=2048, out_blocks=(4, 6, 8, 12))
INTERNIMAGE_T = dict(dim=64, depths=(4, 4, 18, 4), group_width=16, mlp_ratio=4.0, post_norm=False, reach=1.0)
PAIRS = {
    "resnet": Pair(
        "ResNet-50, stride 32",
        section(models.resnet_50, output_stride=32),
        lambda side: from_timm("resnet50"),
        after_stages,
    ),
    "hrnet": Pair(
        "HRNetV2-W18",
        section(models.hrnet_w48, width=18, upsampling="nearest"),
        lambda side: from_timm("hrnet_w18"),
        of_hrnet,
    ),
    "swin": Pair(
        "Swin-T",
        section(models.swin_base, dim=96, depths=SMALL),
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
        section(models.focalnet_base, dim=96, depths=SMALL, window=3),
        lambda side: from_timm("focalnet_tiny_lrf", drop_path_rate=0.0),
        normed_after_stages,
        only_ours=("norms",),
    ),
    "internimage": Pair(
        "InternImage-T",
        section(models.internimage_xl, **INTERNIMAGE_T),
        lambda side: torch_internimage.InternImage(**INTERNIMAGE_T),
        lambda module, image: module(image),
    ),
    "eva02": Pair(
        "EVA-02-B",
        section(models.eva02_large, **EVA02_B),
        lambda side: from_timm("eva02_base_patch14_448", img_size=side, patch_size=16),
        of_eva(7, 11),
        slice(2, 4),
        ("fpn1", "fpn2"),
    ),
    "mit": Pair(
        "MiT-B2",
        section(models.mit_b2, epsilons="hugging_face"),
        lambda side: segformer((3, 4, 6, 3), (64, 128, 320, 512)),
        of_segformer,
    ),
}


class Torch:
    """The peer, with the same methods."""

    def __init__(self, pair: Pair, image_NHWC: np.ndarray) -> None:
        torch.manual_seed(0)
        self.maps, self.module = pair.maps, pair.theirs(image_NHWC.shape[1])
        self.image = torch.from_numpy(image_NHWC.transpose(0, 3, 1, 2).copy())
        self.weighing = [torch.from_numpy(x) for x in network.directions(self.forward())]

    def forward(self):
        """The maps, channels first."""
        with torch.inference_mode():
            return self.maps(self.module.eval(), self.image)

    def step(self):
        """Leaves gradients at the parameters."""
        self.module.train().zero_grad(set_to_none=True)
        maps = self.maps(self.module, self.image)
        sum((x * weight).sum() for x, weight in zip(maps, self.weighing, strict=True)).backward()

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
        module.save_pretrained(folder)
        return folder / "model.safetensors"
    torch.save(module.state_dict(), folder / "theirs.pth")
    return folder / "theirs.pth"


def read(pair: Pair, module: torch.nn.Module, side: int) -> nnx.Module:
    """Our encoder with the weights of a peer, through a file."""
    model = upernet.get_config("demo").model
    model.encoder, model.image_size, model.dtype = pair.config(), (side, side), "float32"
    with tempfile.TemporaryDirectory() as folder:
        path = saved(module, pathlib.Path(folder))
        with contextlib.redirect_stdout(io.StringIO()):  # It says what the file has and has not.
            return convert.load_torch(segmenter.build(model, jax.random.key(0)), path).encoder


def parameters(pair: Pair, encoder: nnx.Module) -> list[jax.Array]:
    """Those that the peer has too."""
    tree = nnx.to_pure_dict(nnx.state(encoder, nnx.Param))
    return jax.tree.leaves({part: leaves for part, leaves in tree.items() if part not in pair.only_ours})


class Jax:
    """Ours, with the same weights; `compile_seconds` are the step's."""

    def __init__(self, pair: Pair, theirs: Torch, image_NHWC: np.ndarray) -> None:
        encoder = read(pair, theirs.module, image_NHWC.shape[1])
        self.parameters = sum(x.size for x in parameters(pair, encoder))
        graphdef, *variables = nnx.split(encoder, nnx.Param, ...)
        self.params, self.others = map(nnx.to_pure_dict, variables)
        self.image, mesh = jnp.asarray(image_NHWC), make_mesh(devices=jax.devices()[:1])
        self.weighing = [jnp.asarray(x.numpy().transpose(0, 2, 3, 1)) for x in theirs.weighing]

        def maps(params, others, image, train):
            return nnx.merge(graphdef, params, others)(image, train=train)[pair.compared]

        def step(params, others, image, weighing):
            def loss(params):
                found = maps(params, others, image, True)
                return sum((x * weight).sum() for x, weight in zip(found, weighing, strict=True))

            return jax.grad(loss)(params)

        options = compiler_options(mesh)  # As train_step has them.
        self._forward = jax.jit(lambda *arguments: maps(*arguments, False), compiler_options=options)
        mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(),) * 4, out_specs=P(), check_vma=False)
        started = time.perf_counter()
        lowered = jax.jit(mapped, compiler_options=options).lower(self.params, self.others, self.image, self.weighing)
        self._step = lowered.compile()
        self.compile_seconds = time.perf_counter() - started

    def forward(self):
        """The maps, channels last."""
        return jax.block_until_ready(self._forward(self.params, self.others, self.image))

    def step(self):
        """Gradients as a tree; zero where the maps do not depend on a parameter."""
        return jax.block_until_ready(self._step(self.params, self.others, self.image, self.weighing))


def difference(found, wanted) -> float:
    """The length of the difference of all arrays together, as a share of the length of what is wanted."""
    of_difference = sum(network.squares(np.asarray(x) - np.asarray(y)) for x, y in zip(found, wanted, strict=True))
    return (of_difference / sum(map(network.squares, wanted))) ** 0.5


def check_equal(pair: Pair, ours: Jax, theirs: Torch) -> None:
    """Compares maps, and gradients of all parameters that both have.

    Raises:
      UserError: they differ.
    """
    of_maps = difference(ours.forward(), [x.numpy().transpose(0, 2, 3, 1) for x in theirs.forward()])
    wanted = parameters(pair, read(pair, theirs.gradients(), theirs.image.shape[-1]))
    shared = {part: leaves for part, leaves in ours.step().items() if part not in pair.only_ours}
    of_gradients = difference(jax.tree.leaves(shared), wanted)
    if not (of_maps < TOLERANCES[0] and of_gradients < TOLERANCES[1]):
        raise UserError(f"{pair.title} differs from its peer: maps by {of_maps:.1e}, gradients by {of_gradients:.1e}.")


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
    result.add_argument("--encoders", default=",".join(PAIRS), help="names joined by commas (default: all)")
    result.add_argument("--crop", type=int, default=224, help="pixels a side, a multiple of 32")
    result.add_argument("--batch", type=int, default=1, help="images")
    measure.add_timing_flags(result)
    return result


def main() -> None:
    """Command line."""
    flags = parser().parse_args()
    names = flags.encoders.split(",")
    if unknown := [name for name in names if name not in PAIRS]:
        raise UserError(f"No encoder here is called {', '.join(unknown)}: expected some of {', '.join(PAIRS)}.")
    if flags.crop % 32:
        raise UserError(f"--crop is {flags.crop}: expected a multiple of 32.")
    try:
        torch_libraries.load("timm"), torch_libraries.load("transformers")
    except ImportError as error:
        raise UserError(f"{error}: see benchmarks/torch_libraries.py for what to install.") from error
    measure.keep_freed_memory("benchmarks.encoders")
    measure.keep_to_cores(flags.threads)
    torch.set_num_threads(flags.threads)
    jax.config.update("jax_platforms", "cpu")
    print(f"crop {flags.crop}, batch {flags.batch}, {flags.threads} threads, {flags.clock} clock;")
    print(f"JAX {jax.__version__}, PyTorch {torch.__version__}; seconds\n")
    print("| encoder | M | forward: JAX | PyTorch | ratio | step: JAX | PyTorch | ratio | step compiled in |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in names:
        print(row(name, flags), flush=True)


if __name__ == "__main__":
    run_program(main)
