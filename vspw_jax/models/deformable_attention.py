"""Multi-scale deformable attention (Deformable DETR, equation 3), shared by the adapter and the pixel decoder.

Shapes: N images, Q queries, S value tokens over all levels, G heads, V levels, P points, D channels a head.
Coordinates are (x, y) in [0, 1] over the whole map. The centre of cell i of n is at (i + 0.5) / n.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from vspw_jax.models import layers
from vspw_jax.sampling import bilinear, deformable_kernel


def cell_centres(shapes_V2: Sequence[layers.Size]) -> Float[np.ndarray, "S 2"]:
    """Centres (x, y) of the cells of maps (H, W); the maps follow each other."""
    centres = []
    for height, width in shapes_V2:
        y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
        centres.append(np.stack([x.ravel(), y.ravel()], axis=-1))
    return np.concatenate(centres).astype(np.float32)


def sample_and_sum(
    value_SD: Float[Array, "S D"],
    shapes_V2: Sequence[layers.Size],
    locations_QVP2: Float[Array, "Q V P 2"],
    weights_QVP: Float[Array, "Q V P"],
) -> Float[Array, "Q D"]:
    """Sum over levels and points of weight times the bilinear sample of one image's and one head's value maps.

    Equals `ms_deform_attn_core_pytorch` (czczup/ViT-Adapter, detection/ops/functions): bilinear with
    align_corners False; a corner outside its map counts as zero.

    Args:
      value_SD: value tokens, row-major; the levels follow each other.
      shapes_V2: static (H, W) of the levels; their products sum to S.
      locations_QVP2: sample locations as (x, y); 0 and 1 are the map's outer edges.
      weights_QVP: attention weights.
    """
    num_queries = locations_QVP2.shape[0]
    heights, widths = np.array(shapes_V2, np.int32).T[:, :, None]
    starts = np.cumsum(heights * widths, dtype=np.int32)[:, None] - heights * widths
    index, share = bilinear.corners(locations_QVP2, heights, widths)
    index_QK = (index + starts[..., None]).reshape(num_queries, -1)
    weight_QK = (share * weights_QVP[..., None]).reshape(num_queries, -1).astype(value_SD.dtype)
    picked_QKD = value_SD.at[index_QK].get(mode="promise_in_bounds")
    return jnp.einsum("qkd,qk->qd", picked_QKD, weight_QK)


def sample_every_head(
    value_NSGD: Float[Array, "N S G D"],
    shapes_V2: Sequence[layers.Size],
    locations_NQGVP2: Float[Array, "N Q G V P 2"],
    weights_NQGVP: Float[Array, "N Q G V P"],
) -> Float[Array, "N Q G D"]:
    """`sample_and_sum` of every image and head: on TPUs by `deformable_kernel`, elsewhere by gathers."""
    num_images, num_queries, heads = weights_NQGVP.shape[:3]

    def heads_first(x):
        x = jnp.moveaxis(x, 2, 1)
        return x.reshape(num_images * heads, *x.shape[2:])

    of_heads = heads_first(value_NSGD), shapes_V2, heads_first(locations_NQGVP2), heads_first(weights_NQGVP)
    if jax.default_backend() == "tpu":
        output = deformable_kernel.sample_and_sum(*of_heads)
    elif jax.default_backend() == "gpu":
        # In float32, as a GPU adds to numbers of 16 bits at scattered places twelve times slower.
        value_GSD = of_heads[0].astype(jnp.float32)
        output = _gathered(value_GSD, *of_heads[1:], together=len(value_GSD)).astype(value_NSGD.dtype)
    else:
        output = _gathered(*of_heads, together=1)
    return jnp.moveaxis(output.reshape(num_images, heads, num_queries, -1), 1, 2)


def _gathered(
    value_GSD: Float[Array, "G S D"],
    shapes_V2: Sequence[layers.Size],
    locations_GQVP2: Float[Array, "G Q V P 2"],
    weights_GQVP: Float[Array, "G Q V P"],
    together: int,
) -> Float[Array, "G Q D"]:
    """`sample_and_sum` of `together` heads after the other.

    The backward pass gathers the samples again: at crop 480 and width 1024 they take 0.9 GiB an image. One pass of the
    loop takes one head, whose samples then stay in a CPU's cache (6 times faster at crop 480). A GPU takes all heads
    together.
    """

    @jax.checkpoint
    def one_head(inputs):
        value_SD, locations_QVP2, weights_QVP = inputs
        return sample_and_sum(value_SD, shapes_V2, locations_QVP2, weights_QVP)

    return lax.map(one_head, (value_GSD, locations_GQVP2, weights_GQVP), batch_size=together)


def offset_bias(heads: int, num_levels: int, num_points: int) -> Float[np.ndarray, " G*V*P*2"]:
    """Initial offsets: one direction a head, scaled to max-norm 1, times the point's number 1..P."""
    angle = 2 * np.pi * np.arange(heads) / heads
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    direction /= np.abs(direction).max(axis=-1, keepdims=True)
    steps = np.arange(1, num_points + 1)[:, None]
    offsets = np.tile(direction[:, None, None] * steps, (1, num_levels, 1, 1))
    return offsets.reshape(-1).astype(np.float32)


class DeformableAttention(nnx.Module):
    """Every query attends to `num_points` places on each level around its reference point.

    It has no residual and no dropout. Source: czczup/ViT-Adapter detection/ops/modules/ms_deform_attn.py;
    with `value_ratio` 1 it is mmcv's MultiScaleDeformableAttention without its residual.

    Args:
      dim: width of queries, features and output.
      heads, num_levels, num_points: G, V, P.
      value_ratio: width of the values as a share of `dim` (the adapter's deform_ratio).
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        num_levels: int,
        num_points: int = 4,
        value_ratio: float = 1.0,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.heads, self.num_levels, self.num_points = heads, num_levels, num_points
        value_dim = int(dim * value_ratio)
        samples = heads * num_levels * num_points
        options = layers.Options(dtype=dtype, rngs=rngs)
        zeros = nnx.initializers.zeros
        self.sampling_offsets = layers.linear(dim, samples * 2, kernel_init=zeros, **options)
        assert self.sampling_offsets.bias is not None
        self.sampling_offsets.bias[...] = jnp.asarray(offset_bias(heads, num_levels, num_points))
        self.attention_weights = layers.linear(dim, samples, kernel_init=zeros, **options)
        self.value_proj = layers.linear(dim, value_dim, kernel_init=layers.xavier_uniform, **options)
        self.output_proj = layers.linear(value_dim, dim, kernel_init=layers.xavier_uniform, **options)

    def __call__(
        self,
        query_NQC: Float[Array, "N Q C"],
        reference_Q2: Float[np.ndarray, "Q 2"],
        feature_NSC: layers.Tokens,
        shapes_V2: Sequence[layers.Size],
    ) -> Float[Array, "N Q C"]:
        """`reference_Q2` is (x, y) in [0, 1]; `shapes_V2` is the static (H, W) of each level."""
        num_images, num_queries, _ = query_NQC.shape
        samples = (num_images, num_queries, self.heads, self.num_levels, self.num_points)
        value_NSGD = self.value_proj(feature_NSC).reshape(num_images, feature_NSC.shape[1], self.heads, -1)
        sizes = np.array([(width, height) for height, width in shapes_V2], np.float32)[:, None]
        offsets = self.sampling_offsets(query_NQC).astype(jnp.float32).reshape(*samples, 2)
        locations = offsets / sizes + reference_Q2[:, None, None, None]
        weights = self.attention_weights(query_NQC).astype(jnp.float32)
        weights = jax.nn.softmax(weights.reshape(*samples[:3], -1), axis=-1).reshape(samples)

        output_NQGD = sample_every_head(value_NSGD, shapes_V2, locations, weights)
        return self.output_proj(output_NQGD.reshape(num_images, num_queries, -1))
