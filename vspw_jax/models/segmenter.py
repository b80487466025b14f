"""The segmentation network: an encoder and a decoder named in the config.

Shapes: B clips, T frames, N = B*T images, H and W pixels or cells, Q queries, C channels or classes, L predictions.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import FrozenConfigDict

from vspw_jax.errors import UserError
from vspw_jax.models.decoders.mask2former import Mask2Former
from vspw_jax.models.encoders.vit_adapter import ViTAdapter

ENCODERS = {"vit_adapter": ViTAdapter}
DECODERS = {"mask2former": Mask2Former}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def _choose(table, name, field):
    if name not in table:
        raise UserError(f"{field} is {name!r}: expected one of {', '.join(sorted(table))}.")
    return table[name]


class Segmenter(nnx.Module):
    """Encoder and decoder over clips; frames are independent of each other here."""

    def __init__(self, config, rngs):
        self.config = FrozenConfigDict(config)
        options = dict(dtype=_choose(DTYPES, config.dtype, "model.dtype"), rngs=rngs)
        encoder = _choose(ENCODERS, config.encoder.name, "model.encoder.name")
        decoder = _choose(DECODERS, config.decoder.name, "model.decoder.name")
        self.encoder = encoder(config.encoder, config.image_size, config.remat, **options)
        self.decoder = decoder(config.encoder.dim, config.num_classes, config.decoder, config.remat, **options)

    def __call__(self, image_BTHWC, train=False, key_B=None):
        """Runs the network.

        Args:
          image_BTHWC: normalised float32 frames of the model's image_size.
          train: batch statistics from the batch (averaged over the mapped axis "data", which must be bound) and
            their running means updated in place; else the running means are used.
          key_B: a JAX key a clip for stochastic depth, or None for none.

        Returns:
          A dict: `class_logits_BTQC` (last class = no object), `mask_logits_BTQHW` at 1/4, the same after every
          decoder layer as `layer_class_logits_LBTQC` and `layer_mask_logits_LBTQHW`, and `encoder`, four maps
          BTHWC at 1/4 to 1/32. All float32.
        """
        batch, frames = image_BTHWC.shape[:2]
        keys_N = None
        if key_B is not None:
            keys_N = jax.vmap(lambda key: jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(frames)))(key_B)
            keys_N = keys_N.reshape(-1)
        maps = self.encoder(image_BTHWC.reshape(-1, *image_BTHWC.shape[2:]), train, keys_N)
        class_logits, mask_logits = (
            logits.reshape(logits.shape[0], batch, frames, *logits.shape[2:]) for logits in self.decoder(maps)
        )
        return {
            "class_logits_BTQC": class_logits[-1],
            "mask_logits_BTQHW": mask_logits[-1],
            "layer_class_logits_LBTQC": class_logits,
            "layer_mask_logits_LBTQHW": mask_logits,
            "encoder": [x.reshape(batch, frames, *x.shape[1:]).astype(jnp.float32) for x in maps],
        }


def build(config, key):
    """The network of `config.model`, its weights drawn from `key`."""
    return Segmenter(config, nnx.Rngs(params=key))


def class_scores(outputs):
    """Scores BTHWC of the real classes at 1/4: the sum over queries of class softmax times mask sigmoid."""
    probabilities = jax.nn.softmax(outputs["class_logits_BTQC"], axis=-1)[..., :-1]
    return jnp.einsum("btqc,btqhw->bthwc", probabilities, jax.nn.sigmoid(outputs["mask_logits_BTQHW"]))
