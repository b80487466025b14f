"""The training run, to be read from top to bottom."""

import contextlib
import math

import jax
import jax.numpy as jnp
import numpy as np

from vspw_jax.checkpoints import checkpoint
from vspw_jax.console.errors import UserError, warn
from vspw_jax.data import mixture, pipeline, records
from vspw_jax.evaluation.evaluate import comparisons
from vspw_jax.inference.predictor import Predictor
from vspw_jax.losses import checks
from vspw_jax.observe.goodput import Goodput
from vspw_jax.observe.observer import Observer
from vspw_jax.observe.profiling import Trace
from vspw_jax.observe.run_log import LOG, run_log
from vspw_jax.parallel import processes, sharding
from vspw_jax.training import non_finite, optimizers, replay, train_step
from vspw_jax.training.first_state import first_state
from vspw_jax.training.preemption import Stopped, StopRequest


def train(config, workdir, stop=None):
    """Trains `config` in `workdir`, from its newest checkpoint or from the start.

    Args:
      stop: a `StopRequest`; default one that never comes.

    Returns:
      The final state; see `train_step`.

    Raises:
      UserError: data or `config.init_from` missing or unfit, the workdir another run's, devices that cannot share
        the batch, no room on the disk, a loss that is no longer finite.
      Stopped: a stop was requested; the state that was reached is saved.
    """
    goodput, stop = Goodput(), stop or StopRequest()

    # 1. The data, the devices and the workdir must fit the config before anything is compiled.
    checks.check_losses(config)
    members = mixture.members(config.data)
    mixture.check_classes(members, config.model.num_classes)
    if "capacity" in config.loss.segmentation:
        mixture.check_capacity(members, config.loss.segmentation.capacity)
        check_queries(config)
    mesh = train_step.make_mesh(config)
    most_bad = non_finite.allowed(config.run)
    trace = Trace(config.run.profile_steps, workdir / "tensorboard")

    # 2. The model as shapes, its optimizer, and the state: new or restored.
    graphdef, params, _ = train_step.describe(config)
    transformation = optimizers.build(config.optimizer, params, config.model.encoder.depth, config.train.steps)
    with processes.first_alone("workdir"):
        checkpoint.claim_workdir(workdir, config, mixture.identity(members))
    if len(members) > 1:
        print(mixture.report(members, config.data.frames))
    checkpoints = checkpoint.Checkpoints(
        workdir, config.run.keep, trains=True, in_background=config.run.save_in_background
    )
    checkpoints.set_aside_damaged()
    with run_log(workdir), contextlib.closing(checkpoints):
        state = first_state(config, transformation, checkpoints, mesh)
        first_step, last_step = int(state["step"]), config.train.steps
        checkpoints.check_room(state, saves=math.ceil((last_step - first_step) / config.run.save_every))

        # 3. The step, the stream of batches from here on, and what shows the run.
        make_step = train_step.make_train_step(config, graphdef, transformation, mesh)
        batches = pipeline.batches_of_run(config, first_step)
        images_per_step = config.train.batch * config.data.frames
        observer = Observer(workdir, first_step, last_step, images_per_step, goodput, config.run.wandb)
        predictor = Predictor(config, graphdef, sharding.local_mesh(mesh))
        pictured = records.Frames(config.data.records, config.data.eval_split)
        unread = {}

        # 4. The loop; only its logging waits for the devices. However it ends, a save that has begun is finished, and
        # so are the processes that read.
        with contextlib.closing(observer), contextlib.closing(batches), contextlib.closing(trace):
            try:
                for step in range(first_step + 1, last_step + 1):
                    stop.check(step)
                    trace.before(step, state)
                    with goodput.elsewhere("input"), stop.reading():
                        batch = sharding.to_global(mesh, next(batches), config.train.accumulate)
                    if step == first_step + 1:
                        with goodput.elsewhere("compiling"):
                            make_step = stop.unless_requested(compiled, make_step, state, batch)
                        goodput.begin_steps()
                    state, unread[step] = make_step(state, batch)
                    is_saved = step % config.run.save_every == 0 or step == last_step
                    if step % config.run.log_every == 0 or is_saved:
                        heed_bad_steps(config, workdir, checkpoints, state, unread, most_bad)
                        observer.scalars(step, unread[step])
                        unread.clear()
                    if is_saved:
                        with goodput.elsewhere("saving"):
                            checkpoints.save(step, state)
                    if step % config.run.picture_every == 0:
                        with goodput.elsewhere("pictures"):
                            stop.unless_requested(show, step, state, mesh, predictor, pictured, observer)
            except Stopped as stopped:
                heed_bad_steps(config, workdir, checkpoints, state, unread, most_bad)
                step = int(state["step"])
                checkpoints.save(step, state)
                stopped.args = (f"Stopped after step {step} of {last_step}, saved in {workdir / 'checkpoints'}.",)
                raise
    return state


def compiled(step_function, state, batch):
    """The jitted step as a program for these shapes and shardings, which refuses others: it never compiles again."""
    return step_function.lower(state, batch).compile()


def show(step, state, mesh, predictor, pictured, observer):
    """Logs frame, truth and prediction of the first videos, in the first process; all give it their weights."""
    weights = sharding.gathered(mesh, {name: state[name] for name in ("params", "model_state")})
    if jax.process_index() > 0:
        return
    predictor.weights = sharding.local(mesh, weights)
    for number, picture in enumerate(comparisons(predictor, pictured)):
        observer.picture(step, f"{pictured.split}/{number}", picture)


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


def heed_bad_steps(config, workdir, checkpoints, state, unread, most_bad):
    """Saves steps whose loss or gradient was no number for `replay`; too many in a row end the run.

    Args:
      state: after the last of them.
      unread: metrics of steps, by step.
      most_bad: so many in a row are allowed.

    Raises:
      UserError: more came in a row; the state before the last of them is saved.
    """
    counts = jax.device_get({step: metrics["bad_steps"] for step, metrics in unread.items()})
    for step, count in counts.items():
        if not count:
            continue
        figures = jax.device_get(unread[step])
        bad = ", ".join(sorted(name for name, value in figures.items() if not np.isfinite(value)))
        found = f"At step {step} {bad or 'the running statistics'} became NaN or infinite"
        path = replay.save(workdir, config, step, figures)
        if count > most_bad:
            checkpoints.save(step - 1, {**state, "bad_steps": jnp.zeros_like(state["bad_steps"])})
            raise UserError(
                f"{found}. The weights are those before that step, saved in {workdir / 'checkpoints'}; the step is in "
                f"{path or replay.folder(workdir)}.\nSee where it began with --mode=replay. Lower "
                "--config.optimizer.learning_rate or set --config.optimizer.clip_norm=1 with another --workdir=DIR, or "
                "leave such steps out with --config.run.non_finite=skip."
            )
        LOG.warning("%s; left out", found)
        warn(f"{found}. It was left out; see --mode=replay.")
