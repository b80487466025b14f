"""NVIDIA GPUs that steps are compiled for or timed on."""

from typing import NamedTuple


class Card(NamedTuple):
    """A GPU. Source: NVIDIA's data sheets; the CUDA programming guide's table of compute capabilities."""

    name: str
    capability: float
    multiprocessors: int
    float32_units: int
    """Of a multiprocessor."""
    shared_memory: int
    """Bytes of a multiprocessor. A block may ask for all but 1 KiB."""
    gigahertz: float
    bandwidth: float
    """Bytes a second of memory."""
    cache: int
    """Bytes."""
    memory: int
    """Bytes, as the driver shows them."""
    operations: float
    """A second, of dense products in bfloat16, as the maker states them."""


CARDS = {
    "a100": Card("NVIDIA A100-SXM4-80GB", 8.0, 108, 64, 164 << 10, 1.41, 2.039e12, 40 << 20, 79 << 30, 312e12),
    "a100-40": Card("NVIDIA A100-SXM4-40GB", 8.0, 108, 64, 164 << 10, 1.41, 1.555e12, 40 << 20, 39 << 30, 312e12),
    "h100": Card("NVIDIA H100 80GB HBM3", 9.0, 132, 128, 228 << 10, 1.98, 3.352e12, 50 << 20, 79 << 30, 989e12),
    "h200": Card("NVIDIA H200", 9.0, 132, 128, 228 << 10, 1.98, 4.8e12, 60 << 20, 139 << 30, 989e12),
}
CUDNN = 91500
"""The version of cuDNN that is compiled for, 9.15, as cuDNN writes it."""
TARGET = """
gpu_device_info {{
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  shared_memory_per_block_optin: {per_block}
  shared_memory_per_core: {card.shared_memory}
  core_count: {card.multiprocessors}  fpus_per_core: {card.float32_units}  clock_rate_ghz: {card.gigahertz}
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  memory_bandwidth: {card.bandwidth:.0f}  l2_cache_size: {card.cache}  device_memory_size: {card.memory}
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {extension} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 15 }}
runtime_version {{ major: 13 }}
device_description_str: "{card.name}"
"""
"""XLA's description of a GPU (xla/stream_executor/device_description.proto)."""


def target(card):
    """XLA's description of a card, as text."""
    major, minor = divmod(round(10 * card.capability), 10)
    extension = "ACCELERATED_FEATURES" if major == 9 else "NONE"
    return TARGET.format(card=card, per_block=card.shared_memory - 1024, major=major, minor=minor, extension=extension)
