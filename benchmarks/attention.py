"""Attention with relative position bias: errors, times and temporary memory of its forms, beside PyTorch's.

    python -m benchmarks.attention [--crop=896] [--heads=16] [--head-dim=64] [--images=1] [--rounds=3]
    python -m benchmarks.attention --crop=512 --images=8 --dtype=bfloat16 --rounds=20      on a GPU

Each form takes a block's queries, keys, values and table of biases. Its results, and its gradients by all four, are
compared with the plain form's in full float32 first. Then the forms take turns, and medians are printed, of the forward
pass and of forward and backward pass together. Memory is what XLA allots beside arguments and results. The fused form
is there where cuDNN is. PyTorch's is `scaled_dot_product_attention`, with the biases looked up as BEiT's code does.
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
from vspw_jax.models import attention
from vspw_jax.models.encoders import relative_attention

TOLERANCES = {"float32": 1e-5, "bfloat16": 3e-2}
"""Of the length of a difference, relative."""
PASSES = ("forward", "forward and backward")


def drawn_arguments(flags, window):
    """Query, key, value and table, as NumPy arrays."""
    rng = np.random.default_rng(0)
    tokens = (flags.images, window[0] * window[1] + 1, flags.heads, flags.head_dim)
    shapes = (tokens, tokens, tokens, (relative_attention.num_rows(window), flags.heads))
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def jax_forms(flags, window):
    """{name: function of query, key, value and table}."""
    rows = relative_attention.block_rows(window, flags.heads) or window[0]
    forms = {
        "plain": relative_attention.plain_attention,
        f"blocks of {rows} rows": functools.partial(relative_attention.blockwise_attention, rows=rows),
    }
    if attention.is_fused(jax.ShapeDtypeStruct((1, 1, 1, flags.head_dim), jnp.dtype(flags.dtype))):
        forms["fused, cuDNN"] = relative_attention.attention_by_cudnn
    return {name: lambda *x, form=form: form(*x, window=window) for name, form in forms.items()}


def loss_of(form):
    return lambda *arguments: (form(*arguments).astype(jnp.float32) ** 2).sum()


def compiled(form, arguments):
    """[(a function without arguments, MiB of temporary memory)] of the forward pass and of the gradients."""
    parts = []
    for function in (form, jax.grad(loss_of(form), argnums=range(4))):
        program = jax.jit(function).lower(*arguments).compile()
        call = lambda program=program: jax.block_until_ready(program(*arguments))
        parts.append((call, program.memory_analysis().temp_size_in_bytes / 2**20))
    return parts


def torch_form(arrays, window, dtype):
    """As `compiled`; what PyTorch allots is not known."""
    device = torch_passes.device()
    inputs = [torch.tensor(x, device=device) for x in arrays]
    inputs = [*(x.to(getattr(torch, dtype)) for x in inputs[:3]), inputs[3]]
    inputs = [x.requires_grad_() for x in inputs]
    tokens = window[0] * window[1] + 1
    rows = np.arange(len(arrays[3]), dtype=np.float32)[:, None]
    index = np.asarray(relative_attention.relative_position_bias(jnp.asarray(rows), window))[0].astype(np.int64)
    index = torch.from_numpy(index.reshape(-1)).to(device)

    def output():
        *heads, table = inputs
        bias = table[index].view(tokens, tokens, -1).permute(2, 0, 1).to(heads[0].dtype)
        heads = [x.transpose(1, 2) for x in heads]
        return F.scaled_dot_product_attention(*heads, attn_mask=bias[None]).transpose(1, 2)

    return [(part, None) for part in torch_passes.of(output, inputs)]


def largest_error(found, wanted):
    """The largest length of a difference, as a share of the length of what is wanted."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    return max(network.output_error(*pair) for pair in pairs)


def references(arrays, window):
    """(results, gradients) of the plain form in full float32."""
    plain = functools.partial(relative_attention.plain_attention, window=window)
    with jax.default_matmul_precision("highest"):
        arguments = [jnp.asarray(x) for x in arrays]
        return jax.jit(plain)(*arguments), jax.jit(jax.grad(loss_of(plain), argnums=range(4)))(*arguments)


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--crop", type=int, default=896)
    result.add_argument("--heads", type=int, default=16)
    result.add_argument("--head-dim", type=int, default=64)
    result.add_argument("--images", type=int, default=1)
    result.add_argument("--dtype", choices=TOLERANCES, default="float32", help="of queries, keys and values")
    result.add_argument("--rounds", type=int, default=3)
    return result


def main():
    flags = parser().parse_args()
    jax.config.update("jax_default_matmul_precision", "highest" if flags.dtype == "float32" else None)
    window = (flags.crop // 16,) * 2
    *heads, table = drawn_arguments(flags, window)
    arguments = [*(jnp.asarray(x).astype(flags.dtype) for x in heads), jnp.asarray(table)]
    arrays = [network.array(x) for x in arguments]
    forms = {name: compiled(form, arguments) for name, form in jax_forms(flags, window).items()}
    forms["PyTorch"] = torch_form(arrays, window, flags.dtype)
    print(
        f"{jax.devices()[0].device_kind}, {flags.dtype}, {flags.images} images, crop {flags.crop}: {window[0]}x"
        f"{window[1]} patches, {flags.heads} heads of {flags.head_dim}"
    )
    for number, (name, wanted) in enumerate(zip(PASSES, references(arrays, window), strict=True)):
        show(name, {form: parts[number] for form, parts in forms.items()}, wanted, flags)


def show(name, parts, wanted, flags):
    """Compares the forms' results of a pass with what is wanted, times them and prints the figures."""
    errors = {form: largest_error(call(), wanted) for form, (call, _) in parts.items()}
    for form, error in errors.items():
        if not error < TOLERANCES[flags.dtype]:
            raise UserError(f"{form}, {name}: relative error {error:.1e}, tolerance {TOLERANCES[flags.dtype]}.")
    medians = measure.take_turns([call for call, _ in parts.values()], flags.rounds, time.perf_counter)
    for (form, (_, mebibytes)), median in zip(parts.items(), medians, strict=True):
        memory = "" if mebibytes is None else f"{mebibytes:7.0f} MiB temporary"
        print(
            f"{name:<21} {form:<18} {1e3 * median:10.3f} ms  {median / medians[-1]:5.2f} of PyTorch's  "
            f"error {errors[form]:.1e}  {memory}",
            flush=True,
        )


if __name__ == "__main__":
    run_program(main)
