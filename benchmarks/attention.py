"""Attention with relative position bias: temporary memory of the plain form and of the one in blocks, and their times.

    python -m benchmarks.attention [--crop=896] [--heads=16] [--head-dim=64] [--rounds=3]

Memory is what XLA allots to the compiled forward pass, and to forward and backward pass together, beside arguments and
results. The forms take turns; medians are printed. The results are compared first.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from vspw_jax.console.errors import UserError, run_program
from vspw_jax.models.encoders import relative_attention

TOLERANCE = 1e-5


def drawn_arguments(window, heads, head_dim):
    """Query, key, value and table."""
    keys = jax.random.split(jax.random.key(0), 4)
    tokens = (1, window[0] * window[1] + 1, heads, head_dim)
    rows = relative_attention.num_rows(window)
    return [*(jax.random.normal(key, tokens) for key in keys[:3]), jax.random.normal(keys[3], (rows, heads))]


def compiled(form, arguments):
    """The form's forward pass, and its gradient by all arguments."""

    def loss(*arguments):
        return (form(*arguments) ** 2).sum()

    gradient = jax.grad(loss, argnums=range(len(arguments)))
    return [jax.jit(function).lower(*arguments).compile() for function in (form, gradient)]


def largest_error(found, wanted):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    return max(float(jnp.abs(x - y).max() / jnp.abs(y).max()) for x, y in pairs)


def seconds(function, arguments):
    started = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - started


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--crop", type=int, default=896)
    result.add_argument("--heads", type=int, default=16)
    result.add_argument("--head-dim", type=int, default=64)
    result.add_argument("--rounds", type=int, default=3)
    return result


def main():
    flags = parser().parse_args()
    window = (flags.crop // 16,) * 2
    arguments = drawn_arguments(window, flags.heads, flags.head_dim)
    rows = relative_attention.block_rows(window, flags.heads) or window[0]
    plain = compiled(lambda *x: relative_attention.plain_attention(*x, window), arguments)
    blocks = compiled(lambda *x: relative_attention.blockwise_attention(*x, window, rows), arguments)
    print(f"crop {flags.crop}: {window[0] * window[1] + 1} tokens, blocks of {rows} rows")
    for name, one, other in zip(("forward", "forward and backward"), plain, blocks, strict=True):
        error = largest_error(other(*arguments), one(*arguments))
        if not error < TOLERANCE:
            raise UserError(f"The forms differ: relative error {error:.1e}, tolerance {TOLERANCE}.")
        times = zip(*([seconds(form, arguments) for form in (one, other)] for _ in range(flags.rounds)), strict=True)
        memory = [form.memory_analysis().temp_size_in_bytes / 2**20 for form in (one, other)]
        medians = [statistics.median(values) for values in times]
        for form, mebibytes, median in zip(("plain", "blocks"), memory, medians, strict=True):
            print(f"{name:<21} {form:<7} {mebibytes:6.0f} MiB temporary  {median:.3f} s")
        print(f"{name:<21} ratio   {memory[1] / memory[0]:6.2f}                {medians[1] / medians[0]:.2f}")


if __name__ == "__main__":
    run_program(main)
