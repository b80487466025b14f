"""Several devices of one CPU: one leaves cores idle between its operations, several fill them."""

import contextlib
import math
import os

import jax
from ml_collections import ConfigDict

from vspw_jax.tasks import task

FLAG = "xla_force_host_platform_device_count"
"""XLA's own option, which goes before."""


def count(config: ConfigDict) -> int:
    """How many devices the CPU is to be: `config.sharding.cpu_devices`, or as many fewer as can share a batch."""
    part = config.train.batch // config.train.accumulate
    return math.gcd(config.sharding.cpu_devices, part, task.build(config).contrast_groups())


def make(config: ConfigDict) -> None:
    """Has JAX see the CPU as several devices, if it has not looked at it yet. GPUs and TPUs stay as they are."""
    if config.sharding.cpu_devices > 1 and FLAG not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # It has looked, as in a notebook.
            jax.config.update("jax_num_cpu_devices", count(config))
