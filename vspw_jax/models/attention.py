"""Softmax attention of many heads: by cuDNN's fused kernels on NVIDIA GPUs, by XLA elsewhere.

Shapes: N images, Q queries, S keys, G heads, D channels a head.
"""

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jaxtyping import Array, Float

Heads = Float[Array, "N S G D"]

FUSED_TYPES = (jnp.bfloat16, jnp.float16)
"""What cuDNN's kernels multiply."""
CUDA_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
"""The packages with which JAX knows cuDNN: a GPU of another maker has none of them."""
FORWARD, BACKWARD = "dot_product_attention_fwd_wrapper", "dot_product_attention_bwd_wrapper"
"""JAX's names of cuDNN's passes."""


def is_fused(dtype: jnp.dtype) -> bool:
    """Whether attention in this type is a kernel of cuDNN on the devices in use."""
    if jax.default_backend() != "gpu" or dtype not in FUSED_TYPES:
        return False
    return any(importlib.util.find_spec(name) is not None for name in CUDA_PLUGINS)


def softmax_attention(query_NQGD: Heads, key_NSGD: Heads, value_NSGD: Heads) -> Heads:
    """softmax(q k^T / sqrt(D)) v of every head, without a bias."""
    implementation = "cudnn" if is_fused(query_NQGD.dtype) else None
    return jax.nn.dot_product_attention(query_NQGD, key_NSGD, value_NSGD, implementation=implementation)


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
    """For `jax.checkpoint`: of fused attention, its results are kept alone. What it reads is made again."""
    return primitive.name == FORWARD
