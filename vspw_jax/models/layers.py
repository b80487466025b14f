"""Small layers shared by the encoders and decoders.

Shapes: N images, H and W cells, S tokens, C channels. Keys are one typed JAX key an image.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree

from vspw_jax.models.convolution import convolve
from vspw_jax.parallel import weight_shards
from vspw_jax.parallel.mesh import DATA_AXES

Map = Float[Array, "N H W C"]
Tokens = Float[Array, "N S C"]
Size = tuple[int, int]
"""Height and width."""
Keys = Key[Array, " N"] | None
"""None stands for no randomness."""
Module = TypeVar("Module", bound=nnx.Module)


class Options(TypedDict):
    """What every layer is made with: the type of its computation, and where its first weights come from."""

    dtype: jnp.dtype
    rngs: nnx.Rngs


REMAT_POLICIES = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
    "auto": jax.checkpoint_policies.nothing_saveable,  # Until training chooses: `training/rematerialisation.py`.
}

normal_02 = nnx.initializers.normal(0.02)
"""timm's trunc_normal_(std=.02). It cuts at +-2, which is a hundred deviations, so it is a plain normal."""
xavier_uniform = nnx.initializers.xavier_uniform()
torch_uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""torch.nn.Linear's own: uniform in +-1/sqrt(inputs). For layers that the released code does not initialise itself."""
fan_out_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class _WeightKeys:
    def __init__(self, key: Key[Array, ""]) -> None:
        self._key = key
        self._calls = itertools.count()

    def params(self) -> Key[Array, ""]:
        return jax.random.fold_in(self._key, next(self._calls))


def weight_keys(key: Key[Array, ""]) -> nnx.Rngs:
    """`nnx.Rngs(params=key)`, the same keys in the same order, counted in Python.

    nnx counts in a variable. Within a trace each count makes JAX write an error message that nobody reads, which was
    three quarters of the time to trace a network's first weights.
    """
    return cast(nnx.Rngs, _WeightKeys(key))


def stack_modules(make: Callable[[nnx.Rngs], Module], count: int, rngs: nnx.Rngs) -> Module:
    """`count` modules made by make(rngs) as one whose variables have a leading axis of `count`, for `scan_modules`."""
    graphdefs = []  # One trace gives it beside the variables; stacks within stacks would double the traces each time.

    def variables(key: Key[Array, ""]) -> nnx.State:
        graphdef, state = nnx.split(make(weight_keys(key)))
        graphdefs.append(graphdef)
        return state

    stacked = jax.vmap(variables)(jax.random.split(rngs.params(), count))
    return nnx.merge(graphdefs[0], stacked)


UNROLLED_ON = ("gpu",)
"""Platforms without loops over layers. On a GPU a loop copies every layer's weights, results and gradients: without it
a step of UperNet with BEiT-L took 169 ms for 262, and 14 GiB for 21 (benchmarks/RESULTS.md, "On a GPU")."""


def scan_modules(
    stacked: Module,
    apply: Callable[[Module, PyTree, PyTree], tuple[PyTree, PyTree]],
    carry: PyTree,
    xs: PyTree = None,
    remat: str = "none",
    unroll: bool = False,
    changes: bool = False,
) -> tuple[PyTree, PyTree]:
    """`lax.scan` over the modules of `stack_modules`: carry, y = apply(module, carry, x).

    Without a loop where `unroll` is set, and on the platforms of `UNROLLED_ON`. Where a pass `changes` what is not
    trained in its module, such as a batch norm's statistics, `stacked` keeps that.
    """
    graphdef, variables = nnx.split(stacked)

    def body(carry, inputs):
        variables, x = inputs
        module = nnx.merge(graphdef, weight_shards.put_together(variables))
        carry, y = apply(module, carry, x)
        return carry, (y, nnx.state(module, nnx.Not(nnx.Param)) if changes else ())

    # The compiler cannot merge the passes of a loop, so `prevent_cse` is needed only where there is no loop: a loop of
    # one pass is none to the compiler.
    unroll = unroll or jax.default_backend() in UNROLLED_ON
    is_loop = not unroll and len(jax.tree.leaves(variables)[0]) > 1
    body = rematerialised(body, remat, prevent_cse=not is_loop)
    carry, (ys, kept) = lax.scan(body, carry, (variables, xs), unroll=unroll)
    if changes:
        nnx.update(stacked, kept)
    return carry, ys


def rematerialised(function: Callable, remat: str, prevent_cse: bool = True) -> Callable:
    """The function; the backward pass recomputes its intermediate values as the policy `remat` says.

    `prevent_cse` keeps the compiler from merging them with those of the forward pass, which would save them after all.
    """
    policy = REMAT_POLICIES[remat]
    return function if policy is None else jax.checkpoint(function, policy=policy, prevent_cse=prevent_cse)


def fold_keys(keys_N: Keys, data: int | Int[Array, ""]) -> Keys:
    """`jax.random.fold_in` of every image's key; None stays None (no randomness)."""
    return None if keys_N is None else jax.vmap(jax.random.fold_in, (0, None))(keys_N, data)


def drop_path(x_NSC: Tokens, rate: float | Float[Array, ""], keys_N: Keys) -> Tokens:
    """Stochastic depth: drops an image's whole branch with probability `rate`, as timm's DropPath.

    Each image draws from its own key, so that the draw does not depend on how images share devices.
    """
    if keys_N is None:
        return x_NSC
    kept_N = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate))(keys_N)
    scale_N = (kept_N / (1.0 - rate)).astype(x_NSC.dtype)
    return x_NSC * scale_N.reshape(-1, *(1,) * (x_NSC.ndim - 1))


def add_branches(
    x: Array,
    parts: Iterable[tuple[nnx.Module, Callable[[Array], Array], nnx.Param | None]],
    drop_rate: float | Float[Array, ""],
    keys_N: Keys,
    post_norm: bool = False,
) -> Array:
    """The residual branches of a transformer's block, one after the other, each with stochastic depth.

    Args:
      parts: norm, module and layer scale of each; None for a branch without.
      post_norm: whether a norm stands behind its module, not before it.
    """
    for number, (norm, module, gamma) in enumerate(parts):
        branch = norm(module(x)) if post_norm else module(norm(x))
        branch = branch if gamma is None else gamma[...].astype(branch.dtype) * branch
        x = x + drop_path(branch, drop_rate, fold_keys(keys_N, number))
    return x


def drop_channels(x_NHWC: Map, rate: float, keys_N: Keys) -> Map:
    """torch's Dropout2d: drops each channel of an image's map with probability `rate`, each image by its own key."""
    if keys_N is None:
        return x_NHWC
    kept_NC = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x_NHWC.shape[-1:]))(keys_N)
    return x_NHWC * (kept_NC / (1.0 - rate)).astype(x_NHWC.dtype)[:, None, None]


def drop_elements(x_NHWC: Map, rate: float, keys_N: Keys) -> Map:
    """torch's Dropout: drops each element with probability `rate`, each image by its own key."""
    if keys_N is None:
        return x_NHWC
    kept_NHWC = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x_NHWC.shape[1:]))(keys_N)
    return x_NHWC * (kept_NHWC / (1.0 - rate)).astype(x_NHWC.dtype)


DROPPED = {"channels": drop_channels, "elements": drop_elements}
"""What drop-out drops, by `model.decoder.dropped`."""


def resize_bilinear(x_NHWC: Map, height: int, width: int) -> Map:
    """Bilinear resize as torch's F.interpolate(mode="bilinear", align_corners=False): no antialiasing."""
    shape = (x_NHWC.shape[0], height, width, x_NHWC.shape[3])
    return jax.image.resize(x_NHWC, shape, "bilinear", antialias=False)


def resize_matrix(source: int, target: int) -> Float[Array, "target source"]:
    """The matrix by which `resize_bilinear` resizes one axis."""
    return jax.image.resize(jnp.eye(source), (target, source), "bilinear", antialias=False)


def aligned_matrix(source: int, target: int) -> Float[np.ndarray, "target source"]:
    """Matrix that resizes one axis linearly; the centres of the first cells meet, and so do those of the last."""
    places = np.linspace(0, source - 1, target)[:, None]
    return np.maximum(0, 1 - np.abs(places - np.arange(source)))


@functools.partial(jax.jit, static_argnums=(1, 2))  # A name in traces, as jax.image.resize has one.
def resize_aligned(x_NHWC: Map, height: int, width: int) -> Map:
    """Bilinear resize as torch's F.interpolate(mode="bilinear", align_corners=True)."""
    sizes = zip(x_NHWC.shape[1:3], (height, width), strict=True)
    rows, columns = (aligned_matrix(*size).astype(x_NHWC.dtype) for size in sizes)
    return jnp.einsum("nhwc,ih,jw->nijc", x_NHWC, rows, columns, precision="highest")


RESIZES: dict[bool, Callable[[Map, int, int], Map]] = {False: resize_bilinear, True: resize_aligned}
"""Bilinear resizes by what torch calls align_corners."""


def to_tokens(x_NHWC: Map) -> Tokens:
    """(N, H, W, C) to (N, H*W, C), row-major."""
    return x_NHWC.reshape(x_NHWC.shape[0], -1, x_NHWC.shape[-1])


def attend(
    query_NQC: Float[Array, "N Q C"], key_NSC: Tokens, value_NSD: Float[Array, "N S D"], scale: float
) -> Float[Array, "N Q D"]:
    """softmax(scale q k^T) v with one head; values may have another width, which JAX's own attention does not take."""
    logits_NQS = scale * jnp.einsum("nqc,nsc->nqs", query_NQC, key_NSC, preferred_element_type=jnp.float32)
    return jnp.einsum("nqs,nsd->nqd", jax.nn.softmax(logits_NQS, axis=-1).astype(value_NSD.dtype), value_NSD)


def frames_of(x_N: Array, frames: int, numbers: Sequence[int]) -> Array:
    """Of clips of `frames` images, which lie one after the other along the first axis, the images of these numbers."""
    clips = x_N.reshape(-1, frames, *x_N.shape[1:])
    return jnp.stack([clips[:, number] for number in numbers], axis=1).reshape(-1, *x_N.shape[1:])


def last_frames(x_N: Array, frames: int, count: int) -> Array:
    """Of clips of `frames` images, which lie one after the other along the first axis, the last `count` images each."""
    return x_N.reshape(-1, frames, *x_N.shape[1:])[:, frames - count :].reshape(-1, *x_N.shape[1:])


def split_maps(tokens_NPC: Float[Array, "N P C"], shapes: Sequence[Size]) -> list[Map]:
    """Cuts the tokens of several maps, which follow each other, into maps (N, h, w, C)."""
    ends = np.cumsum([height * width for height, width in shapes])[:-1].tolist()
    parts = jnp.split(tokens_NPC, ends, axis=1)
    return [part.reshape(part.shape[0], *shape, -1) for part, shape in zip(parts, shapes, strict=True)]


def layer_norm(dim: int, epsilon: float, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """flax's, over the last axis."""
    return nnx.LayerNorm(dim, epsilon=epsilon, dtype=dtype, rngs=rngs)


class BatchNorm(nnx.BatchNorm):
    """flax's, but it keeps what torch's does: unbiased variances (divided by count - 1) and a count of batches."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(self, x_NHWC: Map, use_running_average: bool) -> Map:  # type: ignore[override]  # It takes no mask.
        kept = self.momentum * self.var[...]
        output = super().__call__(x_NHWC, use_running_average)
        if not use_running_average:
            count = x_NHWC.size // x_NHWC.shape[-1] * lax.axis_size(self.axis_name)
            self.var[...] = kept + (self.var[...] - kept) * (count / max(1, count - 1))
            self.count[...] += 1
        return output


def batch_norm(
    dim: int, scale_init: nnx.Initializer = nnx.initializers.ones, *, dtype: jnp.dtype, rngs: nnx.Rngs
) -> BatchNorm:
    """torch's SyncBatchNorm (eps 1e-5, momentum 0.1): in training its statistics span all devices."""
    return BatchNorm(
        dim,
        momentum=0.9,
        epsilon=1e-5,
        use_fast_variance=False,
        axis_name=DATA_AXES,
        scale_init=scale_init,
        dtype=dtype,
        rngs=rngs,
    )


def group_norm(dim: int, groups: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """GroupNorm of the decoders, with torch's default eps 1e-5."""
    return nnx.GroupNorm(dim, groups, epsilon=1e-5, use_fast_variance=False, dtype=dtype, rngs=rngs)


def conv(
    channels_in: int,
    channels_out: int,
    size: int,
    stride: int = 1,
    dilation: int = 1,
    *,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
    use_bias: bool = False,
    groups: int = 1,
    kernel_init: nnx.Initializer = fan_out_normal,
) -> nnx.Conv:
    """Convolution of an odd size with torch's symmetric padding, which keeps a map's size at stride 1."""
    return nnx.Conv(
        channels_in,
        channels_out,
        (size, size),
        stride,
        padding=dilation * (size // 2),
        kernel_dilation=dilation,
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        conv_general_dilated=convolve,
        dtype=dtype,
        rngs=rngs,
    )


def by_patches(conv: nnx.Conv, x_NHWC: Map) -> Map:
    """What an unpadded `conv` gives whose size is its stride, as one matrix product.

    Cells beyond the last whole patch are left out. On CPU the gradient of the same convolution takes six times as long.
    """
    size, dtype = conv.kernel_size[0], conv.dtype
    num_images, channels = x_NHWC.shape[0], x_NHWC.shape[3]
    rows, columns = (side // size for side in x_NHWC.shape[1:3])
    cells = x_NHWC[:, : rows * size, : columns * size].reshape(num_images, rows, size, columns, size, channels)
    patches_NHWP = cells.transpose(0, 1, 3, 2, 4, 5).reshape(num_images, rows, columns, size * size * channels)
    kernel_PC = conv.kernel[...].reshape(patches_NHWP.shape[-1], -1).astype(dtype)
    assert conv.bias is not None
    return patches_NHWP.astype(dtype) @ kernel_PC + conv.bias[...].astype(dtype)


def linear(
    dim_in: int,
    dim_out: int,
    *,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
    use_bias: bool = True,
    kernel_init: nnx.Initializer = normal_02,
) -> nnx.Linear:
    """Linear layer over the last axis; on a map (N, H, W, C) it is torch's 1x1 convolution."""
    return nnx.Linear(dim_in, dim_out, use_bias=use_bias, kernel_init=kernel_init, dtype=dtype, rngs=rngs)


class Upsample2x(nnx.Module):
    """torch's ConvTranspose2d(kernel 2, stride 2): every cell becomes 2x2 cells. Kernel (in, dy, dx, out)."""

    def __init__(self, channels_in: int, channels_out: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        scale = math.sqrt(2.0 / (4 * channels_out))
        self.kernel = nnx.Param(scale * jax.random.normal(rngs.params(), (channels_in, 2, 2, channels_out)))
        self.bias = nnx.Param(jnp.zeros(channels_out))
        self.dtype = dtype

    def __call__(self, x_NHWC: Map) -> Map:
        num_images, height, width, _ = x_NHWC.shape
        kernel = self.kernel[...].astype(self.dtype)
        output = jnp.einsum("nhwi,iabo->nhawbo", x_NHWC.astype(self.dtype), kernel) + self.bias[...].astype(self.dtype)
        return output.reshape(num_images, 2 * height, 2 * width, -1)


class ConvNorm(nnx.Module):
    """Convolution of an odd size without bias, and batch norm."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        scale_init: nnx.Initializer = nnx.initializers.ones,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        options = Options(dtype=dtype, rngs=rngs)
        self.conv: nnx.Linear | nnx.Conv
        if size == 1:
            self.conv = linear(channels_in, channels_out, use_bias=False, kernel_init=fan_out_normal, **options)
        else:
            self.conv = conv(channels_in, channels_out, size, stride, dilation, **options)
        self.norm = batch_norm(channels_out, scale_init, **options)

    def __call__(self, x_NHWC: Map, train: bool) -> Map:
        return self.norm(self.conv(x_NHWC), use_running_average=not train)


class ConvNormRelu(ConvNorm):
    """The same and ReLU: mmcv's ConvModule."""

    def __call__(self, x_NHWC: Map, train: bool) -> Map:
        return jax.nn.relu(super().__call__(x_NHWC, train))
