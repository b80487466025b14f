"""The weights that training has left in a workdir, or that a PyTorch checkpoint brings, and a predictor with them."""

import pathlib
from typing import NamedTuple

from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vspw_jax.checkpoints import beginning, run_classes, run_identity
from vspw_jax.checkpoints.checkpoint import Checkpoints
from vspw_jax.classes import unnamed, vspw
from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError
from vspw_jax.data.transforms import IMAGENET, Normalisation
from vspw_jax.inference.predictor import Predictor
from vspw_jax.interop import convert, stored_classes
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import local_mesh, make_mesh
from vspw_jax.tasks import task
from vspw_jax.training import checks, non_finite, train_state


class Trained(NamedTuple):
    """A network's graphdef, its params and model_state, the step of its checkpoint (None of a file), its classes, and
    what images are normalised by for it."""

    graphdef: nnx.GraphDef
    weights: train_state.State
    step: int | None
    classes: ClassList
    normalisation: Normalisation = IMAGENET


def weights(config: ConfigDict, workdir: pathlib.Path, mesh: Mesh) -> Trained:
    """What the newest checkpoint has; where there is none, what `config.init_from` has.

    Raises:
      UserError: there is neither, or both and the run did not begin from that file; the workdir is another recipe's; a
        checkpoint is damaged or does not fit, or holds NaN; `evaluate.weights` asks for an average where none is.
    """
    checks.check_recipe(config)
    checkpoints = Checkpoints(workdir, config.run.keep)
    step = checkpoints.intact_step()
    if step is not None:
        run_identity.check_workdir(workdir, config)
        beginning.check_goes_on(workdir, config, step)
        if config.init_from:
            print(f"The weights are those of step {step} in {workdir}, whose run began from {config.init_from}.")
        graphdef, found = train_state.restore_weights(config, checkpoints, mesh, step)
        non_finite.check_weights(found, f"The checkpoint of step {step} in {workdir}")
        classes, said = run_classes.of_run(config, workdir).classes, f"as {workdir} names them"
        if len(classes) != config.model.num_classes:  # A head of another data set's classes, trained on VSPW.
            classes, said = unnamed.by_number(config.model.num_classes)
        if not vspw.are(classes):
            print(f"{len(classes)} classes, {said}.")
        return Trained(graphdef, found, step, classes)
    if not config.init_from:
        raise UserError(
            f"There is no checkpoint in {workdir}. Train one with --mode=train, name its --workdir=DIR, or take a "
            "PyTorch checkpoint with --config.init_from=PATH."
        )
    graphdef, *shapes = train_state.describe(config)
    plan = convert.plan(config.model, shapes, config.init_from, config.init_from_key)
    print(plan.report())
    params, model_state = convert.read_weights(plan, shapes, placement.replicated(mesh))
    found = {"params": params, "model_state": model_state}
    non_finite.check_weights(found, config.init_from)
    classes, said = stored_classes.chosen(plan.file.classes, config.model.num_classes)
    print(f"  {len(classes.names):4d} classes, {said}")
    if plan.file.normalisation is not None:
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in plan.file.normalisation)
        print(f"       frames are normalised by mean {mean} and std {std}, as the file's preprocessor_config.json says")
    return Trained(graphdef, found, None, classes, plan.file.normalisation or IMAGENET)


def predictor(config: ConfigDict, workdir: pathlib.Path, recipe: str = "") -> Predictor:
    """A `Predictor` with these weights; `recipe` is the name of the config's file, for what is written of them."""
    task.check_predicts(config, "This command predicts")
    mesh = make_mesh()
    graphdef, found, step, classes, normalisation = weights(config, workdir, mesh)
    origin = {"recipe": recipe, "step": step}
    if step is None:
        origin["init_from"] = pathlib.Path(config.init_from).name
        if config.init_from_key:
            origin["init_from_key"] = config.init_from_key
    return Predictor(config, graphdef, local_mesh(mesh), placement.local(mesh, found), origin, classes, normalisation)
