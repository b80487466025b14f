"""The segmentation network: an encoder and a decoder named in the config.

An encoder makes four maps of images; a decoder makes a dict of float32 arrays of them, each name ending in its axes.

Shapes: B clips, T frames, N = B*T images, H and W pixels or cells, Q queries, C channels or classes, L predictions.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import FrozenConfigDict

from vspw_jax.console.errors import UserError, choose
from vspw_jax.models import layers
from vspw_jax.models.decoders.mask2former import Mask2Former
from vspw_jax.models.decoders.upernet import UperNet
from vspw_jax.models.encoders.beit_pyramid import BeitPyramid
from vspw_jax.models.encoders.vit_adapter import ViTAdapter
from vspw_jax.models.projection_head import ProjectionHead

ENCODERS = {"beit": BeitPyramid, "vit_adapter": ViTAdapter}
DECODERS = {"mask2former": Mask2Former, "upernet": UperNet}
PROJECTED = {"encoder": lambda config: config.encoder.dim, "decoder": lambda config: config.decoder.dim}
"""Width of what the projection head reads: an encoder map, or the features that the decoder classifies."""
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def has_projection(config):
    """Whether the network of `config.model` has a projection head for contrastive losses."""
    return bool("projection" in config and config.projection.dim)


def check_sizes(config):
    """Raises UserError where the image size is no pair, the projection reads nothing that there is, or heads or groups
    of `config.model` do not divide a width."""
    if len(config.image_size) != 2:
        raise UserError(
            f"model.image_size is {tuple(config.image_size)}: expected height and width, given once, as in "
            "--config.model.image_size='(480, 480)'."
        )
    if has_projection(config):
        choose(PROJECTED, config.projection.input, "model.projection.input")
        if config.projection.level not in range(4):
            raise UserError(f"model.projection.level is {config.projection.level}: expected 0, 1, 2 or 3.")
    encoder, decoder = config.encoder, config.decoder
    values = int(encoder.dim * encoder.get("adapter_value_ratio", 1))
    divisions = (
        ("model.encoder.heads", encoder.get("heads", 1), encoder.dim),
        ("model.encoder.adapter_heads", encoder.get("adapter_heads", 1), values),
        ("model.decoder.heads", decoder.get("heads", 1), decoder.get("dim", 0)),
        ("model.decoder.norm_groups", decoder.get("norm_groups", 1), decoder.get("dim", 0)),
    )
    for field, parts, width in divisions:
        if parts < 1 or width % parts:
            raise UserError(
                f"{field} is {parts}, which does not divide the {width} channels there. "
                f"Set --config.{field}={math.gcd(width, max(parts, 1))}, or another model.{field.split('.')[1]}.dim."
            )


class Segmenter(nnx.Module):
    """Encoder and decoder over clips; frames are independent of each other here."""

    def __init__(self, config, rngs):
        check_sizes(config)
        self.config = FrozenConfigDict(config)
        options = dict(dtype=choose(DTYPES, config.dtype, "model.dtype"), rngs=rngs)
        encoder = choose(ENCODERS, config.encoder.name, "model.encoder.name")
        decoder = choose(DECODERS, config.decoder.name, "model.decoder.name")
        self.encoder = encoder(config.encoder, config.image_size, config.remat, **options)
        self.decoder = decoder(config.encoder.dim, config.num_classes, config.decoder, config.remat, **options)
        if has_projection(config):
            self.projection = ProjectionHead(PROJECTED[config.projection.input](config), config.projection, **options)

    def __call__(self, image_BTHWC, train=False, key_B=None):
        """Runs the network.

        Args:
          image_BTHWC: normalised float32 frames of the model's image_size.
          train: batch statistics from the batch (averaged over the mapped `layers.DATA_AXES`, which must be bound) and
            their running means updated in place; else the running means are used.
          key_B: a JAX key a clip for stochastic depth and drop-out, or None for none.

        Returns:
          A dict, all float32: `encoder`, four maps BTHWC at 1/4 to 1/32, and what the decoder gives. Every decoder:
          `features_BTHWC` at 1/4, of which its masks or logits are made. Mask2Former:
          `class_logits_BTQC` (last class = no object), `mask_logits_BTQHW` at 1/4, and the same after every decoder
          layer as `layer_class_logits_LBTQC` and `layer_mask_logits_LBTQHW`. UperNet: `logits_BTHWC` at 1/4 and
          `auxiliary_logits_BTHWC`. With a projection head, in training: `projection_BTHWC`.
        """
        clips = image_BTHWC.shape[:2]
        keys_N = None
        if key_B is not None:
            keys_N = jax.vmap(lambda key: jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(clips[1])))(key_B)
            keys_N = keys_N.reshape(-1)
        images = image_BTHWC.reshape(-1, *image_BTHWC.shape[2:])
        maps = self.encoder(images, train, layers.fold_keys(keys_N, 0))
        decoded = self.decoder(maps, train, layers.fold_keys(keys_N, 1))
        if train and has_projection(self.config):
            decoded["projection_NHWC"] = self.projection(self._projected(maps, decoded), train).astype(jnp.float32)
        outputs = dict(_by_clip(name, x, clips) for name, x in decoded.items())
        outputs["encoder"] = [x.reshape(*clips, *x.shape[1:]).astype(jnp.float32) for x in maps]
        return outputs

    def _projected(self, maps, decoded):
        """What the projection head reads."""
        projection = self.config.projection
        return decoded["features_NHWC"] if projection.input == "decoder" else maps[projection.level]


def _by_clip(name, x, clips):
    """Splits the axis N of a decoder's output, as its name tells it, into B and T: `logits_NHWC` to `logits_BTHWC`."""
    stem, axes = name.rsplit("_", 1)
    axis = axes.index("N")
    return f"{stem}_{axes.replace('N', 'BT')}", x.reshape(*x.shape[:axis], *clips, *x.shape[axis + 1 :])


def build(config, key):
    """The network of `config.model`, its weights drawn from `key`."""
    return Segmenter(config, nnx.Rngs(params=key))


def class_scores(outputs):
    """Scores BTHWC of the real classes at 1/4, from a network's outputs.

    The softmax of per-pixel logits, or of a query decoder the sum over queries of class softmax times mask sigmoid.
    """
    if "logits_BTHWC" in outputs:
        return jax.nn.softmax(outputs["logits_BTHWC"], axis=-1)
    probabilities = jax.nn.softmax(outputs["class_logits_BTQC"], axis=-1)[..., :-1]
    return jnp.einsum("btqc,btqhw->bthwc", probabilities, jax.nn.sigmoid(outputs["mask_logits_BTQHW"]))
