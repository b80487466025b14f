"""The training state and the step: pure functions of (state, batch).

The state is a plain dict: params, model_state (batch norms' running statistics), opt_state, step, bad_steps (those
in a row whose loss or gradient was no number; see non_finite.py).
Shapes: B clips, T frames, N = B*T images, H and W.
"""

import copy
import functools
import math

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import UserError
from vspw_jax.losses import cross_frame_nce, per_pixel, pne, segmentation
from vspw_jax.models import segmenter
from vspw_jax.models.layers import DATA_AXES
from vspw_jax.parallel import sharding, weight_shards
from vspw_jax.training import non_finite
from vspw_jax.training.optimizers import warmup_poly


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


def state_shapes(config, optimizer, mesh):
    """Shapes and types of the state, and where on the mesh it lies."""
    like = jax.eval_shape(functools.partial(init_state, config, optimizer), jax.random.key(0))
    return sharding.placed_shapes(like, sharding.state_shardings(mesh, like, config.sharding))


def new_state(config, optimizer, mesh):
    """The state before the first step, its weights drawn from `config.seed`, where on the mesh it belongs."""
    init = jax.jit(
        functools.partial(init_state, config, optimizer),
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, state_shapes(config, optimizer, mesh)),
        compiler_options=sharding.quick_compilation(),
    )
    return init(jax.random.key(config.seed))


def restore_state(config, optimizer, checkpoints, mesh, at_most=math.inf):
    """The state of the newest checkpoint, of a step `at_most` or before, where on the mesh it belongs, whatever devices
    it was saved from."""
    return checkpoints.restore(state_shapes(config, optimizer, mesh), at_most)


def restore_weights(config, checkpoints, mesh, at_most=math.inf):
    """(graphdef, weights) of the newest checkpoint, of a step `at_most` or before: its params and model_state."""
    graphdef, params, model_state = describe(config)
    like = {"params": params, "model_state": model_state}
    return graphdef, checkpoints.restore(sharding.replicated_shapes(mesh, like), at_most)


def total(x):
    """The sum over devices."""
    return lax.psum(x, DATA_AXES)


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


def of_part(loss, accumulate):
    """`config.loss` for one part of a batch that is accumulated: it has its share of the contrastive groups.

    Raises:
      UserError: the groups do not divide.
    """
    contrast = loss.get("nce")
    if accumulate == 1 or not contrast or not contrast.weight or contrast.scope != "group":
        return loss
    if loss.nce.groups % accumulate:
        raise UserError(
            f"loss.nce.groups is {loss.nce.groups}, which does not divide into train.accumulate={accumulate} parts: a "
            f"group would meet only some of its clips. Set --config.loss.nce.groups to a multiple of {accumulate}."
        )
    loss = copy.deepcopy(loss).unlock()
    loss.nce.groups //= accumulate
    return loss


def contrast_groups(config):
    """Groups of clips within which the cross-frame loss contrasts, of a step or a part of one; 0 where it is off."""
    contrast = config.loss.get("nce")
    if not contrast or not contrast.weight:
        return 0
    part = config.train.batch // config.train.accumulate
    return cross_frame_nce.num_groups(of_part(config.loss, config.train.accumulate).nce, part)


def make_mesh(config):
    """The mesh of all devices that the training of `config` runs on; UserError where they cannot share it evenly."""
    parts = dict(fsdp=config.sharding.fsdp, accumulate=config.train.accumulate)
    return sharding.make_mesh(config.train.batch, contrast_groups(config), **parts)


def nce_term(outputs, batch, key_B, config):
    """The cross-frame contrastive loss, unweighted; patches of unrelated frames are not contrasted."""
    label_BTHW = jnp.where(batch["is_clip_B"][:, None, None, None], batch["label_BTHW"], VOID)
    return cross_frame_nce.batch_loss(
        contrast_features(outputs, config.level),
        label_BTHW,
        key_B,
        config,
        device=lax.axis_index(DATA_AXES),
        devices=lax.axis_size(DATA_AXES),
        gather=lambda x: lax.all_gather(x, DATA_AXES, tiled=True),
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


def make_gradients(config, graphdef):
    """A function of one device's (weights, model_state, batch, numbers, key, step), inside a map over devices.

    Weights may be shards. It gives this device's part of (gradients, losses by name), to be added up over devices
    (those of shards are already, among the devices that share the weight), and the new model_state. `numbers` are
    those of its clips in the global batch: with key they decide all randomness.
    """
    loss_config = of_part(config.loss, config.train.accumulate)

    def loss(weights, model_state, batch, numbers, key, step):
        key_B = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
        model_keys, loss_keys = jnp.moveaxis(jax.vmap(jax.random.split)(key_B), 1, 0)
        model = nnx.merge(graphdef, weight_shards.put_together(weights), model_state)
        outputs = model(batch["image_BTHWC"], train=True, key_B=model_keys)
        losses = clip_losses(outputs, batch, loss_keys, step, config.model.decoder.name, loss_config)
        new_state = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
        return sum(losses.values()), (losses, new_state)

    return jax.grad(loss, has_aux=True)


def clip_numbers(batch, parts=1, part=0):
    """Numbers in the global batch of this device's clips, of one of the parts into which it is divided."""
    local = batch["image_BTHWC"].shape[0]
    first = part * local * lax.axis_size(DATA_AXES) + lax.axis_index(DATA_AXES) * local
    return first + jnp.arange(local)


def accumulated(gradients_of, parts):
    """The means of what `gradients_of` gives for `parts` batches, one after the other: arrays have a leading axis.

    Equal to one pass over all of them but for what a pass averages within itself: statistics of batch norms, and
    losses that are divided by a count of the labels (masks, labelled pixels) where parts differ in it.
    """

    def mean_over_parts(weights, model_state, batches, key, step):
        def add(carry, inputs):
            part, batch = inputs
            summed, model_state = carry
            gradients, (losses, model_state) = gradients_of(
                weights, model_state, batch, clip_numbers(batch, parts, part), key, step
            )
            gradients = jax.tree.map(lambda mean, gradient: mean + gradient / parts, summed, gradients)
            return (gradients, model_state), losses

        carry = jax.tree.map(jnp.zeros_like, weights), model_state
        (gradients, model_state), losses = lax.scan(add, carry, (jnp.arange(parts), batches))
        return gradients, (jax.tree.map(lambda loss: loss.mean(axis=0), losses), model_state)

    return mean_over_parts


def make_train_step(config, graphdef, optimizer, mesh, guarded=True):
    """The jitted step (state, batch) -> (state, metrics); the state is donated.

    Loss and gradient are mapped over the devices of `mesh`: each computes its clips' part, batch statistics and
    averages cross devices by psum, weights that lie in parts are gathered as they are used and their gradients
    scattered. Randomness is a function of (seed, step, clip number in the global batch).
    Metrics are scalars: loss, its terms, gradient norm, learning rate and, unless `guarded` is off, bad steps in a row,
    which then change nothing; see non_finite.py.
    """
    parts, dtype = config.train.accumulate, segmenter.DTYPES[config.model.dtype]
    gradients_of = make_gradients(config, graphdef)
    if parts == 1:
        of_batch = lambda weights, model_state, batch, *rest: gradients_of(
            weights, model_state, batch, clip_numbers(batch), *rest
        )
    else:
        of_batch = accumulated(gradients_of, parts)

    def mapped_gradients(shapes, specs, params, *rest):
        weights = sharding.as_shards(mesh, params, shapes, config.sharding, dtype)
        gradients, (losses, model_state) = of_batch(weights, *rest)
        return sharding.added_up(gradients), lax.psum(losses, DATA_AXES), model_state

    learning_rate = warmup_poly(config.optimizer, config.train.steps)

    def gradients_over_devices(params, *rest):
        shapes, specs = jax.eval_shape(lambda: params), sharding.state_specs(mesh, params, config.sharding)
        mapped = jax.shard_map(
            functools.partial(mapped_gradients, shapes, specs),
            mesh=mesh,
            in_specs=(specs, P(), sharding.clip_spec(parts), P(), P()),
            out_specs=(specs, P(), P()),
            check_vma=False,
        )
        return mapped(params, *rest)

    def bare_step(state, batch):
        key = jax.random.fold_in(jax.random.key(config.seed), state["step"])
        weights = state["params"], state["model_state"]
        gradients, losses, model_state = gradients_over_devices(*weights, batch, key, state["step"])
        updates, opt_state = optimizer.update(gradients, state["opt_state"], state["params"])
        params = jax.tree.map(jnp.add, state["params"], updates)
        new_state = dict(params=params, model_state=model_state, opt_state=opt_state, step=state["step"] + 1)
        return new_state, {
            "loss": sum(losses.values()),
            **losses,
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": learning_rate(state["step"]),
        }

    whole_step = non_finite.guarded(bare_step, non_finite.allowed(config.run)) if guarded else bare_step

    def step(state, batch):
        new_state, metrics = whole_step(state, batch)
        return lax.with_sharding_constraint(
            new_state, sharding.state_shardings(mesh, new_state, config.sharding)
        ), metrics

    return jax.jit(step, donate_argnums=0, compiler_options=sharding.compiler_options(mesh))
