"""Softmax attention of many heads: by cuDNN's fused kernels on NVIDIA GPUs, by XLA elsewhere.

Shapes: N images, Q queries, S keys, G heads, D channels a head.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jaxtyping import Array, Float

Heads = Float[Array, "N S G D"]

FORWARD, BACKWARD = "dot_product_attention_fwd_wrapper", "dot_product_attention_bwd_wrapper"
"""JAX's names of cuDNN's passes."""


def compute_capability() -> float:
    """Of the NVIDIA GPUs in use, such as 9.0 for an H100; 0 where there are none."""
    device = jax.local_devices()[0]
    is_nvidia = device.platform == "gpu" and "cuda" in device.client.platform_version
    return float(device.compute_capability) if is_nvidia else 0.0


def is_fused(query_NQGD: Heads) -> bool:
    """Whether cuDNN has kernels for attention of such queries on the devices in use: bfloat16, from Ampere on."""
    fits = query_NQGD.shape[-1] % 8 == 0 and query_NQGD.shape[-1] <= 128
    return fits and query_NQGD.dtype == jnp.bfloat16 and compute_capability() >= 8


def softmax_attention(
    query_NQGD: Float[Array, "N Q G D"], key_NSGD: Heads, value_NSGD: Heads
) -> Float[Array, "N Q G D"]:
    """softmax(q k^T / sqrt(D)) v of every head, without a bias."""
    return jax.nn.dot_product_attention(
        query_NQGD, key_NSGD, value_NSGD, implementation="cudnn" if is_fused(query_NQGD) else None
    )


def fused_attention(query_NSGD: Heads, key_NSGD: Heads, value_NSGD: Heads, bias_GSS: Float[Array, "G S S"]) -> Heads:
    """Softmax attention of tokens to themselves with a bias, by cuDNN, which writes no logits to memory.

    Its gradient of a bias asks for an even number of tokens: an odd number gets one more, which no other sees.
    """
    tokens = query_NSGD.shape[1]
    added = (0, tokens % 2)
    query, key, value = (jnp.pad(x, ((0, 0), added, (0, 0), (0, 0))) for x in (query_NSGD, key_NSGD, value_NSGD))
    bias = jnp.pad(bias_GSS, ((0, 0), added, (0, 0)))
    unseen = float(jnp.finfo(bias.dtype).min) / 2
    bias = jnp.pad(bias, ((0, 0), (0, 0), added), constant_values=unseen)
    return jax.nn.dot_product_attention(query, key, value, bias=bias[None], implementation="cudnn")[:, :tokens]


def keeps_results(primitive: Primitive, *_: Any, **__: Any) -> bool:
    """For `jax.checkpoint`: keeps the results of fused attention alone. What it reads is made again."""
    return primitive.name == FORWARD
