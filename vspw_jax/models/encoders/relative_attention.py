"""Self-attention with BEiT's relative position bias: plain, in blocks with linear memory, fused for GPUs, and for TPUs.

Source: microsoft/unilm beit/semantic_segmentation/backbone/beit.py.
Shapes: N images, H and W patches, S = H*W + 1 tokens (class token first), G heads, D channels a head, R table rows.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from vspw_jax.models import attention_kernel
from vspw_jax.models.attention import Heads, fused_attention, is_fused, keeps_results
from vspw_jax.models.layers import Size

Table = Float[Array, "R G"]

CLASS_TOKEN_ROWS = 3
"""Last rows of a relative position table: class->patch, patch->class, class->class."""

BLOCK_LOGITS = 2**23
"""The most attention logits of an image that are held at once: heads x queries x keys. In float32, 32 MiB."""


def num_rows(window: Size) -> int:
    """Rows of the table of a window (H, W)."""
    height, width = window
    return (2 * height - 1) * (2 * width - 1) + CLASS_TOKEN_ROWS


def toeplitz(offsets: Float[Array, "... 2*size-1"], size: int) -> Float[Array, "... size size"]:
    """From values by offset, whose last axis is query - key = 1-size..size-1, to (..., query, key).

    Padding and reshaping shift the rows, so neither it nor its gradient gathers or scatters.
    """
    reversed_rows = jnp.broadcast_to(offsets[..., None, ::-1], (*offsets.shape[:-1], size, 2 * size - 1))
    padded = jnp.pad(reversed_rows, [(0, 0)] * offsets.ndim + [(0, 1)])
    flat = padded.reshape(*offsets.shape[:-1], -1)[..., size - 1 : size - 1 + size * (2 * size - 1)]
    return flat.reshape(*offsets.shape[:-1], size, 2 * size - 1)[..., :size]


def _split_table(table_RG: Table, window: Size) -> tuple[Array, Array, Array, Array]:
    """Values by offset (G, 2H-1, 2W-1), and (G, 1, 1) of class->patch, patch->class, class->class."""
    offsets = table_RG[:-CLASS_TOKEN_ROWS].T.reshape(-1, 2 * window[0] - 1, 2 * window[1] - 1)
    return offsets, *table_RG[-CLASS_TOKEN_ROWS:, :, None, None]


def patch_bias(offsets: Float[Array, "G 2*H-1 2*W-1"], window: Size) -> Float[Array, "G H*W H*W"]:
    """Attention bias between a window's patches from values by offset, query minus key."""
    height, width = window
    by_x = toeplitz(offsets, width)  # head, dy, query x, key x
    by_xy = toeplitz(jnp.moveaxis(by_x, 1, -1), height)  # head, query x, key x, query y, key y
    return by_xy.transpose(0, 3, 1, 4, 2).reshape(-1, height * width, height * width)


def relative_position_bias(table_RG: Table, window: Size) -> Float[Array, "G S S"]:
    """Attention bias from a BEiT table of (2H-1)(2W-1) + 3 rows.

    Row (dy + H-1) * (2W-1) + dx + W-1 is for query minus key (dy, dx); the last three rows are the class token's.
    """
    patches = window[0] * window[1]
    offsets, to_patch, to_class, class_class = _split_table(table_RG, window)
    bias = patch_bias(offsets, window)
    first_column = jnp.broadcast_to(to_class, (bias.shape[0], patches, 1))
    first_row = jnp.broadcast_to(to_patch, (bias.shape[0], 1, patches))
    top = jnp.concatenate([class_class, first_row], axis=2)
    return jnp.concatenate([top, jnp.concatenate([first_column, bias], axis=2)], axis=1)


def plain_attention(query_NSGD: Heads, key_NSGD: Heads, value_NSGD: Heads, table_RG: Table, window: Size) -> Heads:
    """Softmax attention with the whole bias (G, S, S) at once."""
    bias_GSS = relative_position_bias(table_RG, window).astype(query_NSGD.dtype)
    return jax.nn.dot_product_attention(query_NSGD, key_NSGD, value_NSGD, bias=bias_GSS[None])


def blockwise_attention(
    query_NSGD: Heads, key_NSGD: Heads, value_NSGD: Heads, table_RG: Table, window: Size, rows: int
) -> Heads:
    """The same, block by block: a block is `rows` rows of query patches and cuts its bias out of the table.

    The backward pass computes a block's attention again, so each pass holds the logits of one block at a time.
    """
    height, width = window
    dtype = query_NSGD.dtype
    offsets, to_patch, to_class, class_class = _split_table(table_RG.astype(dtype), window)
    # After this flip, one slice holds a query row's biases with all keys: (head, key y - query y, query x, key x).
    by_x = toeplitz(offsets, width)[:, ::-1]

    @jax.checkpoint
    def one_block(first_row: Int[Array, ""], query_NBGD: Heads) -> Heads:
        row_biases = [
            lax.dynamic_slice_in_dim(by_x, height - 1 - first_row - row, height, axis=1).transpose(0, 2, 1, 3)
            for row in range(rows)
        ]
        bias = jnp.concatenate(row_biases, axis=1).reshape(-1, rows * width, height * width)
        bias = jnp.pad(bias, ((0, 0), (0, 0), (1, 0))).at[:, :, :1].set(to_class)
        return jax.nn.dot_product_attention(query_NBGD, key_NSGD, value_NSGD, bias=bias[None])

    num_blocks = -(-height // rows)
    patches = jnp.pad(query_NSGD[:, 1:], ((0, 0), (0, (num_blocks * rows - height) * width), (0, 0), (0, 0)))
    blocks = jnp.moveaxis(patches.reshape(patches.shape[0], num_blocks, rows * width, *patches.shape[2:]), 1, 0)
    outputs = lax.map(lambda block: one_block(*block), (jnp.arange(num_blocks) * rows, blocks))
    outputs = jnp.moveaxis(outputs, 0, 1).reshape(patches.shape)[:, : height * width]

    class_bias = jnp.broadcast_to(to_patch, (to_patch.shape[0], 1, height * width))
    class_bias = jnp.concatenate([class_class, class_bias], axis=2)
    class_output = jax.nn.dot_product_attention(query_NSGD[:, :1], key_NSGD, value_NSGD, bias=class_bias[None])
    return jnp.concatenate([class_output, outputs], axis=1)


@functools.partial(jax.checkpoint, static_argnums=4)
def attention_by_kernel(query_NSGD: Heads, key_NSGD: Heads, value_NSGD: Heads, table_RG: Table, window: Size) -> Heads:
    """The same by a kernel for TPUs. What the kernel reads is made again in the backward pass, and not kept.

    The class token is one query, for which there are products of XLA.
    """
    offsets, to_patch, to_class, class_class = _split_table(table_RG.astype(query_NSGD.dtype), window)
    by_x = toeplitz(offsets[:, ::-1], window[1])  # Head, key y - query y, query x, key x.
    output = attention_kernel.attend(query_NSGD[:, 1:], key_NSGD, value_NSGD, by_x, to_class[:, 0, 0])
    class_bias = jnp.broadcast_to(to_patch[:, 0], (to_patch.shape[0], window[0] * window[1]))
    class_bias = jnp.concatenate([class_class[:, 0], class_bias], axis=1)
    class_output = attention_kernel.attend_once(query_NSGD[:, 0], key_NSGD, value_NSGD, class_bias)
    return jnp.concatenate([class_output[:, None], output], axis=1)


def attention_by_cudnn(query_NSGD: Heads, key_NSGD: Heads, value_NSGD: Heads, table_RG: Table, window: Size) -> Heads:
    """The same by a fused kernel. The backward pass makes the bias again: kept, it would be 300 MiB a block at 896."""

    @functools.partial(jax.checkpoint, policy=keeps_results)
    def attend(query: Heads, key: Heads, value: Heads, table: Table) -> Heads:
        bias_GSS = relative_position_bias(table, window).astype(query.dtype)
        return fused_attention(query, key, value, bias_GSS)

    return attend(query_NSGD, key_NSGD, value_NSGD, table_RG)


def block_rows(window: Size, heads: int) -> int | None:
    """Rows of query patches of a block with at most BLOCK_LOGITS logits; None where one block holds all."""
    height, width = window
    most = max(1, BLOCK_LOGITS // (heads * width * (height * width + 1)))
    num_blocks = -(-height // most)
    return None if num_blocks == 1 else -(-height // num_blocks)


def attention(query_NSGD: Heads, key_NSGD: Heads, value_NSGD: Heads, table_RG: Table, window: Size) -> Heads:
    """Softmax attention with the biases of `table_RG`: by a kernel where one can, else in blocks if tokens are many.

    With 16 heads, blocks begin at 27x27 patches (crop 432). There they are also faster on CPU.
    """
    if jax.default_backend() == "tpu" and attention_kernel.fits(window, *query_NSGD.shape[2:]):
        return attention_by_kernel(query_NSGD, key_NSGD, value_NSGD, table_RG, window)
    if is_fused(query_NSGD):
        return attention_by_cudnn(query_NSGD, key_NSGD, value_NSGD, table_RG, window)
    rows = block_rows(window, query_NSGD.shape[2])
    if rows is None:
        return plain_attention(query_NSGD, key_NSGD, value_NSGD, table_RG, window)
    return blockwise_attention(query_NSGD, key_NSGD, value_NSGD, table_RG, window, rows)
