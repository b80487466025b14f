"""FocalNet's depthwise kernels of another window: a smaller one is padded with zeros, a larger one is cut.

Source: microsoft/FocalNet segmentation/mmcv_custom/checkpoint.py; the released segmentation networks (windows from 9)
start so from image classification networks (windows from 3).
"""

from collections.abc import Mapping

import numpy as np

from vspw_jax.models.torch_rows import AS_IT_IS, Fit, Rule, Stored


def centred(kernel: np.ndarray, size: int) -> np.ndarray:
    """A kernel (C, 1, k, k) as one of `size` cells a side around the same middle."""
    before = (size - kernel.shape[-1]) // 2
    if before >= 0:
        return np.pad(kernel, ((0, 0), (0, 0), (before, before), (before, before)))
    return kernel[..., -before:before, -before:before]


class FocalKernels(Fit):
    """Kernels of another size are padded or cut."""

    def rule(
        self, theirs: str, tensors: Mapping[str, Stored], our_shape: tuple[int, ...], image_size: tuple[int, int]
    ) -> Rule | None:
        shape, size = tensors[theirs].shape, our_shape[-1]
        if shape == our_shape:
            return AS_IT_IS
        if len(shape) != 4 or shape[:2] != our_shape[:2] or shape[2] != shape[3] or not shape[3] % 2:
            return None
        text = f"kernels of {shape[3]} cells a side {'padded with zeros' if size > shape[3] else 'cut'} to {size}"
        return Rule(text, lambda kernel, _: centred(kernel, size))
