"""The training run, to be read from top to bottom."""

import contextlib
import math

import jax
import jax.numpy as jnp

from vspw_jax import checkpoint, optimizer, processes, sharding, train_step
from vspw_jax.data import mixture, pipeline, records
from vspw_jax.errors import UserError
from vspw_jax.evaluate import comparisons
from vspw_jax.inference.predictor import Predictor
from vspw_jax.interop import convert
from vspw_jax.observe import Observer


def train(config, workdir):
    """Trains `config` in `workdir`, from its newest checkpoint or from the start.

    Returns:
      The final state; see `train_step`.

    Raises:
      UserError: data or `config.init_from` missing or unfit, the workdir another run's, devices that cannot share
        the batch, no room on the disk, a loss that is no longer finite.
    """
    # 1. The data, the devices and the workdir must fit the config before anything is compiled.
    train_step.check_losses(config)
    members = mixture.members(config.data)
    if "capacity" in config.loss.segmentation:
        mixture.check_capacity(members, config.loss.segmentation.capacity)
        check_queries(config)
    mesh = train_step.make_mesh(config)

    # 2. The model as shapes, its optimizer, and the state: new or restored.
    graphdef, params, model_state = train_step.describe(config)
    transformation = optimizer.build(config.optimizer, params, config.model.encoder.depth, config.train.steps)
    with processes.first_alone("workdir"):
        checkpoint.claim_workdir(workdir, config, mixture.identity(members))
    if len(members) > 1:
        print(mixture.report(members, config.data.frames))
    checkpoints = checkpoint.Checkpoints(workdir, config.run.keep)
    initial = None
    if config.init_from and checkpoints.latest_step() is None:
        initial = convert.plan(config.model, [params, model_state], config.init_from)
        print(initial.report())
    if checkpoints.latest_step() is None:
        state = train_step.new_state(config, transformation, mesh)
        if initial:
            convert.fill(initial, [state["params"], state["model_state"]])
    else:
        state = train_step.restore_state(config, transformation, checkpoints, mesh)
    first_step = int(state["step"])
    checkpoints.check_room(state, saves=math.ceil((config.train.steps - first_step) / config.run.save_every))

    # 3. The step, the stream of batches from here on, and what shows the run.
    step_function = train_step.make_train_step(config, graphdef, transformation, mesh)
    batches = pipeline.training_batches(
        config.data,
        config.train.batch,
        config.model.image_size,
        config.seed,
        first_step,
        jax.process_index(),
        jax.process_count(),
        config.train.accumulate,
    )
    observe = processes.NotSeen if jax.process_index() else Observer
    observer = observe(workdir, first_step, config.train.steps, config.train.batch * config.data.frames)
    predictor = Predictor(config, graphdef, mesh)
    pictured = records.Frames(config.data.records, config.data.eval_split)

    # 4. The loop; only its logging waits for the devices. However it ends, a save that has begun is finished, and so
    # are the processes that read.
    with contextlib.closing(checkpoints), contextlib.closing(observer), contextlib.closing(batches):
        for step in range(first_step + 1, config.train.steps + 1):
            state, metrics = step_function(state, sharding.to_global(mesh, next(batches), config.train.accumulate))
            is_last = step == config.train.steps
            is_saved = step % config.run.save_every == 0 or is_last
            if step % config.run.log_every == 0 or is_saved:
                check_finite(metrics, step)
                observer.scalars(step, metrics)
            if is_saved:
                checkpoints.save(step, state)
            if step % config.run.picture_every == 0:
                predictor.weights = sharding.gathered(mesh, {name: state[name] for name in ("params", "model_state")})
                for number, picture in enumerate(comparisons(predictor, pictured)):
                    observer.picture(step, f"{config.data.eval_split}/{number}", picture)
    return state


def check_queries(config):
    """Raises UserError where a frame may hold more classes than there are queries to give them to."""
    capacity = config.loss.segmentation.get("capacity", 0)
    queries = config.model.decoder.get("num_queries", capacity)
    if capacity > queries:
        raise UserError(
            f"loss.segmentation.capacity is {capacity}, model.decoder.num_queries {queries}: every class of a frame "
            f"needs a query of its own. Set --config.model.decoder.num_queries={capacity} or more, or lower the "
            "capacity."
        )


def check_finite(metrics, step):
    """Raises UserError where the loss or the gradient is no number any more."""
    bad = sorted(name for name, value in metrics.items() if not jnp.isfinite(value))
    if bad:
        raise UserError(
            f"At step {step} {', '.join(bad)} became NaN or infinite. The checkpoints before it are untouched. "
            "Lower --config.optimizer.learning_rate, or set --config.optimizer.clip_norm=1."
        )
