"""The weights that training has left in a workdir, or that a PyTorch checkpoint brings, and a predictor with them."""

import pathlib
from typing import NamedTuple

from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vspw_jax.checkpoints import beginning, run_classes, run_identity
from vspw_jax.checkpoints.checkpoint import Checkpoints
from vspw_jax.classes import unnamed, vspw
from vspw_jax.classes.class_list import MOST, ClassList, check_numbered_alike
from vspw_jax.classes.class_union import ClassUnion, Part, part_for
from vspw_jax.console.errors import UserError
from vspw_jax.data.transforms import IMAGENET, Normalisation
from vspw_jax.inference.predictor import Predictor
from vspw_jax.interop import convert, stored_classes
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import local_mesh, make_mesh
from vspw_jax.training import checks, non_finite, train_state


class Trained(NamedTuple):
    """A network's graphdef, its params and model_state, the step of its checkpoint (None of a file), its classes, what
    images are normalised by for it, and whether its classes are known: else they are named by their number."""

    graphdef: nnx.GraphDef
    weights: train_state.State
    step: int | None
    classes: ClassList
    normalisation: Normalisation = IMAGENET
    are_known: bool = True


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
        are_known = len(classes) == config.model.num_classes
        if not are_known:  # A head of another data set's classes, trained on VSPW.
            classes, said = unnamed.by_number(config.model.num_classes)
        if not vspw.are(classes):
            print(f"{len(classes)} classes, {said}.")
        return Trained(graphdef, found, step, classes, are_known=are_known)
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
    are_known = classes is plan.file.classes
    if are_known:  # Files have no place for which data set has which.
        classes = run_classes.with_parts(config, classes)
    return Trained(graphdef, found, None, classes, plan.file.normalisation or IMAGENET, are_known)


def shown_part(classes: ClassList, scored: ClassList | None, path: str) -> Part | None:
    """The part of a network's classes that it predicts, None for all: see `predictor`; `path` is the data's.

    Raises:
      UserError: the network is to be scored on classes that it has not or numbers otherwise; or it has more than masks
        can hold, and nothing tells which data set has which.
    """
    if not isinstance(classes, ClassUnion):
        if len(classes) > MOST:
            raise UserError(
                f"The network has {len(classes)} classes, more than masks can hold, and nothing says which data set "
                "has which. Take it from the workdir that it was trained in: --workdir=DIR."
            )
        if scored is not None:
            check_numbered_alike(classes, scored, path)
            if classes.names != scored.names:
                print(f"The network's classes are those of {path} by their number; not all have the same name.")
        return None
    if scored is not None:
        return part_for(classes, scored, path)
    if len(classes) <= MOST:
        return None
    part = classes.parts[0]
    own = f"those of {part.name} are predicted ({len(part.classes)})"
    print(f"Of {len(classes)} classes, more than masks can hold, {own}.")
    return part


def predictor(
    config: ConfigDict, workdir: pathlib.Path, recipe: str = "", scored: ClassList | None = None
) -> Predictor:
    """A `Predictor` with these weights.

    A network of several data sets' classes predicts those of one of them where it is scored on that one, or where all
    would be too many for masks.

    Args:
      recipe: name of the config's file, for what is written of them.
      scored: classes of the data that it is to be scored on.
    """
    mesh = make_mesh()
    graphdef, found, step, classes, normalisation, are_known = weights(config, workdir, mesh)
    origin = {"recipe": recipe, "step": step}
    if step is None:
        origin["init_from"] = pathlib.Path(config.init_from).name
        if config.init_from_key:
            origin["init_from_key"] = config.init_from_key
    part = shown_part(classes, scored if are_known else None, config.data.records)
    known, outputs = (part.classes, part.numbers) if part else (classes if are_known else None, None)
    placed = placement.local(mesh, found)
    return Predictor(config, graphdef, local_mesh(mesh), placed, origin, known, normalisation, outputs)
