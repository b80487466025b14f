"""Converts, checks and draws data sets."""

from vspw_jax.console import starting

starting.begun()
