"""What some tests of parity with PyTorch are run in."""

import jax
import jax.numpy as jnp
import pytest

from vspw_jax.models import segmenter


@pytest.fixture
def float64(monkeypatch):
    """Everything in float64, also the losses and softmaxes, which name float32."""
    monkeypatch.setitem(segmenter.DTYPES, "float64", jnp.float64)
    monkeypatch.setattr(jnp, "float32", jnp.float64)
    with jax.enable_x64(True):
        yield
