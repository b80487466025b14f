"""Deformable convolution of the third version (DCNv3): a 3x3 kernel whose places and weights each cell chooses.

Sources: InternImage, arXiv 2211.05778, equation 2; OpenGVLab/InternImage segmentation/ops_dcnv3/modules/dcnv3.py and
functions/dcnv3_func.py.
Shapes: N images, H and W cells, C channels, G groups, P points.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from vspw_jax.models import deformable_attention, layers
from vspw_jax.models.convolution import depthwise

KERNEL = tuple(itertools.product((-1, 0, 1), repeat=2))
"""The (column, row) of each of the P points around a cell; in the released weights columns are the slow axis."""


class DeformableConvolution(nnx.Module):
    """Sums each group of channels over nine places around a cell; the cell says how far they move and what they weigh.

    Values are projected from the input; offsets and weights come from a depthwise convolution of it. What lies outside
    the map counts as zero. The sampling is that of deformable attention, with one map and a head for each group.

    Args:
      dim: C, of input and output.
      groups: G, a divisor of C.
      reach: by which the 3x3 places and their offsets are multiplied: 2 is a kernel that leaves out every other cell.
    """

    def __init__(self, dim: int, groups: int, reach: float, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options, zeros = layers.Options(dtype=dtype, rngs=rngs), nnx.initializers.zeros
        self.groups, self.reach = groups, reach
        self.dw_conv = layers.conv(dim, dim, 3, groups=dim, use_bias=True, kernel_init=layers.torch_uniform, **options)
        self.norm = layers.layer_norm(dim, 1e-6, **options)
        self.offset = layers.linear(dim, groups * len(KERNEL) * 2, kernel_init=zeros, **options)
        self.mask = layers.linear(dim, groups * len(KERNEL), kernel_init=zeros, **options)
        self.input_proj = layers.linear(dim, dim, kernel_init=layers.xavier_uniform, **options)
        self.output_proj = layers.linear(dim, dim, kernel_init=layers.xavier_uniform, **options)

    def places(self, offset_NQGP2: Float[jax.Array, "N H*W G P 2"], shape: layers.Size) -> jax.Array:
        """Where each point of each cell lies, as (x, y) in [0, 1] over the map: (N, H*W, G, 1, P, 2)."""
        size = np.array(shape[::-1], np.float32)
        centres = deformable_attention.cell_centres([shape])[:, None, None]
        moved = self.reach * (offset_NQGP2 + np.array(KERNEL, np.float32))
        return jnp.asarray(centres + moved / size)[..., None, :, :]

    def __call__(self, x_NHWC: layers.Map) -> layers.Map:
        num_images, height, width, dim = x_NHWC.shape
        samples = (num_images, height * width, self.groups, len(KERNEL))
        chosen = jax.nn.gelu(self.norm(depthwise(self.dw_conv, x_NHWC)), approximate=False)
        offset = self.offset(chosen).astype(jnp.float32).reshape(*samples, 2)
        weights = jax.nn.softmax(self.mask(chosen).astype(jnp.float32).reshape(samples), axis=-1)
        value = self.input_proj(x_NHWC).reshape(num_images, height * width, self.groups, -1)
        places = self.places(offset, (height, width))
        output = deformable_attention.sample_every_head(value, [(height, width)], places, weights[..., None, :])
        return self.output_proj(output.reshape(num_images, height, width, dim))
