"""Biases of convolutions before batch norms, which some PyTorch code has and the layers here have not.

A norm takes the mean away, so norm(conv + bias) is norm(conv) with a running mean that is less by the bias.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from vspw_jax.models.torch_rows import AS_IT_IS, CONV, Buffer, Fit, Layout, Row, Rule, Stored, conv_norm


@dataclasses.dataclass(frozen=True)
class FoldedBias(Fit):
    """Of the row of a running mean: an import takes the bias off, an export writes a bias of zeros.

    Attributes:
      bias: its name there.
      width: its length.
    """

    bias: str
    width: int

    def rule(
        self, theirs: str, tensors: Mapping[str, Stored], our_shape: tuple[int, ...], image_size: tuple[int, int]
    ) -> Rule | None:
        if tensors[theirs].shape != our_shape:
            return None
        bias = tensors.get(self.bias)
        if bias is None:
            return AS_IT_IS
        if bias.shape != our_shape:
            return None
        return Rule("running means less the bias of the convolution before", lambda mean, _: mean - bias.read())

    def buffers(self, theirs: str, image_size: tuple[int, int]) -> Iterator[Buffer]:
        yield Buffer(self.bias, (self.width,), np.dtype(np.float32), lambda: np.zeros(self.width, np.float32))


def conv_bias_norm(ours: str, conv: str, norm: str, width: int, layout: Layout = CONV) -> Iterator[Row]:
    """`torch_rows.conv_norm`, with a bias of the convolution there."""
    for row in conv_norm(ours, conv, norm, layout):
        is_mean = row.theirs.endswith(".running_mean")
        yield dataclasses.replace(row, fit=FoldedBias(f"{conv}.bias", width)) if is_mean else row


def left_out(conv: str) -> dict[str, str]:
    """An entry of `Names.left_out` for a pattern of such convolutions."""
    return {rf"^({conv})\.bias$": "biases before a batch norm, whose running mean takes them up"}
