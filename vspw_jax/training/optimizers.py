"""AdamW with layer-wise learning rate decay, warm-up and poly decay.

Source: czczup/ViT-Adapter segmentation/mmcv_custom/layer_decay_optimizer_constructor.py and
configs/ade20k/mask2former_beitv2_adapter_large_896_80k_ade20k_ss.py; mmcv LrUpdaterHook for the schedule.
Parameter paths are slash-joined names, such as "encoder/interactions/blocks/attn/qkv/kernel".
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax

NO_DECAY = r"(^|/)(bias|scale|[qv]_bias|gamma(_[12])?)$"
"""Biases, norms and layer scales: all that is one-dimensional in the released network."""

FIRST_LAYER = r"^encoder/(cls_token|patch_embed/.*)$"
BLOCKS = r"^encoder/(interactions/)?blocks/"
"""Stacked along two leading axes: run or interaction, block of it."""
QUERY_EMBEDDINGS = r"^decoder/(mask_embed/.*|cls_embed/.*|level_embed|query_embed|query_feat)$"


def map_with_path(function, tree):
    """Maps function(path, leaf) over a nested dict, the path's names joined by slashes."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: function("/".join(str(key.key) for key in keys), leaf), tree
    )


def warmup_poly(config, num_steps):
    """Learning rate by step: poly decay to `minimum`, times a linear ramp from `warmup_ratio` during warm-up."""

    def rate(step):
        poly = (config.learning_rate - config.minimum) * (1 - step / num_steps) ** config.power + config.minimum
        ramp = config.warmup_ratio + (1 - config.warmup_ratio) * step / max(config.warmup_steps, 1)
        return jnp.where(step < config.warmup_steps, poly * ramp, poly)

    return rate


def layer_scales(params, config, depth):
    """Learning rate factors: decay ** (depth + 1 - id), where patches have id 0, block i id i + 1, the rest depth + 1.

    With `embeddings_at_layer_0` the decoder's embeddings and prediction heads have id 0 too, as in the
    released code, which files by name whatever it does not know.
    """

    def scale(path, leaf):
        if re.match(BLOCKS, path):
            runs, blocks = leaf.shape[:2]
            layer = np.arange(1, runs * blocks + 1).reshape(runs, blocks, *(1,) * (leaf.ndim - 2))
        elif re.match(FIRST_LAYER, path) or (config.embeddings_at_layer_0 and re.match(QUERY_EMBEDDINGS, path)):
            layer = 0
        else:
            layer = depth + 1
        return np.float32(config.layer_decay) ** (depth + 1 - layer)

    return map_with_path(scale, params)


def build(config, params, depth, num_steps):
    """The optax transformation for the nested dict of parameters (arrays or shapes)."""
    scales = layer_scales(params, config, depth)
    decayed = map_with_path(lambda path, _: not re.search(NO_DECAY, path), params)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=1e-8),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.stateless(lambda updates, _: jax.tree.map(lambda u, s: u * s, updates, scales)),
        optax.scale_by_learning_rate(warmup_poly(config, num_steps)),
    )
