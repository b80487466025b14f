"""The training run, to be read from top to bottom."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vspw_jax.checkpoints import beginning, run_classes, run_identity
from vspw_jax.checkpoints.checkpoint import Checkpoints
from vspw_jax.classes import class_union
from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError, warn
from vspw_jax.data import mixture, pipeline, views
from vspw_jax.evaluation.evaluate import comparisons, split_of
from vspw_jax.inference.predictor import Predictor
from vspw_jax.observe.goodput import Goodput
from vspw_jax.observe.observer import Observer
from vspw_jax.observe.profiling import Trace
from vspw_jax.observe.run_log import LOG, run_log
from vspw_jax.parallel import placement, processes
from vspw_jax.parallel.mesh import local_mesh
from vspw_jax.tasks import task
from vspw_jax.training import (
    checks,
    class_weights,
    length,
    non_finite,
    optimizers,
    replay,
    schedules,
    train_state,
    train_step,
)
from vspw_jax.training.first_state import first_state
from vspw_jax.training.preemption import Stopped, StopRequest
from vspw_jax.training.rematerialisation import fitting_step, possible_steps
from vspw_jax.training.train_state import State

Batches = Iterator[dict[str, np.ndarray]]


def train(config: ConfigDict, workdir: pathlib.Path, stop: StopRequest | None = None) -> State:
    """Trains `config` in `workdir`, from its newest checkpoint or from the start.

    Args:
      stop: default one that never comes.

    Returns:
      The final state; see `train_state.py`.

    Raises:
      UserError: a value of the config that makes no sense, data or `config.init_from` missing or unfit, the workdir
        another run's or in use, devices that cannot share the batch, no room on the disk, a loss that is no longer
        finite.
      Stopped: a stop was requested; the state that was reached is saved.
    """
    goodput = Goodput()
    members = checks.check(config)
    config = class_weights.of_data(length.of_data(config, members), members)
    mesh = train_state.mesh_of_run(config)
    trace = Trace(config.run.profile_steps, workdir / "tensorboard")
    with processes.owned(workdir, "--workdir=DIR") as check_owner:
        checkpoints = claimed(config, workdir, members, check_owner)
        with run_log(workdir), contextlib.closing(checkpoints):
            LOG.info("%s", length.described(config, members))
            schedules.warn_of_long_warmup(config.schedule, config.train.steps)
            graphdef, params, _ = train_state.describe(config)
            optimizer = optimizers.build(config, params)
            state = begun(config, workdir, optimizer, checkpoints, mesh)
            first_step, last_step = int(state["step"]), config.train.steps
            checkpoints.check_room(state, saves=math.ceil((last_step - first_step) / config.run.save_every))

            steps = possible_steps(config, graphdef, optimizer, mesh)
            batches = pipeline.batches_of_run(config, first_step)
            images_per_step = config.train.batch * config.data.frames
            observer = Observer(workdir, first_step, last_step, images_per_step, goodput, config.run.wandb)
            classes = members[0].classes
            pictures = Pictures(config, graphdef, mesh, classes) if task.predicts(config) else None
            run = Run(config, workdir, mesh, checkpoints, observer, pictures, goodput, trace)
            # However it ends, a save that has begun is finished, and so are the processes that read.
            with contextlib.closing(observer), contextlib.closing(batches), contextlib.closing(trace):
                return run.through(state, steps, batches, stop or StopRequest())


def claimed(
    config: ConfigDict, workdir: pathlib.Path, members: list[mixture.Member], check_owner: Callable[[], None]
) -> Checkpoints:
    """The checkpoints of a workdir that is this run's, what is damaged set aside."""
    with processes.first_alone("workdir"):
        run_identity.claim_workdir(workdir, config, mixture.identity(members))
        if jax.process_index() == 0:
            run_classes.note(workdir, members[0].classes)
    if len(members) > 1 or members[0].frames.note:
        print(mixture.report(members, views.frames_shown(config.data)))
    in_background = config.run.save_in_background
    checkpoints = Checkpoints(
        workdir, config.run.keep, trains=True, in_background=in_background, check_owner=check_owner
    )
    checkpoints.set_aside_damaged()
    return checkpoints


def begun(
    config: ConfigDict,
    workdir: pathlib.Path,
    optimizer: optax.GradientTransformation,
    checkpoints: Checkpoints,
    mesh: Mesh,
) -> State:
    """The state that the run begins with or goes on from; what a new one begins from is noted."""
    step = checkpoints.intact_step()
    if step is not None:
        beginning.check_goes_on(workdir, config, step)
    state = first_state(config, optimizer, checkpoints, mesh)
    if step is None and jax.process_index() == 0:
        beginning.note(workdir, config)
    return state


def compiled(step_function: Any, *inputs: Any) -> Callable:
    """The jitted step as a program for such inputs, which refuses others: it never compiles again."""
    return step_function.lower(*inputs).compile()


class Pictures:
    """Frame, truth and prediction of the first videos of the evaluation's split, now and then."""

    def __init__(self, config: ConfigDict, graphdef: nnx.GraphDef, mesh: Mesh, classes: ClassList) -> None:
        self._mesh, self._frames, self._opacity = mesh, split_of(config.data), config.evaluate.opacity
        part = class_union.part_for(classes, self._frames.classes, self._frames.path)
        outputs = part.numbers if part else None
        config = config.copy_and_resolve_references().unlock()
        config.evaluate.flow_weight = 0.0  # These are single frames.
        self._predictor = Predictor(config, graphdef, local_mesh(mesh), classes=self._frames.classes, outputs=outputs)

    def show(self, step: int, state: State, observer: Observer) -> None:
        """Logs them, in the first process; all give it their weights."""
        weights = placement.gathered(self._mesh, {name: state[name] for name in ("params", "model_state")})
        if jax.process_index() > 0:
            return
        self._predictor.weights = placement.local(self._mesh, weights)
        predicted = lambda _, image: self._predictor([image])[0]
        for number, picture in enumerate(comparisons(self._frames, predicted, self._opacity)):
            observer.picture(step, f"{self._frames.split}/{number}", picture)


@dataclasses.dataclass
class Run:
    """What goes on around the steps of a run. Only its logging waits for the devices.

    Attributes:
      pictures: None of a task that predicts nothing.
      unread: metrics of the steps since the last logging, by step, still on the devices.
    """

    config: ConfigDict
    workdir: pathlib.Path
    mesh: Mesh
    checkpoints: Checkpoints
    observer: Observer
    pictures: Pictures | None
    goodput: Goodput
    trace: Trace
    unread: dict[int, dict[str, jax.Array]] = dataclasses.field(default_factory=dict)

    def through(self, state: State, steps: Mapping[str, Any], batches: Batches, stop: StopRequest) -> State:
        """Makes the steps that are left, by that of `possible_steps` which fits; the state after the last one."""
        first_step, last_step, seed = int(state["step"]), self.config.train.steps, train_step.seed_of(self.config)
        try:
            for step in range(first_step + 1, last_step + 1):
                stop.check(step)
                self.trace.before(step, state)
                batch = self.read(batches, stop)
                if step == first_step + 1:
                    with self.goodput.elsewhere("compiling"):
                        make_step = stop.unless_requested(fitting_step, steps, compiled, self.mesh, state, batch, seed)
                    self.goodput.begin_steps()
                state, self.unread[step] = make_step(state, batch, seed)
                self.after(step, state, stop)
        except Stopped as stopped:
            self.heed_bad_steps(state)
            step = int(state["step"])
            self.checkpoints.save(step, state)
            stopped.args = (f"Stopped after step {step} of {last_step}, saved in {self.workdir / 'checkpoints'}.",)
            raise
        return state

    def read(self, batches: Batches, stop: StopRequest) -> dict[str, jax.Array]:
        """The next batch, on the devices."""
        with self.goodput.elsewhere("input"), stop.reading():
            return placement.to_global(self.mesh, next(batches), self.config.train.accumulate)

    def after(self, step: int, state: State, stop: StopRequest) -> None:
        """Logs, saves and shows what is due after a step."""
        run = self.config.run
        is_saved = step % run.save_every == 0 or step == self.config.train.steps
        if step % run.log_every == 0 or is_saved:
            self.heed_bad_steps(state)
            self.observer.scalars(step, self.unread[step])
            self.unread.clear()
        if is_saved:
            with self.goodput.elsewhere("saving"):
                self.checkpoints.save(step, state)
        if step % run.picture_every == 0 and self.pictures:
            with self.goodput.elsewhere("pictures"):
                stop.unless_requested(self.pictures.show, step, state, self.observer)

    def heed_bad_steps(self, state: State) -> None:
        """Saves unread steps whose loss or gradient was no number for `replay`; too many in a row end the run.

        Args:
          state: after the last of them.

        Raises:
          UserError: more came in a row than are allowed; the state before the last of them is saved.
        """
        counts = jax.device_get({step: metrics["bad_steps"] for step, metrics in self.unread.items()})
        for step, count in counts.items():
            if not count:
                continue
            figures = jax.device_get(self.unread[step])
            bad = ", ".join(sorted(name for name, value in figures.items() if not np.isfinite(value)))
            found = f"At step {step} {bad or 'the running statistics'} became NaN or infinite"
            path = replay.save(self.workdir, self.config, step, figures)
            if count > non_finite.allowed(self.config.run):
                self.checkpoints.save(step - 1, {**state, "bad_steps": jnp.zeros_like(state["bad_steps"])})
                raise UserError(
                    f"{found}. The weights are those before that step, saved in {self.workdir / 'checkpoints'}; the "
                    f"step is in {path or replay.folder(self.workdir)}.\nSee where it began with --mode=replay. Lower "
                    "--config.optimizer.learning_rate or set --config.optimizer.clip_norm=1 with another "
                    "--workdir=DIR, or leave such steps out with --config.run.non_finite=skip."
                )
            LOG.warning("%s; left out", found)
            warn(f"{found}. It was left out; see --mode=replay.")
