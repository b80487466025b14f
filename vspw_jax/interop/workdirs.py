"""Our own runs as a checkpoint to start from: what an export of the run would write, without the file.

So a run of other classes or of another crop starts a network by the same rules as a PyTorch file.
"""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from vspw_jax.checkpoints import manifest, run_classes, run_identity
from vspw_jax.checkpoints.checkpoint import FOLDER, Checkpoints
from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError
from vspw_jax.interop import exported_tensors, namings
from vspw_jax.interop.stored_tensors import NewTensor
from vspw_jax.models import segmenter
from vspw_jax.models.torch_rows import CLASSES, CLASSES_AND_NONE
from vspw_jax.tasks import task


def _split(folder: pathlib.Path) -> tuple[pathlib.Path, int | None] | None:
    """(workdir, step or None) of a run's folder, of its folder of checkpoints or of one of these; else None."""
    folder = folder.resolve()
    if (folder / FOLDER).is_dir():
        return folder, None
    if folder.name == FOLDER:
        return folder.parent, None
    if folder.name.isdecimal() and folder.parent.name == FOLDER:
        return folder.parent.parent, int(folder.name)
    return None


def is_workdir(folder: pathlib.Path) -> bool:
    """Whether a folder is a run's, or holds its checkpoints, or is one of them."""
    return _split(folder) is not None


def check_no_step(folder: pathlib.Path) -> None:
    """Raises UserError for a checkpoint of a run that was taken out of its workdir, which says what network it is."""
    if (folder / manifest.FILE).is_file():
        raise UserError(
            f"{folder} is a checkpoint of a run, without the run's config.json that says what network it is: "
            f"expected it at WORKDIR/{FOLDER}/STEP, with that file in WORKDIR. Put both there, or name the run's own "
            "workdir: --config.init_from=WORKDIR."
        )


def classes(folder: pathlib.Path) -> ClassList:
    """The classes of a run, by one of its folders; UserError where its file of them is damaged."""
    found = _split(folder)
    if found is None:
        raise UserError(f"{folder} is no run's workdir.")
    return run_classes.kept(found[0])


def _whole_naming(folder: pathlib.Path, config: ConfigDict) -> namings.Naming:
    """A kind of file that holds all of the network of a run."""
    encoder, decoder = segmenter.encoder_of(config), segmenter.decoder_of(config)
    for name, naming in namings.NAMINGS.items():
        if name in encoder.TORCH_NAMES and name in decoder.TORCH_NAMES and naming.whole(config):
            return naming
    raise UserError(
        f"The network of {folder}, of {config.encoder.name} and {config.decoder.name}, has no names in any kind of "
        "file, so that no other run can start from it."
    )


def _shapes(config: ConfigDict) -> Iterator[tuple[str, Any]]:
    """("params" or "model_state", nested dicts of shapes) of a network of `config.model`."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    network = jax.eval_shape(lambda key: nnx.split(segmenter.build(config, key), nnx.Param, ...), jax.random.key(0))
    for name, part in zip(("params", "model_state"), network[1:], strict=True):
        place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
        yield name, jax.tree.map(place, nnx.to_pure_dict(part))


def _of_training(*weights: Any) -> dict[str, NewTensor]:
    """What an export leaves out, by our own paths."""
    found = exported_tensors.leaves_by_path(*weights)
    return {
        path: NewTensor(leaf.shape, np.dtype(leaf.dtype), functools.partial(np.asarray, leaf))
        for path, leaf in found.items()
        if path.startswith(namings.TRAINING_ALONE)
    }


def _trains_no_classifier(workdir: pathlib.Path) -> bool:
    name = run_identity.task_of(workdir)
    return name in task.TASKS and not task.TASKS[name].predicts


def _without_classes(
    networks: dict[str, dict[str, NewTensor]], naming: namings.Naming, config: ConfigDict
) -> dict[str, dict[str, NewTensor]]:
    """The same networks, their classifiers of no class."""
    heads = {row.theirs for row in naming.rows(config, ()) if row.counts in (CLASSES, CLASSES_AND_NONE)}

    def cut(name: str, tensor: NewTensor) -> NewTensor:
        if name not in heads:
            return tensor
        shape = (0, *tensor.shape[1:])
        return NewTensor(shape, tensor.dtype, lambda: np.zeros(shape, tensor.dtype))

    return {label: {name: cut(name, x) for name, x in tensors.items()} for label, tensors in networks.items()}


def read(folder: pathlib.Path) -> dict[str, dict[str, NewTensor]]:
    """The tensors of a run's checkpoint, by name, under "weights", and those of their average under "ema".

    What only training uses is there by our own paths, to be named. The classifiers of a run that trained none are of
    no class.

    Args:
      folder: the workdir, its folder of checkpoints, or one of these.

    Raises:
      UserError: no checkpoint, a damaged one, or a run whose config is not beside it.
    """
    found = _split(folder)
    if found is None:
        raise UserError(f"{folder} is no run's workdir.")
    workdir, step = found
    checkpoints = Checkpoints(workdir, keep=1)
    intact = checkpoints.intact_step(step if step is not None else float("inf"))
    if intact is None or step not in (None, intact):
        raise UserError(f"{folder} holds no checkpoint that is whole. Name another, or its run's workdir {workdir}.")
    config = run_identity.model_of(workdir)
    like, naming = dict(_shapes(config)), _whole_naming(folder, config)
    parts = {"weights": checkpoints.restore(like, intact)}
    if checkpoints.has(intact, "ema"):
        parts["ema"] = checkpoints.restore({"ema": like}, intact)["ema"]
    # On the host: what lies on a device is needed for training.
    on_host = {name: jax.device_get(weights) for name, weights in parts.items()}
    tensors: dict[str, dict[str, NewTensor]] = {}
    for label, weights in on_host.items():
        whole = weights["params"], weights["model_state"]
        tensors[label] = exported_tensors.new_tensors(config, whole, naming) | _of_training(*whole)
    return _without_classes(tensors, naming, config) if _trains_no_classifier(workdir) else tensors
