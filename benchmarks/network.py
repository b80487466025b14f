"""The network beside the same network in PyTorch: time of a forward pass and of a training step, and peak memory.

    python -m benchmarks.network --size=demo|base|large [--crop=224] [--batch=1] [--rounds=5] [--threads=2]
    python -m benchmarks.network --size=large --crop=480 --device=gpu --dtype=bfloat16 --batch=2

Both have the same weights and images, on the same cores or the same GPU, in float32 or in bfloat16 (PyTorch by its
autocast). Outputs and gradients are compared first, and no figure is printed if they differ by more than `TOLERANCES`
(at size base PyTorch's own gradients in float32 are 1.8e-4 from those in float64). Then they take turns; medians and
their ratio (below 1: JAX is the faster) are printed. "Step" is the forward and backward pass in training mode of the
outputs' sum weighted by drawn numbers, without an optimizer. Peak memory, on CPU, is what a process of its own gains in
one step, gradients included, weights not: PyTorch as it is, JAX with each `remat`.

While times are taken the allocator keeps freed memory (glibc's MALLOC_MMAP_MAX_ and MALLOC_TRIM_THRESHOLD_), for both:
by default it goes back to the system after every pass, which costs PyTorch more than JAX.
"""

import argparse
import functools
import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx, traverse_util
from jax.sharding import PartitionSpec as P

from benchmarks import measure, torch_network, torch_passes
from configs import baseline
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.interop import namings
from vspw_jax.parallel.mesh import compiler_options, make_mesh
from vspw_jax.training import train_state

TOLERANCES = {"float32": (1e-4, 3e-3), "bfloat16": (5e-2, 3e-1)}
"""Of outputs and gradients, relative. Rounding of bfloat16 grows through two dozen blocks, in either library."""


def recipe(size, crop, remat, dtype="float32"):
    """The baseline at one of the sizes, without stochastic depth."""
    config = baseline.get_config("demo" if size == "demo" else "full")
    model = config.model
    model.dtype = dtype
    model.image_size, model.remat = (crop, crop), "none" if remat == "torch" else remat
    model.encoder.drop_path = 0.0
    if size == "base":
        model.encoder.update(dim=768, depth=12, heads=12, adapter_heads=12)
        model.decoder.update(dim=256, heads=8, encoder_ffn_dim=1024, ffn_dim=1024)
    return config


def drawn_weights(config):
    """Weights by path, none of them zero: {"a/b": array}."""
    rng = np.random.default_rng(0)
    _, params, model_state = train_state.describe(config)
    weights = {}
    for path, leaf in (traverse_util.flatten_dict(params) | traverse_util.flatten_dict(model_state)).items():
        if path[-1] in ("scale", "var", "gamma", "gamma_1", "gamma_2"):
            drawn = rng.uniform(0.5, 1.0, leaf.shape)
        else:
            drawn = 0.03 * rng.normal(size=leaf.shape)
        weights["/".join(map(str, path))] = drawn.astype(np.float32)
    return weights


def drawn_images(config, batch):
    return np.random.default_rng(1).normal(size=(batch, *config.model.image_size, 3)).astype(np.float32)


def directions(outputs):
    """Numbers that weigh the outputs in the scalar whose gradient is taken."""
    rng = np.random.default_rng(2)
    return [rng.normal(size=x.shape).astype(np.float32) / np.sqrt(np.prod(x.shape)) for x in outputs]


class Jax:
    """This codebase's network: `forward()` and `step()` return NumPy-like arrays, computed."""

    def __init__(self, config, weights, batch):
        graphdef, params, model_state = train_state.describe(config)
        self.params, self.model_state = (self._filled(tree, weights) for tree in (params, model_state))
        self.images = jnp.asarray(drawn_images(config, batch))
        mesh = make_mesh(devices=jax.devices()[:1])

        def run(params, model_state, images, train):
            outputs = nnx.merge(graphdef, params, model_state)(images[:, None], train)
            return outputs["layer_class_logits_LBTQC"][:, :, 0], outputs["layer_mask_logits_LBTQHW"][:, :, 0]

        def step(params, model_state, images, weighing):
            def loss(params):
                outputs = run(params, model_state, images, True)
                return sum((x * weight).sum() for x, weight in zip(outputs, weighing, strict=True))

            return jax.grad(loss)(params)

        arguments = (self.params, self.model_state, self.images)
        options = compiler_options(mesh)  # As train_step has them.
        forward = jax.jit(lambda *arguments: run(*arguments, False), compiler_options=options)
        self.weighing = [jnp.asarray(x) for x in directions(jax.eval_shape(forward, *arguments))]
        mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(),) * 4, out_specs=P(), check_vma=False)
        started = time.perf_counter()
        self._step = jax.jit(mapped, compiler_options=options).lower(*arguments, self.weighing).compile()
        self.compile_seconds = time.perf_counter() - started
        self._forward = forward

    @staticmethod
    def _filled(tree, weights):
        paths = traverse_util.flatten_dict(tree)
        return traverse_util.unflatten_dict({path: jnp.asarray(weights["/".join(map(str, path))]) for path in paths})

    def forward(self):
        return jax.block_until_ready(self._forward(self.params, self.model_state, self.images))

    def step(self):
        """Gradients by path."""
        gradients = self._step(self.params, self.model_state, self.images, self.weighing)
        paths = traverse_util.flatten_dict(jax.block_until_ready(gradients))
        return {"/".join(map(str, path)): x for path, x in paths.items()}


class Torch:
    """The peer, with the same methods; gradients are by its own names."""

    def __init__(self, config, weights, batch):
        self.model = torch_network.Segmenter(config.model)
        torch_network.load(self.model, name_rows(config), weights)
        self.device = torch_passes.device()
        self.model.to(self.device)
        is_half = config.model.dtype == "bfloat16"
        self.autocast = functools.partial(torch.autocast, self.device, torch.bfloat16, enabled=is_half)
        images = drawn_images(config, batch).transpose(0, 3, 1, 2).copy()
        self.images = torch.from_numpy(images).to(self.device)
        with torch.no_grad():
            shapes = self.model.eval()(self.images)[:2]
            self.weighing = [torch.from_numpy(x).to(self.device) for x in directions(shapes)]

    def forward(self):
        with torch.inference_mode(), self.autocast():
            return torch_passes.waited_for(self.model.eval()(self.images)[:2])

    def step(self):
        self.model.train().zero_grad(set_to_none=True)
        with self.autocast():
            outputs = self.model(self.images)[:2]
            loss = sum((x * weight).sum() for x, weight in zip(outputs, self.weighing, strict=True))
        loss.backward()
        return torch_passes.waited_for({name: parameter.grad for name, parameter in self.model.named_parameters()})


def array(x):
    """A JAX or PyTorch array of any device and type as float32."""
    return x.detach().float().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x, np.float32)


def name_rows(config):
    return namings.NAMINGS["mmseg"].rows(config.model, ())


def squares(x):
    return float(np.square(np.asarray(x), dtype=np.float64).sum())


def output_error(found, wanted):
    """Length of the difference as a share of the length; not the largest one, for the reason below."""
    return (squares(array(found) - array(wanted)) / squares(array(wanted))) ** 0.5


def gradient_error(config, found, wanted):
    """Length of the difference of all gradients together, as a share of their length.

    Not the largest difference: where a sampling point lies on the line between two cells, or a mask's logit is zero,
    rounding decides which of two gradients is taken.
    """
    difference = 0.0
    for row in name_rows(config):
        if row.ours in found:
            expected = array(wanted[row.theirs])
            if row.part:
                expected = np.split(expected, row.part[1])[row.part[0]]
            change = row.layout.export(array(found[row.ours])[row.index]) - expected
            difference += squares(change)
    length = sum(squares(array(x)) for x in wanted.values())
    return (difference / length) ** 0.5


def check_equal(config, ours, theirs):
    """Relative errors of outputs and gradients.

    Raises:
      UserError: one of them is above the tolerance.
    """
    output = max(output_error(*pair) for pair in zip(ours.forward(), theirs.forward(), strict=True))
    gradient = gradient_error(config, ours.step(), theirs.step())
    tolerances = TOLERANCES[config.model.dtype]
    if not (output < tolerances[0] and gradient < tolerances[1]):
        raise UserError(f"The networks differ: error of outputs {output:.1e}, gradients {gradient:.1e}.")
    return output, gradient


def measure_memory(flags):
    config = recipe(flags.size, flags.crop, flags.memory_of, flags.dtype)
    network = (Torch if flags.memory_of == "torch" else Jax)(config, drawn_weights(config), flags.batch)
    print(json.dumps({"MiB": measure.gained_memory(network.step), "compile_s": getattr(network, "compile_seconds", 0)}))


def measured_memory(flags, network):
    """`measure_memory` in a process of its own, with the allocator as it comes."""
    command = [sys.executable, "-m", "benchmarks.network", f"--size={flags.size}", f"--crop={flags.crop}"]
    command += [f"--batch={flags.batch}", f"--threads={flags.threads}", f"--memory-of={network}"]
    command += [f"--dtype={flags.dtype}"]
    done = subprocess.run(command, env=measure.plain_environment(), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def compare(flags):
    config = recipe(flags.size, flags.crop, flags.remat, flags.dtype)
    weights = drawn_weights(config)
    ours, theirs = Jax(config, weights, flags.batch), Torch(config, weights, flags.batch)
    count = sum(x.size for x in weights.values())
    print(f"{flags.size}, {count / 1e6:.1f} M weights, crop {flags.crop}, batch {flags.batch}")
    where = f"{flags.threads} threads, {flags.clock} clock" if flags.device == "cpu" else jax.devices()[0].device_kind
    print(f"{where}, {flags.dtype}, remat {flags.remat}; JAX {jax.__version__}, PyTorch {torch.__version__}")
    errors = check_equal(config, ours, theirs)
    print(f"relative error of outputs {errors[0]:.1e}, of gradients {errors[1]:.1e}", flush=True)
    for name in ("forward", "step"):
        seconds = measure.take_turns(
            [getattr(ours, name), getattr(theirs, name)], flags.rounds, measure.CLOCKS[flags.clock]
        )
        print(
            f"{name:<8} JAX {seconds[0]:.4f} s  PyTorch {seconds[1]:.4f} s  ratio {seconds[0] / seconds[1]:.2f}",
            flush=True,
        )
    print(f"step compiled in {ours.compile_seconds:.0f} s")
    if flags.memory and flags.device == "cpu":
        peer = measured_memory(flags, "torch")["MiB"]
        for remat in ("none", "dots", "full"):
            gained = measured_memory(flags, remat)["MiB"]
            print(f"memory   JAX, remat {remat:<4} {gained:.0f} MiB  PyTorch {peer:.0f} MiB  ratio {gained / peer:.2f}")


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--size", choices=("demo", "base", "large"), default="demo")
    result.add_argument("--crop", type=int, help="pixels, a multiple of 32; default 96 for demo, else 224")
    result.add_argument("--batch", type=int, default=1)
    measure.add_timing_flags(result)
    result.add_argument("--remat", choices=("none", "dots", "full"), default="none", help="of the timed JAX step")
    result.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    result.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    result.add_argument("--dtype", choices=TOLERANCES, default="float32", help="of the computation")
    result.add_argument("--memory-of", choices=("torch", "none", "dots", "full"), help=argparse.SUPPRESS)
    return result


def main():
    flags = parser().parse_args()
    flags.crop = flags.crop or (96 if flags.size == "demo" else 224)
    if not flags.memory_of:
        measure.keep_freed_memory("benchmarks.network")
    measure.keep_to_cores(flags.threads)
    torch.set_num_threads(flags.threads)
    if flags.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() == "cpu" or not torch.cuda.is_available():
        raise UserError("JAX or PyTorch finds no GPU here: expected one, by --device=gpu.")
    # Both multiply in float32 as they store it; a GPU's products would take numbers of 10 bits (TF32).
    jax.config.update("jax_default_matmul_precision", "highest" if flags.dtype == "float32" else None)
    torch.backends.cudnn.allow_tf32 = False
    (measure_memory if flags.memory_of else compare)(flags)


if __name__ == "__main__":
    run_program(main)
