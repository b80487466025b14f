"""The training step: a pure function of (state, batch, seed), compiled around a loss that is mapped over devices.

The parts of the state are explained in `train_state.py`. Shapes: B clips, T frames, H and W pixels.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike
from ml_collections import ConfigDict

from vspw_jax.models import memory, segmenter
from vspw_jax.parallel import placement, weight_shards
from vspw_jax.parallel.mesh import DATA_AXES, compiler_options
from vspw_jax.tasks import task
from vspw_jax.training import non_finite, optimizers, train_state, weight_average


def _kept(models: dict[str, segmenter.Segmenter]) -> tuple[dict, dict]:
    """(what is not trained, what memories have seen) of models, by their names, as nested dicts."""
    kept, seen = {}, {}
    for name, model in models.items():
        _, seen[name], kept[name] = map(nnx.to_pure_dict, nnx.state(model, nnx.Param, memory.Seen, ...))
    return kept, seen


def settled(graphdef: nnx.GraphDef, weights: tuple, kept: dict, seen: dict) -> dict:
    """What is kept after a step, given what memories have seen in its passes, stacked.

    The weights, of the models in the order of `kept`, may be shards: nothing reads them.
    """
    models = {name: nnx.merge(graphdef, *pair) for name, *pair in zip(kept, weights, kept.values(), strict=False)}
    for name, model in models.items():
        memory.settle(model, seen[name])
    return _kept(models)[0]


def make_gradients(config: ConfigDict, graphdef: nnx.GraphDef) -> Callable:
    """A function of one device's (weights, kept, batch, numbers, key, step), inside a map over devices.

    `weights` is (the model's, the teacher's or None), which may be shards; `kept` has what is not trained of each, as
    model_state. It gives this device's part of (gradients, losses by name), to be added up over devices (those of
    shards are already, among the devices that share the weight), what is then kept, and what memories have seen.
    `numbers` are those of its clips in the global batch: with key they decide all randomness.
    """
    the_task, learning_rate = task.build(config), optimizers.learning_rate(config)

    def merged(weights, model_state):
        return nnx.merge(graphdef, weight_shards.put_together(weights), model_state)

    def loss(weights, teacher_weights, kept, batch, numbers, key, step):
        key_B = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
        models = {"model": merged(weights, kept["model"])}
        if teacher_weights is not None:
            models["teacher"] = merged(lax.stop_gradient(teacher_weights), kept["teacher"])
        rate = learning_rate(step) / config.optimizer.learning_rate
        losses = the_task.losses(models["model"], models.get("teacher"), batch, key_B, step, rate)
        kept, seen = _kept(models)
        return task.loss(config, losses), (losses, kept, seen)

    gradient = jax.grad(loss, has_aux=True)
    return lambda weights, *rest: gradient(*weights, *rest)


def clip_numbers(batch: dict[str, jax.Array], parts: int = 1, part: int | jax.Array = 0) -> jax.Array:
    """Numbers in the global batch of this device's clips, of one of the parts into which it is divided."""
    local = batch["image_BTHWC"].shape[0]
    first = part * local * lax.axis_size(DATA_AXES) + lax.axis_index(DATA_AXES) * local
    return first + jnp.arange(local)


def accumulated(gradients_of: Callable, parts: int) -> Callable:
    """The means of what `gradients_of` gives for `parts` batches, one after the other: arrays have a leading axis.

    Equal to one pass over all of them but for what a pass averages within itself: statistics of batch norms, and losses
    that are divided by a count of the labels (masks, labelled pixels) where parts differ in it. Memories see each part
    and learn from all of them afterwards; what they have seen comes stacked.
    """

    def mean_over_parts(weights, kept, batches, key, step):
        def add(carry, inputs):
            part, batch = inputs
            summed, kept = carry
            numbers = clip_numbers(batch, parts, part)
            gradients, (losses, kept, seen) = gradients_of(weights, kept, batch, numbers, key, step)
            gradients = jax.tree.map(lambda mean, gradient: mean + gradient / parts, summed, gradients)
            return (gradients, kept), (losses, seen)

        carry = jax.tree.map(jnp.zeros_like, weights[0]), kept
        (gradients, kept), (losses, seen) = lax.scan(add, carry, (jnp.arange(parts), batches))
        return gradients, (jax.tree.map(lambda loss: loss.mean(axis=0), losses), kept, seen)

    return mean_over_parts


def make_mapped_gradients(config: ConfigDict, graphdef: nnx.GraphDef, mesh: Mesh) -> Callable:
    """A function of (weights, kept, batch, key, step), all global arrays: (gradients, losses by name, what is kept).

    Loss and gradient are mapped over the devices of `mesh`: each computes its clips' part, batch statistics and
    averages cross devices by psum, weights that lie in parts are gathered as they are used and their gradients
    scattered. See `make_gradients`.
    """
    parts, dtype = config.train.accumulate, segmenter.DTYPES[config.model.dtype]
    layout = train_state.layout(config, mesh)
    gradients_of = make_gradients(config, graphdef)

    def of_whole_batch(weights, kept, batch, *rest):
        gradients, (losses, kept, seen) = gradients_of(weights, kept, batch, clip_numbers(batch), *rest)
        return gradients, (losses, kept, jax.tree.map(lambda x: x[None], seen))

    of_batch = of_whole_batch if parts == 1 else accumulated(gradients_of, parts)

    def of_device(shapes, weights, *rest):
        shards = layout.as_shards(weights, shapes, dtype)
        gradients, (losses, kept, seen) = of_batch(shards, *rest)
        kept = settled(graphdef, shards, kept, seen)
        return placement.added_up(gradients), lax.psum(losses, DATA_AXES), kept

    def of_all(weights, *rest):
        shapes, specs = jax.eval_shape(lambda: weights), layout.specs(weights)
        mapped = jax.shard_map(
            functools.partial(of_device, shapes),
            mesh=mesh,
            in_specs=(specs, P(), placement.clip_spec(parts), P(), P()),
            out_specs=(specs[0], P(), P()),
            check_vma=False,
        )
        return mapped(weights, *rest)

    return of_all


def seed_of(config: ConfigDict) -> np.uint32:
    """What a step takes of the recipe beside state and batch: runs that differ in it share what was compiled."""
    return np.uint32(config.seed)


def inputs_of(config: ConfigDict, state: train_state.State, batch: dict[str, jax.Array], seed: ArrayLike) -> tuple:
    """What the function of `make_mapped_gradients` takes, from what a step takes."""
    key = jax.random.fold_in(jax.random.key(seed), state["step"])
    weights, kept = (state["params"], None), {"model": state["model_state"]}
    if task.needs_teacher(config):
        weights = (state["params"], state["ema"]["params"])
        kept["teacher"] = state["ema"]["model_state"]
    return weights, kept, batch, key, state["step"]


def make_train_step(
    config: ConfigDict,
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    guarded: bool = True,
) -> Callable:
    """The jitted step (state, batch, seed) -> (state, metrics); the state is donated; `seed_of` has the seed.

    Randomness is a function of (seed, step, clip number in the global batch).
    Metrics are scalars: loss, its terms, gradient norm, learning rate and, unless `guarded` is off, bad steps in a row,
    which then change nothing; see `non_finite.py`.
    """
    gradients_of = make_mapped_gradients(config, graphdef, mesh)
    learning_rate = optimizers.learning_rate(config)

    def bare_step(state, batch, seed):
        gradients, losses, kept = gradients_of(*inputs_of(config, state, batch, seed))
        updates, opt_state = optimizer.update(gradients, state["opt_state"], state["params"])
        params = jax.tree.map(jnp.add, state["params"], updates)
        new_state = dict(params=params, model_state=kept["model"], opt_state=opt_state, step=state["step"] + 1)
        if "ema" in state:
            memories = memory.paths(nnx.merge(graphdef, params, kept["model"]))
            new_state["ema"] = weight_average.updated(
                config.ema, state["ema"], params, kept["model"], kept.get("teacher"), state["step"], memories
            )
        return new_state, {
            "loss": task.loss(config, losses),
            **losses,
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": learning_rate(state["step"]),
        }

    whole_step = non_finite.guarded(bare_step, non_finite.allowed(config.run)) if guarded else bare_step
    layout = train_state.layout(config, mesh)

    def step(state, batch, seed):
        new_state, metrics = whole_step(state, batch, seed)
        return lax.with_sharding_constraint(new_state, layout.shardings(new_state)), metrics

    return jax.jit(step, donate_argnums=0, compiler_options=compiler_options(mesh))
