"""Cross-entropy of every pixel with its gradient: whole images, strips of them, and PyTorch's; processor time.

    python -m benchmarks.per_pixel [--classes=124] [--rounds=7]

The sizes are those of demos and of training crops. Losses and gradients are compared first. Then the forms take turns;
medians are printed, with the temporary memory of the compiled ones.
"""

import argparse
import functools
import time
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.losses import per_pixel

SIZES = ((8, 12, 8), (8, 24, 4), (1, 64, 8), (1, 128, 4))
"""Images, cells along a side, and the factor by which labels are finer."""


def compiled(logits_NHWC, label_NHW, rows):
    """The loss and its gradient by strips of so many rows, 0 for whole images."""
    with unittest.mock.patch.object(per_pixel, "rows_of_strip", lambda *_: rows):
        return jax.jit(jax.value_and_grad(per_pixel.cross_entropy)).lower(logits_NHWC, label_NHW).compile()


def of_torch(logits_NHWC, label_NHW):
    """A function that gives PyTorch's loss and gradient."""
    import torch

    torch.set_num_threads(1)
    logits = torch.from_numpy(logits_NHWC.transpose(0, 3, 1, 2).copy()).requires_grad_()
    label = torch.from_numpy(label_NHW).long()

    def run():
        logits.grad = None
        resized = torch.nn.functional.interpolate(logits, size=label.shape[1:], mode="bilinear", align_corners=False)
        loss = torch.nn.functional.cross_entropy(resized, label)
        loss.backward()
        return loss.item(), logits.grad.numpy().transpose(0, 2, 3, 1)

    return run


def measured(count, cells, factor, classes, rounds):
    """(milliseconds by form, MiB of temporaries by form) of one size."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, cells, cells, classes)).astype(np.float32)
    label = rng.integers(0, classes, (count, factor * cells, factor * cells)).astype(np.int32)
    rows = per_pixel.rows_of_strip(logits.shape[1:], label.shape[1:]) or per_pixel.STRIP // factor
    programs = {"images": compiled(logits, label, 0), "strips": compiled(logits, label, rows)}
    arrays = jnp.asarray(logits), jnp.asarray(label)
    functions = {
        name: functools.partial(lambda run: jax.block_until_ready(run(*arrays)), run) for name, run in programs.items()
    }
    functions["PyTorch"] = of_torch(logits, label)
    wanted = functions["PyTorch"]()
    for name in programs:
        loss, gradient = functions[name]()
        if not np.allclose(loss, wanted[0], rtol=1e-5) or not np.allclose(gradient, wanted[1], rtol=1e-3, atol=1e-7):
            raise UserError(f"The form {name} gives another loss or gradient than PyTorch.")
    seconds = measure.take_turns(list(functions.values()), rounds, time.process_time)
    mib = {name: program.memory_analysis().temp_size_in_bytes / 2**20 for name, program in programs.items()}
    return {name: 1e3 * value for name, value in zip(functions, seconds, strict=True)}, mib


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--classes", type=int, default=124)
    result.add_argument("--rounds", type=int, default=7)
    return result


def main():
    flags = parser().parse_args()
    for count, cells, factor in SIZES:
        milliseconds, mib = measured(count, cells, factor, flags.classes, flags.rounds)
        times = "  ".join(f"{name} {value:.0f} ms" for name, value in milliseconds.items())
        memory = "  ".join(f"{name} {value:.0f} MiB" for name, value in mib.items())
        print(f"{count} x {cells}x{cells} to {factor * cells}x{factor * cells}:  {times}  {memory}", flush=True)


if __name__ == "__main__":
    run_program(main)
