"""AdamW and SGD, with layer-wise learning rate decay.

Sources: czczup/ViT-Adapter segmentation/mmcv_custom/layer_decay_optimizer_constructor.py and
configs/ade20k/mask2former_beitv2_adapter_large_896_80k_ade20k_ss.py for AdamW; torch.optim.SGD, which mmsegmentation's
configs of convolutional networks use, for SGD. Which layer a parameter is in, the encoder tells.
Parameter paths are slash-joined names, such as "encoder/interactions/blocks/attn/qkv/kernel".
"""

import re

import jax
import numpy as np
import optax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, check_fields, choose
from vspw_jax.models import segmenter
from vspw_jax.models.encoders.encoder import Encoder
from vspw_jax.parallel.placement import map_with_path
from vspw_jax.training import schedules

BIASES_AND_NORMS = r"(^|/)(bias|scale)$"


def _is_kernel(path: str, encoder: type[Encoder]) -> bool:
    part, _, inner = path.partition("/")
    return not (re.search(BIASES_AND_NORMS, path) or (part == "encoder" and re.search(encoder.NO_DECAY, inner)))


DECAYED = {"kernels": _is_kernel, "all": lambda path, encoder: True}
"""What weight decay pulls to 0, by `optimizer.decayed`: all but biases, norms and what the encoder names, or all."""


def adamw(config: ConfigDict, decayed: PyTree[bool]) -> list[optax.GradientTransformation]:
    """Adam with decoupled weight decay, before the learning rate: arXiv 1711.05101."""
    return [
        optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=1e-8),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
    ]


def sgd(config: ConfigDict, decayed: PyTree[bool]) -> list[optax.GradientTransformation]:
    """SGD with momentum, before the learning rate: weight decay enters the momentum, as in torch.optim.SGD."""
    return [
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.trace(config.momentum, config.nesterov),
    ]


OPTIMIZERS = {"adamw": (adamw, ("beta1", "beta2")), "sgd": (sgd, ("momentum", "nesterov"))}
"""By `config.optimizer.name`: what it does with the gradients, and the fields that it alone reads."""
FIELDS = ("learning_rate", "weight_decay", "decayed", "layer_decay", "clip_norm")
"""That each of them reads."""


def layer_scales(params: PyTree, config: ConfigDict) -> PyTree[np.ndarray]:
    """Learning rate factors: decay ** (L + 1 - id) for L layers, where what is in no layer has id L + 1.

    The decoder's are `decoder_rate` times that. With `embeddings_at_layer_0` the decoder's embeddings and prediction
    heads have id 0 too, as in the released code, which files by name whatever it does not know.

    Args:
      params: arrays or shapes.
      config: whole.
    """
    encoder, decoder = segmenter.encoder_of(config.model), segmenter.decoder_of(config.model)
    outside = encoder.num_layers(config.model.encoder) + 1
    at_layer_0 = decoder.EMBEDDINGS if config.optimizer.get("embeddings_at_layer_0") else ()

    def scale(path, leaf):
        part, _, inner = path.partition("/")
        layer, factor = None, config.optimizer.get("decoder_rate", 1.0) if part == "decoder" else 1.0
        if part == "encoder":
            layer = encoder.layer_id(config.model.encoder, inner, leaf.shape)
        elif part == "decoder" and inner.split("/")[0] in at_layer_0:
            layer = 0
        decay = np.float32(config.optimizer.layer_decay) ** (outside - (outside if layer is None else layer))
        return np.float32(factor) * decay

    return map_with_path(scale, params)


def learning_rate(config: ConfigDict) -> schedules.Schedule:
    """The learning rate of a run by step; `config` is whole."""
    return schedules.build(config.schedule, config.optimizer.learning_rate, config.train.steps)


def check(config: ConfigDict) -> None:
    """Raises UserError where a whole config names an optimizer, a schedule or a `decayed` that there is not, or where
    fields do not belong to the one it names, or the learning rate would end higher than it begins."""
    options = config.optimizer
    _, own = choose(OPTIMIZERS, options.name, "optimizer.name")
    embeddings = ("embeddings_at_layer_0",) if segmenter.decoder_of(config.model).EMBEDDINGS else ()
    optional = tuple(name for name in ("decoder_rate", *embeddings) if name in options)
    check_fields("optimizer", options, (*FIELDS, *own, *optional), "configs/parts/training.py")
    choose(DECAYED, options.decayed, "optimizer.decayed")
    if options.layer_decay != 1 and not segmenter.encoder_of(config.model).num_layers(config.model.encoder):
        raise UserError(
            f"optimizer.layer_decay is {options.layer_decay}, but the layers of the encoder "
            f"{config.model.encoder.name} have no rates of their own. Set --config.optimizer.layer_decay=1."
        )
    schedules.check(config.schedule)
    if config.schedule.minimum > options.learning_rate:
        raise UserError(
            f"schedule.minimum is {config.schedule.minimum:g}, the learning rate at the end, and "
            f"optimizer.learning_rate is {options.learning_rate:g}: the rate would rise. Set "
            "--config.schedule.minimum=0, or another rate that is not above optimizer.learning_rate."
        )


def build(config: ConfigDict, params: PyTree) -> optax.GradientTransformation:
    """The optimizer of a run.

    Args:
      config: whole, as `check` lets it pass.
      params: arrays or shapes.
    """
    options = config.optimizer
    is_decayed, (moments, _) = DECAYED[options.decayed], OPTIMIZERS[options.name]
    scales = layer_scales(params, config)
    encoder = segmenter.encoder_of(config.model)
    return optax.chain(
        optax.clip_by_global_norm(options.clip_norm) if options.clip_norm else optax.identity(),
        *moments(options, map_with_path(lambda path, _: is_decayed(path, encoder), params)),
        optax.stateless(lambda updates, _: jax.tree.map(lambda u, s: u * s, updates, scales)),
        optax.scale_by_learning_rate(learning_rate(config)),
    )
