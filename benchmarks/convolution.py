"""Gradients of convolutions on CPU: JAX's own, and those of vspw_jax/models/convolution.py.

    python -m benchmarks.convolution [--rounds=5]

Each case is a `lax.scan` over three layers of equal shapes, with respect to images and kernels, or one layer with no
loop. Gradients are compared first, then both forms take turns on one thread; medians of processor time are printed.
"""

import argparse
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from benchmarks import measure
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.models import convolution, layers

CASES = (  # Images, cells a side, channels, size, whether depthwise, layers in a loop.
    (8, 24, 32, 3, False, 3),
    (8, 24, 64, 3, False, 3),
    (8, 12, 128, 3, False, 3),
    (8, 24, 96, 3, False, 1),
    (8, 12, 256, 3, False, 1),
    (8, 24, 256, 1, False, 3),
    (2, 56, 256, 3, False, 1),
    (2, 120, 256, 3, False, 1),
    (8, 24, 32, 3, True, 3),
    (8, 24, 32, 7, True, 3),
    (8, 12, 64, 9, True, 3),
)


def gradients(images, side, channels, size, depthwise, count, jaxs):
    """A function without arguments that computes them, by JAX's own form or by ours."""
    groups = channels if depthwise else 1
    make = lambda rngs: layers.conv(channels, channels, size, groups=groups, dtype=jnp.float32, rngs=rngs)
    rngs = layers.weight_keys(jax.random.key(0))
    graphdef, kernels = nnx.split(layers.stack_modules(make, count, rngs) if count > 1 else make(rngs))
    image = np.random.default_rng(0).normal(size=(images, side, side, channels)).astype(np.float32)

    def apply(conv, x, _=None):
        if jaxs:
            conv.conv_general_dilated = lax.conv_general_dilated
        return jax.nn.relu(convolution.depthwise(conv, x) if depthwise and not jaxs else conv(x)), None

    def loss(kernels, image):
        convs = nnx.merge(graphdef, kernels)
        output, _ = layers.scan_modules(convs, apply, image) if count > 1 else apply(convs, image)
        return (output**2).mean()

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(kernels, image).compile()
    return lambda: jax.block_until_ready(compiled(kernels, image))


def milliseconds(case, rounds):
    """(JAX's, ours)."""
    forms = [gradients(*case, jaxs=jaxs) for jaxs in (True, False)]
    for theirs, ours in zip(*(jax.tree.leaves(form()) for form in forms), strict=True):
        if not np.allclose(theirs, ours, rtol=1e-4, atol=1e-5 * np.abs(theirs).max()):
            raise UserError(f"{case}: the gradients differ by {np.abs(theirs - ours).max()}.")
    return [1e3 * seconds for seconds in measure.take_turns(forms, rounds, time.process_time)]


def parser():
    """The command line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5, help="turns of each form (default 5)")
    return arguments


def main():
    rounds = parser().parse_args().rounds
    # XLA reads it when the first array is made.
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false " + os.environ.get("XLA_FLAGS", "")
    if jax.default_backend() != "cpu":
        raise UserError("Elsewhere than on CPU both forms are the same. Set JAX_PLATFORMS=cpu.")
    print(f"{'images, cells, channels, size':42}   JAX's     ours    ratio")
    for case in CASES:
        images, side, channels, size, depthwise, count = case
        kinds = ", depthwise" * depthwise + ", in a loop" * (count > 1)
        theirs, ours = milliseconds(case, rounds)
        what = f"{images}, {side}x{side}, {channels}, {size}x{size}{kinds}"
        print(f"{what:42}{theirs:8.1f} {ours:8.1f}   {ours / theirs:6.3f}", flush=True)


if __name__ == "__main__":
    run_program(main)
