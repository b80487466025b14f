"""The training state and the step: pure functions of (state, batch).

The state is a plain dict: params, model_state (batch norms' running statistics), opt_state, step, bad_steps (those
in a row whose loss or gradient was no number; see non_finite.py).
Shapes: B clips, T frames, N = B*T images, H and W.
"""

import functools
import math

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P

from vspw_jax import non_finite, sharding
from vspw_jax.classes import VOID
from vspw_jax.losses import cross_frame_nce, per_pixel, pne, segmentation
from vspw_jax.models import segmenter
from vspw_jax.models.layers import DATA_AXIS
from vspw_jax.optimizer import warmup_poly


def split_model(model):
    """A model as (graphdef, params, model_state), the latter two plain nested dicts."""
    graphdef, params, model_state = nnx.split(model, nnx.Param, ...)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(model_state)


def describe(config):
    """(graphdef, params, model_state) of the model of `config`, shapes in place of arrays: allocates nothing."""
    return jax.eval_shape(lambda key: split_model(segmenter.build(config.model, key)), jax.random.key(0))


def init_state(config, optimizer, key):
    """The state before the first step."""
    _, params, model_state = split_model(segmenter.build(config.model, key))
    return {
        "params": params,
        "model_state": model_state,
        "opt_state": optimizer.init(params),
        "step": jnp.zeros((), jnp.int32),
        "bad_steps": jnp.zeros((), jnp.int32),
    }


def new_state(config, optimizer, mesh):
    """The state before the first step, its weights drawn from `config.seed`; replicated over the mesh."""
    init = jax.jit(
        functools.partial(init_state, config, optimizer),
        out_shardings=sharding.replicated(mesh),
        compiler_options=sharding.quick_compilation(),
    )
    return init(jax.random.key(config.seed))


def restore_state(config, optimizer, checkpoints, mesh, at_most=math.inf):
    """The state of the newest checkpoint, of a step `at_most` or before; replicated over the mesh."""
    like = jax.eval_shape(functools.partial(init_state, config, optimizer), jax.random.key(0))
    return checkpoints.restore(sharding.replicated_shapes(mesh, like), at_most)


def restore_weights(config, checkpoints, mesh, at_most=math.inf):
    """(graphdef, weights) of the newest checkpoint, of a step `at_most` or before: its params and model_state."""
    graphdef, params, model_state = describe(config)
    like = {"params": params, "model_state": model_state}
    return graphdef, checkpoints.restore(sharding.replicated_shapes(mesh, like), at_most)


def total(x):
    """The sum over devices."""
    return lax.psum(x, DATA_AXIS)


def mask_terms(outputs, label_BTHW, key_B, config):
    """Loss terms of a query decoder."""
    frames = label_BTHW.shape[1]
    key_N = jax.vmap(lambda key: jax.random.split(key, frames))(key_B).reshape(-1)
    logits = (
        outputs[name].reshape(outputs[name].shape[0], -1, *outputs[name].shape[3:])
        for name in ("layer_class_logits_LBTQC", "layer_mask_logits_LBTQHW")
    )
    label_NHW = label_BTHW.reshape(-1, *label_BTHW.shape[2:])
    return segmentation.mask_classification_loss(*logits, label_NHW, key_N, config, total)


def pixel_terms(outputs, label_BTHW, key_B, config):
    """Loss terms of a per-pixel decoder with an auxiliary head."""
    label_NHW = label_BTHW.reshape(-1, *label_BTHW.shape[2:])
    names = {"pixel": "logits_BTHWC", "auxiliary": "auxiliary_logits_BTHWC"}
    logits_of = {term: outputs[name].reshape(-1, *outputs[name].shape[2:]) for term, name in names.items()}
    options = (label_NHW, config.averaged_over, config.class_weight, total)
    return {term: per_pixel.cross_entropy(logits_NHWC, *options) for term, logits_NHWC in logits_of.items()}


SEGMENTATION_TERMS = {"mask2former": mask_terms, "upernet": pixel_terms}
"""The loss that each decoder is trained with, by its name."""


def ramp(config, step):
    """The share of a term's weight that counts at a step: 0 before `start_step`, then 1 within `warmup_steps`."""
    return jnp.clip((step - config.start_step + 1) / max(config.warmup_steps, 1), 0.0, 1.0)


def contrast_features(outputs, level):
    """Features BTHWC that are contrasted: the projection head's where the model has one, else an encoder map."""
    return outputs.get("projection_BTHWC", outputs["encoder"][level])


def contrast_groups(config):
    """Groups of clips within which the cross-frame loss contrasts; 0 where it is off."""
    contrast = config.loss.get("nce")
    return cross_frame_nce.num_groups(contrast, config.train.batch) if contrast and contrast.weight else 0


def nce_term(outputs, batch, key_B, config):
    """The cross-frame contrastive loss, unweighted; patches of unrelated frames are not contrasted."""
    label_BTHW = jnp.where(batch["is_clip_B"][:, None, None, None], batch["label_BTHW"], VOID)
    return cross_frame_nce.batch_loss(
        contrast_features(outputs, config.level),
        label_BTHW,
        key_B,
        config,
        device=lax.axis_index(DATA_AXIS),
        devices=lax.axis_size(DATA_AXIS),
        gather=lambda x: lax.all_gather(x, DATA_AXIS, tiled=True),
    )


def pne_term(outputs, batch, key_B, config):
    """The positive-negative equal loss, unweighted, on the predictions of the segmenter."""
    features, scores = contrast_features(outputs, config.level), segmenter.class_scores(outputs)
    scores /= scores.sum(axis=-1, keepdims=True)  # A query decoder's do not add up to 1.
    return pne.batch_loss(features, scores, batch["label_BTHW"], key_B, config, total)


CONTRASTIVE_TERMS = {"nce": nce_term, "pne": pne_term}
"""Losses on features, each on where its weight in the config is not 0."""


def clip_losses(outputs, batch, key_B, step, decoder, config):
    """Weighted loss terms of this device's clips, by name; the loss is their sum, over terms and over devices."""
    label_BTHW = batch["label_BTHW"]
    terms = SEGMENTATION_TERMS[decoder](outputs, label_BTHW, key_B, config.segmentation)
    losses = {name: config.weight * config.segmentation.weights[name] * term for name, term in terms.items()}
    for name, term in CONTRASTIVE_TERMS.items():
        if name in config and config[name].weight:
            value = term(outputs, batch, key_B, config[name])
            losses[name] = config[name].weight * ramp(config[name], step) * value
    return losses


def make_train_step(config, graphdef, optimizer, mesh, guarded=True):
    """The jitted step (state, batch) -> (state, metrics); the state is donated.

    Loss and gradient are mapped over the devices of `mesh`: each computes its clips' part, batch statistics and
    averages cross devices by psum. Randomness is a function of (seed, step, clip number in the global batch).
    Metrics are scalars: loss, its terms, gradient norm, learning rate and, unless `guarded` is off, bad
    steps in a row, which then change nothing; see non_finite.py.
    """

    def mapped_gradients(params, model_state, batch, key, step):
        def loss(params):
            model = nnx.merge(graphdef, params, model_state)
            local_batch = batch["image_BTHWC"].shape[0]
            numbers = lax.axis_index(DATA_AXIS) * local_batch + jnp.arange(local_batch)
            key_B = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
            model_keys, loss_keys = jnp.moveaxis(jax.vmap(jax.random.split)(key_B), 1, 0)
            outputs = model(batch["image_BTHWC"], train=True, key_B=model_keys)
            losses = clip_losses(outputs, batch, loss_keys, step, config.model.decoder.name, config.loss)
            new_state = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
            return sum(losses.values()), (losses, new_state)

        gradients, (losses, new_state) = jax.grad(loss, has_aux=True)(params)
        return lax.psum((gradients, losses), DATA_AXIS), new_state

    learning_rate = warmup_poly(config.optimizer, config.train.steps)
    gradients_of = jax.shard_map(
        mapped_gradients, mesh=mesh, in_specs=(P(), P(), P(DATA_AXIS), P(), P()), out_specs=P(), check_vma=False
    )

    def step(state, batch):
        key = jax.random.fold_in(jax.random.key(config.seed), state["step"])
        weights = state["params"], state["model_state"]
        (gradients, losses), model_state = gradients_of(*weights, batch, key, state["step"])
        updates, opt_state = optimizer.update(gradients, state["opt_state"], state["params"])
        params = jax.tree.map(jnp.add, state["params"], updates)
        new_state = dict(params=params, model_state=model_state, opt_state=opt_state, step=state["step"] + 1)
        return new_state, {
            "loss": sum(losses.values()),
            **losses,
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": learning_rate(state["step"]),
        }

    if guarded:
        step = non_finite.guarded(step, non_finite.allowed(config.run))
    return jax.jit(step, donate_argnums=0, compiler_options=sharding.compiler_options(mesh))
