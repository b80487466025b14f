"""Attention with BEiT's relative position bias as a kernel for TPUs: no logits and no whole bias in memory.

A step of the kernel has a few rows of query patches of some heads, with all keys, so that a softmax is whole. The
biases of its queries with all patches are a slice of an array that is small enough for the chip's own memory, as they
depend on differences of rows and columns alone. Its gradient is summed there over queries and images. The backward
pass makes the softmax once more: it reads nothing but what the forward pass read.

Rows of keys are padded so that a slice begins at a whole tile of 128 lanes. Heads lie side by side along the lanes, as
a linear layer leaves them; a product with one of them has zeros in the place of the others.

Source: FlashAttention-2 (arXiv 2307.08691), algorithm 2; Pallas: docs.jax.dev/en/latest/pallas/tpu/details.html.
Shapes: N images, H and W patches, S = H*W + 1 tokens (class token first), G heads, C channels of all heads, Q and K
padded queries and keys, B queries of a step, T tiles of biases, L = 128 lanes.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Float32

from vspw_jax.sampling.kernels import LANES, ROWS_OF_TILE, Ref, product, up_to_multiple, vector_memory

FORWARD, BACKWARD = "attention_forward", "attention_backward"
"""Names of the kernels."""
UNSEEN = -1e9
"""Logits of keys that are padding."""


class Grid(NamedTuple):
    """H rows of W patches and G heads, as a kernel has them."""

    height: int
    width: int
    heads: int
    head_dim: int

    @property
    def key_width(self) -> int:
        """Keys of a row, padding included."""
        return up_to_multiple(self.width, 32)

    @property
    def rows(self) -> int:
        """Of queries, in a step: so many rows of keys fill whole tiles."""
        return LANES // math.gcd(self.key_width, LANES)

    @property
    def query_width(self) -> int:
        """Queries of a row, padding included."""
        return up_to_multiple(self.width, max(8, ROWS_OF_TILE // self.rows))

    @property
    def padded_height(self) -> int:
        return up_to_multiple(self.height, self.rows)

    @property
    def steps(self) -> int:
        return self.padded_height // self.rows

    @property
    def step_queries(self) -> int:
        return self.rows * self.query_width

    @property
    def step_tiles(self) -> int:
        """Tiles of the keys of as many rows as a step has of queries."""
        return self.rows * self.key_width // LANES

    @property
    def patch_tiles(self) -> int:
        """Tiles of keys but the last, which has the class token."""
        return self.steps * self.step_tiles

    @property
    def bias_tiles(self) -> int:
        """Those of all differences of rows, and the class token's."""
        return (2 * self.steps - 1) * self.step_tiles + 1

    @property
    def together(self) -> int:
        """Heads of a step."""
        return math.gcd(self.heads, max(LANES // self.head_dim, 1))

    @property
    def memory_bytes(self) -> int:
        """What the backward pass asks of a chip's own memory, by twos for what comes and goes while it works: at most,
        in float32."""
        keys, channels = (self.patch_tiles + 1) * LANES, max(self.together * self.head_dim, LANES)
        numbers = 4 * self.step_queries * keys + 2 * 4 * keys * channels + 2 * 3 * self.step_queries * channels
        return 4 * (numbers + 2 * 2 * self.together * self.bias_tiles * self.step_queries * LANES)


def _weights(grid: Grid, query_BC: Array, key_KC: Array, bias_TBL: Ref) -> Float32[Array, "B K"]:
    """Softmax of a step's logits."""
    logits_BK = product(query_BC, key_KC, (1, 1))
    tiles = []
    for number in range(grid.patch_tiles + 1):
        first = number * LANES
        tile_BL = logits_BK[:, first : first + LANES] + bias_TBL[_bias_tile(grid, number)].astype(jnp.float32)
        seen = grid.height * grid.key_width - first
        if seen < LANES and number < grid.patch_tiles:  # Rows of padding.
            tile_BL = jnp.where(lax.broadcasted_iota(jnp.int32, tile_BL.shape, 1) < seen, tile_BL, UNSEEN)
        tiles.append(tile_BL)
    logits_BK = jnp.concatenate(tiles, axis=1)
    raised_BK = jnp.exp(logits_BK - logits_BK.max(axis=1, keepdims=True))
    return raised_BK / raised_BK.sum(axis=1, keepdims=True)


def _bias_tile(grid: Grid, number: int) -> Any:
    """Which tile has the biases of a step's queries with a tile of keys."""
    if number == grid.patch_tiles:
        return grid.bias_tiles - 1
    return (grid.steps - 1 - pl.program_id(2)) * grid.step_tiles + number


def _of_head(grid: Grid, number: int) -> Bool[Array, "1 C"]:
    """Which channels of a step are a head's."""
    channel = lax.broadcasted_iota(jnp.int32, (1, grid.together * grid.head_dim), 1)
    return (channel >= number * grid.head_dim) & (channel < (number + 1) * grid.head_dim)


def _forward_kernel(grid: Grid, query_BC: Ref, key_KC: Ref, value_KC: Ref, bias_GTBL: Ref, output_BC: Ref) -> None:
    query, key, value = query_BC[...], key_KC[...], value_KC[...]
    output = jnp.zeros(query.shape, jnp.float32)
    for head in range(grid.together):
        mine = _of_head(grid, head)
        weights_BK = _weights(grid, jnp.where(mine, query, 0), key, bias_GTBL.at[head])
        output = jnp.where(mine, product(weights_BK.astype(value.dtype), value, (1, 0)), output)
    output_BC[...] = output.astype(output_BC.dtype)


def _backward_kernel(
    grid: Grid,
    query_BC: Ref,
    key_KC: Ref,
    value_KC: Ref,
    bias_GTBL: Ref,
    gradient_BC: Ref,
    to_query_BC: Ref,
    to_key_KC: Ref,
    to_value_KC: Ref,
    to_bias_GTBL: Ref,
) -> None:
    """Gradients: those of keys and values are summed over an image's steps, those of biases over images too."""

    @pl.when(pl.program_id(2) == 0)
    def begin_image() -> None:
        to_key_KC[...] = jnp.zeros_like(to_key_KC)
        to_value_KC[...] = jnp.zeros_like(to_value_KC)

    @pl.when((pl.program_id(1) == 0) & (pl.program_id(2) == 0))
    def begin_heads() -> None:
        to_bias_GTBL[...] = jnp.zeros_like(to_bias_GTBL)

    key, value = key_KC[...], value_KC[...]
    to_query = jnp.zeros(query_BC.shape, jnp.float32)
    for head in range(grid.together):
        mine = _of_head(grid, head)
        query, gradient = (jnp.where(mine, x[...], 0) for x in (query_BC, gradient_BC))
        weights_BK = _weights(grid, query, key, bias_GTBL.at[head])
        to_weights_BK = product(gradient, value, (1, 1))
        to_value_KC[...] += product(weights_BK.astype(gradient.dtype), gradient, (0, 0))
        mean_B1 = (weights_BK * to_weights_BK).sum(axis=1, keepdims=True)
        to_logits_BK = weights_BK * (to_weights_BK - mean_B1)
        for number in range(grid.patch_tiles + 1):
            tile_BL = to_logits_BK[:, number * LANES : (number + 1) * LANES]
            to_bias_GTBL[head, _bias_tile(grid, number)] += tile_BL
        to_logits_BK = to_logits_BK.astype(key.dtype)
        to_query = jnp.where(mine, product(to_logits_BK, key, (1, 0)), to_query)
        to_key_KC[...] += product(to_logits_BK, query, (0, 0))
    to_query_BC[...] = to_query.astype(to_query_BC.dtype)


def _call(kernel: Callable, name: str, grid: Grid, inputs: tuple, outputs: Any, interpret: bool) -> Any:
    """Runs a kernel for heads, images and steps.

    Args:
      name: of the kernel.
      inputs: queries, keys, values, biases and whatever is like queries.
      outputs: shapes and types of arrays like these.
    """
    channels = grid.together * grid.head_dim

    def block(x: Array | jax.ShapeDtypeStruct) -> pl.BlockSpec:
        if len(x.shape) == 4:
            return pl.BlockSpec((grid.together, *x.shape[1:]), lambda heads, image, step: (heads, 0, 0, 0))
        if x.shape[1] == grid.steps * grid.step_queries:
            return pl.BlockSpec((None, grid.step_queries, channels), lambda heads, image, step: (image, step, heads))
        return pl.BlockSpec((None, x.shape[1], channels), lambda heads, image, step: (image, 0, heads))

    return pl.pallas_call(
        functools.partial(kernel, grid),
        grid=(grid.heads // grid.together, len(inputs[0]), grid.steps),
        in_specs=[block(x) for x in inputs],
        out_specs=jax.tree.map(block, outputs),
        out_shape=outputs,
        name=name,
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=vector_memory()),
        interpret=interpret,
    )(*inputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attended(
    query_NQC: Float[Array, "N Q C"],
    key_NKC: Float[Array, "N K C"],
    value_NKC: Float[Array, "N K C"],
    bias_GTBL: Float[Array, "G T B L"],
    grid: Grid,
    interpret: bool,
) -> Float[Array, "N Q C"]:
    output = jax.ShapeDtypeStruct(query_NQC.shape, query_NQC.dtype)
    return _call(_forward_kernel, FORWARD, grid, (query_NQC, key_NKC, value_NKC, bias_GTBL), output, interpret)


def _forward(*inputs):
    return _attended(*inputs), inputs[:4]


def _backward(grid, interpret, inputs, gradient_NQC):
    query_NQC, *summed = inputs
    outputs = [jax.ShapeDtypeStruct(query_NQC.shape, query_NQC.dtype)]
    outputs += [jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in summed]
    gradients = _call(_backward_kernel, BACKWARD, grid, (*inputs, gradient_NQC), outputs, interpret)
    return tuple(x.astype(like.dtype) for x, like in zip(gradients, inputs, strict=True))


_attended.defvjp(_forward, _backward)


def _padded(patches_NPC: Array, grid: Grid, width: int) -> Float[Array, "N Q C"]:
    """Patches with padding on the right of rows and below."""
    images, _, channels = patches_NPC.shape
    below, right = grid.padded_height - grid.height, width - grid.width
    x = patches_NPC.reshape(images, grid.height, grid.width, channels)
    x = jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))
    return x.reshape(images, grid.padded_height * width, channels)


def _keys(x_NSC: Array, grid: Grid) -> Float[Array, "N K C"]:
    """Padded keys or values: those of patches, then the tile of the class token."""
    token = jnp.pad(x_NSC[:, :1], ((0, 0), (0, LANES - 1), (0, 0)))
    return jnp.concatenate([_padded(x_NSC[:, 1:], grid, grid.key_width), token], axis=1)


def _biases(by_x_GYXX: Float[Array, "G 2*H-1 W W"], to_class_G: Float[Array, " G"], grid: Grid) -> Array:
    """The tiles (G, T, B, L) that the kernel slices: by difference of rows, query x, key x; at last the class token."""
    heads, beyond = grid.heads, grid.padded_height - grid.height
    x = jnp.pad(by_x_GYXX, ((0, 0), (beyond, beyond), (0, grid.query_width - grid.width), (0, 0)))
    x = jnp.pad(x, ((0, 0),) * 3 + ((0, grid.key_width - grid.width),), constant_values=UNSEEN)
    count = 2 * grid.steps - 1
    # Row y of a step's queries with row z of as many of keys: every so many differences, from rows - 1 - y + z on.
    row = lambda y, z: x[:, grid.rows - 1 - y + z :: grid.rows][:, :count]
    side_by_side = [jnp.concatenate([row(y, z) for z in range(grid.rows)], axis=3) for y in range(grid.rows)]
    x = jnp.stack(side_by_side, axis=2).reshape(heads, count, grid.step_queries, grid.step_tiles, LANES)
    x = jnp.swapaxes(x, 2, 3).reshape(heads, grid.bias_tiles - 1, grid.step_queries, LANES)
    token = jnp.broadcast_to(to_class_G[:, None, None, None], (heads, 1, grid.step_queries, 1))
    token = jnp.pad(token, ((0, 0),) * 3 + ((0, LANES - 1),), constant_values=UNSEEN)
    return jnp.concatenate([x, token], axis=1)


def fits(window: tuple[int, int], heads: int, head_dim: int) -> bool:
    """Whether the kernel can attend: where some heads fill tiles, or all are less than one, and memory is enough."""
    grid = Grid(*window, heads, head_dim)
    side_by_side = (grid.together * head_dim) % LANES == 0 or (grid.together == heads and heads * head_dim < LANES)
    return side_by_side and grid.memory_bytes <= vector_memory()


def attend_once(
    query_NGD: Float[Array, "N G D"],
    key_NSGD: Float[Array, "N S G D"],
    value_NSGD: Float[Array, "N S G D"],
    bias_GS: Float[Array, "G S"],
) -> Float[Array, "N G D"]:
    """Softmax attention of one token. As heads stay side by side, nothing large is put in another order."""
    images, heads, dim = query_NGD.shape
    key, value = (x.reshape(*x.shape[:2], -1) for x in (key_NSGD, value_NSGD))
    is_own = (jnp.arange(heads * dim) // dim == jnp.arange(heads)[:, None]).astype(query_NGD.dtype)
    query = query_NGD.reshape(images, 1, -1) * is_own
    in_float32 = {"preferred_element_type": jnp.float32}
    logits_NGS = jnp.einsum("ngc,nsc->ngs", query, key, **in_float32) * dim**-0.5 + bias_GS
    weights_NGS = jax.nn.softmax(logits_NGS).astype(value.dtype)
    output_NGC = jnp.einsum("ngs,nsc->ngc", weights_NGS, value, **in_float32)
    return (output_NGC * is_own).sum(axis=1).astype(value.dtype).reshape(query_NGD.shape)


def attend(
    query_NPGD: Float[Array, "N H*W G D"],
    key_NSGD: Float[Array, "N S G D"],
    value_NSGD: Float[Array, "N S G D"],
    by_x_GYXX: Float[Array, "G 2*H-1 W W"],
    to_class_G: Float[Array, " G"],
    interpret: bool = False,
) -> Float[Array, "N H*W G D"]:
    """Softmax attention of patches to all tokens.

    Args:
      by_x_GYXX: biases between patches by (key y - query y, query x, key x).
      to_class_G: biases of all patches with the class token.
      interpret: runs the kernel's operations one by one, on any device.
    """
    images, _, heads, dim = query_NPGD.shape
    grid = Grid((by_x_GYXX.shape[1] + 1) // 2, by_x_GYXX.shape[2], heads, dim)
    query, key, value = (x.reshape(*x.shape[:2], -1) for x in (query_NPGD, key_NSGD, value_NSGD))
    query = _padded((query * dim**-0.5).astype(query.dtype), grid, grid.query_width)
    bias = _biases(by_x_GYXX.astype(query.dtype), to_class_G.astype(query.dtype), grid)
    output = _attended(query, _keys(key, grid), _keys(value, grid), bias, grid, interpret)
    output = output.reshape(images, grid.padded_height, grid.query_width, -1)
    return output[:, : grid.height, : grid.width].reshape(query_NPGD.shape)
