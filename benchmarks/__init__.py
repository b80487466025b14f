"""Side-by-side measurements; each prints a ratio against a peer in the same run."""

from vspw_jax.console import starting

starting.begun()
