"""Small layers shared by the encoders and decoders.

Shapes: N images, H and W cells, S tokens, C channels. Keys are one typed JAX key an image.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from vspw_jax.parallel import weight_shards
from vspw_jax.parallel.mesh import DATA_AXES

REMAT_POLICIES = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}

normal_02 = nnx.initializers.normal(0.02)
"""timm's trunc_normal_(std=.02): it cuts at +-2, a hundred deviations off, so it is a plain normal."""
xavier_uniform = nnx.initializers.xavier_uniform()
torch_uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""torch.nn.Linear's own: uniform in +-1/sqrt(inputs), for layers that the released code leaves as made."""
fan_out_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def stack_modules(make, count, rngs):
    """`count` modules made by make(rngs) as one whose variables have a leading axis of `count`, for `scan_modules`."""
    keys = jax.random.split(rngs.params(), count)
    graphdef = nnx.graphdef(nnx.eval_shape(make, nnx.Rngs(params=keys[0])))
    return nnx.merge(graphdef, jax.vmap(lambda key: nnx.state(make(nnx.Rngs(params=key))))(keys))


def scan_modules(stacked, apply, carry, xs=None, remat="none", unroll=1):
    """`lax.scan` over the modules of `stack_modules`: carry, y = apply(module, carry, x)."""
    graphdef, variables = nnx.split(stacked)

    def body(carry, inputs):
        variables, x = inputs
        return apply(nnx.merge(graphdef, weight_shards.put_together(variables)), carry, x)

    # A loop's passes cannot be merged with each other, so the guard against it is needed only without one.
    return lax.scan(rematerialised(body, remat, prevent_cse=unroll is True), carry, (variables, xs), unroll=unroll)


def rematerialised(function, remat, prevent_cse=True):
    """The function, its intermediate values recomputed in the backward pass as the policy `remat` says.

    `prevent_cse` keeps the compiler from finding the forward pass's values again and so saving them after all.
    """
    policy = REMAT_POLICIES[remat]
    return function if policy is None else jax.checkpoint(function, policy=policy, prevent_cse=prevent_cse)


def fold_keys(keys_N, data):
    """`jax.random.fold_in` of every image's key; None stays None (no randomness)."""
    return None if keys_N is None else jax.vmap(jax.random.fold_in, (0, None))(keys_N, data)


def drop_path(x_NSC, rate, keys_N):
    """Stochastic depth: drops an image's whole branch with probability `rate`, as timm's DropPath.

    Each image draws from its own key, so that the draw does not depend on how images share devices.
    """
    if keys_N is None:
        return x_NSC
    kept_N = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate))(keys_N)
    scale_N = (kept_N / (1.0 - rate)).astype(x_NSC.dtype)
    return x_NSC * scale_N.reshape(-1, *(1,) * (x_NSC.ndim - 1))


def drop_channels(x_NHWC, rate, keys_N):
    """torch's Dropout2d: drops each channel of an image's map with probability `rate`, each image by its own key."""
    if keys_N is None:
        return x_NHWC
    kept_NC = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x_NHWC.shape[-1:]))(keys_N)
    return x_NHWC * (kept_NC / (1.0 - rate)).astype(x_NHWC.dtype)[:, None, None]


def resize_bilinear(x_NHWC, height, width):
    """Bilinear resize as torch's F.interpolate(mode="bilinear", align_corners=False): no antialiasing."""
    shape = (x_NHWC.shape[0], height, width, x_NHWC.shape[3])
    return jax.image.resize(x_NHWC, shape, "bilinear", antialias=False)


def to_tokens(x_NHWC):
    """(N, H, W, C) to (N, H*W, C), row-major."""
    return x_NHWC.reshape(x_NHWC.shape[0], -1, x_NHWC.shape[-1])


def split_maps(tokens_NPC, shapes):
    """Cuts tokens of several maps, one after another, into maps (N, h, w, C)."""
    ends = np.cumsum([height * width for height, width in shapes])[:-1].tolist()
    parts = jnp.split(tokens_NPC, ends, axis=1)
    return [part.reshape(part.shape[0], *shape, -1) for part, shape in zip(parts, shapes, strict=True)]


def layer_norm(dim, epsilon, *, dtype, rngs):
    """flax's, over the last axis."""
    return nnx.LayerNorm(dim, epsilon=epsilon, dtype=dtype, rngs=rngs)


class BatchNorm(nnx.BatchNorm):
    """flax's, with what torch's keeps: unbiased variances, of count - 1 degrees of freedom, and a count of batches."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(self, x_NHWC, use_running_average):
        kept = self.momentum * self.var[...]
        output = super().__call__(x_NHWC, use_running_average)
        if not use_running_average:
            count = x_NHWC.size // x_NHWC.shape[-1] * lax.axis_size(self.axis_name)
            self.var[...] = kept + (self.var[...] - kept) * (count / max(1, count - 1))
            self.count[...] += 1
        return output


def batch_norm(dim, *, dtype, rngs):
    """torch's SyncBatchNorm (eps 1e-5, momentum 0.1): in training its statistics span all devices."""
    return BatchNorm(
        dim, momentum=0.9, epsilon=1e-5, use_fast_variance=False, axis_name=DATA_AXES, dtype=dtype, rngs=rngs
    )


def group_norm(dim, groups, *, dtype, rngs):
    """GroupNorm of the decoders, with torch's default eps 1e-5."""
    return nnx.GroupNorm(dim, groups, epsilon=1e-5, use_fast_variance=False, dtype=dtype, rngs=rngs)


def conv3x3(channels_in, channels_out, stride=1, *, dtype, rngs, use_bias=False, groups=1):
    """3x3 convolution with torch's symmetric padding of 1."""
    return nnx.Conv(
        channels_in,
        channels_out,
        (3, 3),
        stride,
        padding=1,
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=fan_out_normal,
        dtype=dtype,
        rngs=rngs,
    )


def depthwise3x3(conv, x_NHWC):
    """What the depthwise `conv` of `conv3x3` gives, as a sum of nine shifted products.

    On CPU the gradient of the grouped convolution takes ten times as long.
    """
    _, height, width, _ = x_NHWC.shape
    dtype = conv.dtype
    padded = jnp.pad(x_NHWC.astype(dtype), ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = conv.kernel[...].astype(dtype)[:, :, 0]
    shifted = (padded[:, dy : dy + height, dx : dx + width] * kernel[dy, dx] for dy in range(3) for dx in range(3))
    return sum(shifted) + conv.bias[...].astype(dtype)


def linear(dim_in, dim_out, *, dtype, rngs, use_bias=True, kernel_init=normal_02):
    """Linear layer over the last axis; on a map (N, H, W, C) it is torch's 1x1 convolution."""
    return nnx.Linear(dim_in, dim_out, use_bias=use_bias, kernel_init=kernel_init, dtype=dtype, rngs=rngs)


class Upsample2x(nnx.Module):
    """torch's ConvTranspose2d(kernel 2, stride 2): every cell becomes 2x2 cells. Kernel (in, dy, dx, out)."""

    def __init__(self, channels_in, channels_out, *, dtype, rngs):
        scale = math.sqrt(2.0 / (4 * channels_out))
        self.kernel = nnx.Param(scale * jax.random.normal(rngs.params(), (channels_in, 2, 2, channels_out)))
        self.bias = nnx.Param(jnp.zeros(channels_out))
        self.dtype = dtype

    def __call__(self, x_NHWC):
        num_images, height, width, _ = x_NHWC.shape
        kernel = self.kernel[...].astype(self.dtype)
        output = jnp.einsum("nhwi,iabo->nhawbo", x_NHWC.astype(self.dtype), kernel) + self.bias[...].astype(self.dtype)
        return output.reshape(num_images, 2 * height, 2 * width, -1)


class ConvNormRelu(nnx.Module):
    """1x1 or 3x3 convolution without bias, batch norm, ReLU: mmcv's ConvModule."""

    def __init__(self, channels_in, channels_out, size=3, stride=1, *, dtype, rngs):
        options = dict(dtype=dtype, rngs=rngs)
        if size == 1:
            self.conv = linear(channels_in, channels_out, use_bias=False, kernel_init=fan_out_normal, **options)
        else:
            self.conv = conv3x3(channels_in, channels_out, stride, **options)
        self.norm = batch_norm(channels_out, **options)

    def __call__(self, x_NHWC, train):
        return jax.nn.relu(self.norm(self.conv(x_NHWC), use_running_average=not train))
