"""What tests of parity with PyTorch share."""

import jax
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from vspw_jax.models import segmenter
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.tasks import supervised


def relative_error(ours, theirs):
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def channels_last(tensor):
    return tensor.numpy().transpose(0, 2, 3, 1)


def fill(arrays, rows, tensors):
    """Writes tensors into our arrays, a dict by path, as the rows say."""
    for row in rows:
        place = row.view(arrays[row.ours])
        assert place.shape == tensors[row.theirs].shape, row
        place[...] = tensors[row.theirs]


def training_gradients(config, state, batch):
    """Loss and gradients by parameter path, batch norms in training, as a training step takes them."""
    graphdef, params, model_state = state

    def loss(params):
        model = nnx.merge(graphdef, params, model_state)
        outputs = model(batch["image_BTHWC"], train=True)
        decoder_loss = segmenter.decoder_of(config.model).SEGMENTATION_LOSS
        terms = supervised.clip_losses(outputs, batch, None, 0, decoder_loss, config.loss)
        return sum(terms.values())

    mesh = make_mesh(devices=jax.devices()[:1])
    mapped = jax.shard_map(
        lambda params: jax.value_and_grad(loss)(params), mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False
    )
    return jax.jit(mapped)(params)
