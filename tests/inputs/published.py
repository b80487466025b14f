"""Tensors of encoders of published sizes."""

import numpy as np

from vspw_jax.interop import convert, namings
from vspw_jax.models import segmenter
from vspw_jax.training import train_state


def in_size(config, size):
    """A recipe with its encoder in the published size of a name."""
    encoder = config.model.encoder
    encoder.update(segmenter.ENCODERS[encoder.name].PUBLISHED[size])
    return config


def zeros(config, naming):
    """The tensors of a recipe's encoder, of zeros, in the names of a kind of file."""
    weights = train_state.describe(config)[1:]
    tensors = convert.new_tensors(config.model, weights, namings.NAMINGS[naming])
    return {name: np.zeros(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
