"""Video semantic segmentation on VSPW in JAX/Flax."""

from vspw_jax.console import starting

starting.begun()
