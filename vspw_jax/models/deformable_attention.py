"""Multi-scale deformable attention (Deformable DETR, equation 3), shared by the adapter and the pixel decoder.

Shapes: N images, Q queries, S value tokens over all levels, G heads, V levels, P points, D channels a head.
Coordinates are (x, y) in [0, 1] over the whole map, cell i of n at (i + 0.5) / n.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from vspw_jax import bilinear
from vspw_jax.models import layers


def cell_centres(shapes_V2):
    """Centres of the cells of maps (H, W), the maps one after another: (sum of H*W, 2) as (x, y)."""
    centres = []
    for height, width in shapes_V2:
        y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
        centres.append(np.stack([x.ravel(), y.ravel()], axis=-1))
    return np.concatenate(centres).astype(np.float32)


def sample_and_sum(value_SGD, shapes_V2, locations_QGVP2, weights_QGVP):
    """Sum over levels and points of weight times the bilinear sample of one image's value maps.

    Equals `ms_deform_attn_core_pytorch` (czczup/ViT-Adapter, detection/ops/functions): bilinear with
    align_corners False; a corner outside its map counts as zero.

    Args:
      value_SGD: value tokens, the levels one after another, each row-major.
      shapes_V2: static (H, W) of the levels; their products sum to S.
      locations_QGVP2: sample locations as (x, y); 0 and 1 are the map's outer edges.
      weights_QGVP: attention weights.

    Returns:
      (Q, G, D).
    """
    num_queries, heads = locations_QGVP2.shape[:2]
    heights, widths = np.array(shapes_V2, np.int32).T[:, :, None]
    starts = np.cumsum(heights * widths, dtype=np.int32)[:, None] - heights * widths
    index, share = bilinear.corners(locations_QGVP2, heights, widths)
    index_QGK = (index + starts[..., None]).reshape(num_queries, heads, -1)
    weight_QGK = (share * weights_QGVP[..., None]).reshape(index_QGK.shape).astype(value_SGD.dtype)

    def one_head(value_SD, index_QK, weight_QK):
        picked_QKD = value_SD.at[index_QK].get(mode="promise_in_bounds")
        return jnp.einsum("qkd,qk->qd", picked_QKD, weight_QK)

    return jax.vmap(one_head, in_axes=1, out_axes=1)(value_SGD, index_QGK, weight_QGK)


def _offset_bias(heads, num_levels, num_points):
    """Initial offsets: one direction a head, scaled to max-norm 1, times the point's number 1..P."""
    angle = 2 * np.pi * np.arange(heads) / heads
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    direction /= np.abs(direction).max(axis=-1, keepdims=True)
    steps = np.arange(1, num_points + 1)[:, None]
    offsets = np.tile(direction[:, None, None] * steps, (1, num_levels, 1, 1))
    return offsets.reshape(-1).astype(np.float32)


class DeformableAttention(nnx.Module):
    """Every query attends to `num_points` places on each level around its reference point.

    No residual and no dropout inside. Source: czczup/ViT-Adapter detection/ops/modules/ms_deform_attn.py;
    with `value_ratio` 1 it is mmcv's MultiScaleDeformableAttention less its residual.

    Args:
      dim: width of queries, features and output.
      heads, num_levels, num_points: G, V, P.
      value_ratio: width of the values as a share of `dim` (the adapter's deform_ratio).
    """

    def __init__(self, dim, heads, num_levels, num_points=4, value_ratio=1.0, *, dtype, rngs):
        self.heads, self.num_levels, self.num_points = heads, num_levels, num_points
        value_dim = int(dim * value_ratio)
        samples = heads * num_levels * num_points
        options = dict(dtype=dtype, rngs=rngs)
        zeros = nnx.initializers.zeros
        self.sampling_offsets = layers.linear(dim, samples * 2, kernel_init=zeros, **options)
        self.sampling_offsets.bias[...] = jnp.asarray(_offset_bias(heads, num_levels, num_points))
        self.attention_weights = layers.linear(dim, samples, kernel_init=zeros, **options)
        self.value_proj = layers.linear(dim, value_dim, kernel_init=layers.xavier_uniform, **options)
        self.output_proj = layers.linear(value_dim, dim, kernel_init=layers.xavier_uniform, **options)

    def __call__(self, query_NQC, reference_Q2, feature_NSC, shapes_V2):
        """Returns (N, Q, dim); `reference_Q2` is (x, y) in [0, 1], `shapes_V2` the static (H, W) of the levels."""
        num_images, num_queries, _ = query_NQC.shape
        samples = (num_images, num_queries, self.heads, self.num_levels, self.num_points)
        value_NSGD = self.value_proj(feature_NSC).reshape(num_images, feature_NSC.shape[1], self.heads, -1)
        sizes = np.array([(width, height) for height, width in shapes_V2], np.float32)[:, None]
        offsets = self.sampling_offsets(query_NQC).astype(jnp.float32).reshape(*samples, 2)
        locations = reference_Q2[:, None, None, None] + offsets / sizes
        weights = self.attention_weights(query_NQC).astype(jnp.float32)
        weights = jax.nn.softmax(weights.reshape(*samples[:3], -1), axis=-1).reshape(samples)

        # An image at a time, its samples gathered again in the backward pass: at crop 480 and width 1024 they take
        # 0.9 GiB an image. It is also the faster way on CPU, where the samples then stay in cache.
        @jax.checkpoint
        def one_image(image):
            value_SGD, locations_QGVP2, weights_QGVP = image
            return sample_and_sum(value_SGD, shapes_V2, locations_QGVP2, weights_QGVP)

        output_NQGD = lax.map(one_image, (value_NSGD, locations, weights))
        return self.output_proj(output_NQGD.reshape(num_images, num_queries, -1))
