"""PyTorch beside JAX on the same device: the passes of a function, each waited for."""

import jax
import torch


def device():
    """PyTorch's name of the device that JAX uses."""
    return "cpu" if jax.default_backend() == "cpu" else "cuda"


def of(output, inputs):
    """[forward pass without gradients, gradients of the sum of its squares by `inputs`]: functions without arguments.

    Args:
      output: a function without arguments, of `inputs`.
    """

    def forward():
        with torch.inference_mode():
            return waited_for(output())

    def gradients():
        return waited_for(torch.autograd.grad((output().float() ** 2).sum(), inputs))

    return [forward, gradients]


def waited_for(result):
    """A result once the device has it."""
    if device() == "cuda":
        torch.cuda.synchronize()
    return result
