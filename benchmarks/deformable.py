"""Forms of deformable attention's sampling on the device that is here, beside PyTorch's grid_sample: times.

    python -m benchmarks.deformable [--crop=480] [--images=2] [--dtype=bfloat16] [--rounds=20]

The sampling is that of one layer of the pixel decoder at full size: 32 heads of 32 channels, three maps, 4 points.
Each form is compared with the first before it is timed; the forms take turns, and medians are printed, of the forward
pass and of the gradient with respect to values, places and weights (with the forward pass where it is made again).
PyTorch's is what its models do where no compiled operator is at hand: a grid_sample for each map, in float32.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional as F

from benchmarks import measure, network, torch_passes
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.models import deformable_attention
from vspw_jax.models.encoders.vit_adapter import pyramid_shapes

HEADS, CHANNELS, POINTS = 32, 32, 4
TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2}
"""Of the length of a difference, relative."""


def drawn(crop, images):
    """(maps' sizes, values (G, S, D), places (G, Q, V, P, 2), weights (G, Q, V, P)); G are heads of all images."""
    shapes, rng, groups = pyramid_shapes((crop // 16,) * 2), np.random.default_rng(0), images * HEADS
    cells = deformable_attention.cell_centres(shapes)
    values = rng.normal(size=(groups, len(cells), CHANNELS))
    sizes = np.array([(width, height) for height, width in shapes])[:, None]
    offsets = rng.normal(scale=2.0, size=(groups, len(cells), len(shapes), POINTS, 2)) / sizes
    weights = rng.uniform(size=offsets.shape[:-1])
    weights /= weights.sum(axis=(2, 3), keepdims=True)
    places = cells[:, None, None] + offsets
    return shapes, *(array.astype(np.float32) for array in (values, places, weights))


def jax_forms(shapes, arrays, dtype):
    """{name: (forward, gradient)} of functions without arguments."""
    values, places, weights = map(jnp.asarray, arrays)
    values = values.astype(dtype)

    def pair(form):
        function = lambda *inputs: form(inputs[0], shapes, *inputs[1:])
        squared = lambda *inputs: (function(*inputs).astype(jnp.float32) ** 2).sum()
        compiled = [jax.jit(f) for f in (function, jax.grad(squared, argnums=(0, 1, 2)))]
        call = lambda f: jax.block_until_ready(f(values, places, weights))
        return tuple(functools.partial(call, f) for f in compiled)

    def gathers(together, dtype_of_sums):
        """A form that takes so many heads together and adds samples, and gradients, in a type."""
        form = functools.partial(deformable_attention._gathered, together=together)
        return pair(lambda values, *rest: form(values.astype(dtype_of_sums), *rest).astype(dtype))

    together = {"a head": 1, "an image's heads": HEADS, "all": len(values)}
    return {
        f"gathers, {name} together, sums in {sums}": gathers(count, sums)
        for sums in sorted({dtype, "float32"})
        for name, count in together.items()
    }


def torch_form(shapes, arrays, dtype):
    """(forward, gradient) by grid_sample, on the device that JAX has."""
    inputs = [torch.from_numpy(array).to(torch_passes.device()) for array in arrays]
    inputs[0] = inputs[0].to(getattr(torch, dtype))
    inputs = [x.requires_grad_() for x in inputs]

    def forward():
        values, places, weights = inputs
        parts, samples = values.split([height * width for height, width in shapes], dim=1), []
        for level, (value, (height, width)) in enumerate(zip(parts, shapes, strict=True)):
            value = value.mT.reshape(len(value), -1, height, width).float()
            samples.append(F.grid_sample(value, 2 * places[:, :, level] - 1, align_corners=False))
        output = (torch.cat(samples, dim=-1) * weights.flatten(2)[:, None]).sum(dim=-1)
        return output.mT.to(inputs[0].dtype)

    return torch_passes.of(forward, inputs)


def check(name, found, wanted, dtype):
    """Raises UserError where a form's results differ."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    error = max(network.output_error(*pair) for pair in pairs)
    if not error < TOLERANCES[dtype]:
        raise UserError(f"{name} differs: relative error {error:.1e}, tolerance {TOLERANCES[dtype]}.")


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--crop", type=int, default=480)
    result.add_argument("--images", type=int, default=2)
    result.add_argument("--dtype", choices=TOLERANCES, default="bfloat16", help="of the values")
    result.add_argument("--rounds", type=int, default=20)
    return result


def main():
    flags = parser().parse_args()
    jax.config.update("jax_default_matmul_precision", "highest")
    shapes, *arrays = drawn(flags.crop, flags.images)
    forms = jax_forms(shapes, arrays, flags.dtype) | {"PyTorch, grid_sample": torch_form(shapes, arrays, flags.dtype)}
    print(f"{jax.devices()[0].device_kind}, crop {flags.crop}, {flags.images} images, {flags.dtype}, milliseconds:")
    first, *others = forms
    for part, of_part in enumerate(("forward", "gradient")):
        for name in others:
            check(f"{name}, {of_part},", list(forms[name][part]()), list(forms[first][part]()), flags.dtype)
        medians = measure.take_turns([form[part] for form in forms.values()], flags.rounds, time.perf_counter)
        for name, median in zip(forms, medians, strict=True):
            print(f"{of_part:<9} {name:<56} {1e3 * median:9.3f}", flush=True)


if __name__ == "__main__":
    run_program(main)
