"""The mask classification loss of a recipe by itself, from a network's outputs to their gradient, for one chip."""

import unittest.mock

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, SingleDeviceSharding

from benchmarks import compile_for_tpu
from vspw_jax.console.errors import UserError
from vspw_jax.losses import segmentation
from vspw_jax.models import segmenter


def traced(options):
    """The loss's gradient, traced for a chip of --topology with --clips of --frames images.

    Raises:
      UserError: the recipe's decoder has no masks to classify.
    """
    config = compile_for_tpu.recipe(options, 1)
    if segmenter.decoder_of(config.model).SEGMENTATION_LOSS != "mask_classification":
        raise UserError(
            f"--part=loss: configs/{options.recipe}.py has no mask classification: take one with Mask2Former."
        )
    device = compile_for_tpu.devices_of(options.topology)[0]
    mesh = jax.make_mesh((1,), ("data",), devices=[device], axis_types=(AxisType.Auto,))
    placed = lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=SingleDeviceSharding(device))
    images, decoder = options.clips * options.frames, config.model.decoder
    queries = (decoder.decoder_layers + 1, images, decoder.num_queries)

    def loss(class_logits, mask_logits, labels, key_data):
        keys = jax.random.wrap_key_data(key_data)
        terms = segmentation.mask_classification_loss(class_logits, mask_logits, labels, keys, config.loss.segmentation)
        return sum(config.loss.segmentation.weights[name] * term for name, term in terms.items())

    with unittest.mock.patch.object(jax, "default_backend", lambda: "tpu"), jax.set_mesh(mesh):
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).trace(
            placed((*queries, config.model.num_classes + 1), jnp.float32),
            placed((*queries, options.crop // 4, options.crop // 4), jnp.float32),
            placed((images, options.crop, options.crop), jnp.int32),
            placed((images, 2), jnp.uint32),
        )
