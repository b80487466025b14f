"""Replay of bad steps: what is saved of a step whose loss or gradient was no number, and what shows the cause."""

import collections
import contextlib
import functools
import json
import math
import pathlib
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree
from ml_collections import ConfigDict

from vspw_jax.checkpoints import beginning, checkpoint, run_identity
from vspw_jax.console.errors import UserError
from vspw_jax.data import pipeline
from vspw_jax.files.whole_files import whole_file
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import quick_compilation
from vspw_jax.training import class_weights, length, nan_origin, optimizers, train_state, train_step
from vspw_jax.training.first_state import first_state

MOST_FILES = 20
"""Later bad steps of a run are counted, but not saved: a batch at full size is tens of MB."""

SHOWN = 20
"""How many parameters a report lists at the most."""

Batch = dict[str, np.ndarray]


def folder(workdir: pathlib.Path | str) -> pathlib.Path:
    """Where bad steps of a workdir's run are saved."""
    return pathlib.Path(workdir) / "bad_steps"


def _suffix() -> str:
    """Of this process's files."""
    return f".process_{jax.process_index()}.npz" if jax.process_count() > 1 else ".npz"


def _saved(workdir: pathlib.Path | str) -> list[pathlib.Path]:
    """This process's files of bad steps, in the order of their steps."""
    return sorted(folder(workdir).glob(f"step_????????{_suffix()}"))


def save(
    workdir: pathlib.Path | str, config: ConfigDict, step: int, metrics: Mapping[str, Array | float]
) -> pathlib.Path | None:
    """Saves a bad step for `replay`: step, seed, metrics and this process's part of the batch, which is read again.

    Returns:
      The file's path, or None where there are `MOST_FILES` already.
    """
    path = folder(workdir) / f"step_{step:08d}{_suffix()}"
    path.parent.mkdir(exist_ok=True)
    if len(_saved(workdir)) >= MOST_FILES and not path.exists():
        return None
    with contextlib.closing(pipeline.batches_of_run(config, step - 1)) as stream:
        batch = next(stream)
    figures = {name: float(value) for name, value in metrics.items()}
    with whole_file(path) as partial:
        np.savez(partial, step=step, seed=config.seed, metrics=json.dumps(figures), **batch)
    return path


def newest(workdir: pathlib.Path | str) -> pathlib.Path:
    """The bad step that was saved last.

    Raises:
      UserError: there is none.
    """
    paths = _saved(workdir)
    if not paths:
        raise UserError(
            f"No bad step was saved in {folder(workdir)}: nothing to replay. Name a file with --input=FILE."
        )
    return paths[-1]


def load(path: pathlib.Path | str, config: ConfigDict) -> tuple[int, dict[str, float], Batch]:
    """(step, metrics, batch) of a saved bad step.

    Raises:
      UserError: it is damaged, or of a run with another seed.
    """
    try:
        with pathlib.Path(path).open("rb") as file, np.load(file) as saved:
            arrays = dict(saved)
        step, seed, metrics = (arrays.pop(name).item() for name in ("step", "seed", "metrics"))
        metrics = json.loads(metrics)
    except Exception as error:  # zipfile, zlib and NumPy each have their own.
        raise UserError(f"{path} is no saved step: {error}. Expected a file of bad_steps/ in a workdir.") from error
    if seed != config.seed:
        raise UserError(
            f"{path} is of a run with seed {seed}, the recipe's is {config.seed}: set --config.seed={seed}."
        )
    return step, metrics, arrays


def count_bad(array: Array) -> Int[Array, ""]:
    """Entries that are NaN or infinite."""
    return jnp.sum(~jnp.isfinite(array))


def recording() -> optax.GradientTransformation:
    """An optimizer that changes no weight; its state counts the NaN and infinite entries of each gradient."""
    count = lambda gradients, *_: (jax.tree.map(jnp.zeros_like, gradients), jax.tree.map(count_bad, gradients))
    return optax.GradientTransformation(lambda params: jax.tree.map(lambda _: jnp.zeros((), int), params), count)


def state_before(
    config: ConfigDict,
    transformation: optax.GradientTransformation,
    checkpoints: checkpoint.Checkpoints,
    mesh: Mesh,
    step: int,
) -> train_state.State:
    """The state that a step takes: steps are made again up to there, from the nearest checkpoint or from the start."""
    state = first_state(config, transformation, checkpoints, mesh, at_most=step - 1)
    first = int(state["step"])
    print(
        f"From step {first}{f', steps {first + 1} to {step - 1} made again' if first < step - 1 else ''}.", flush=True
    )
    if first < step - 1:
        graphdef, _, _ = train_state.describe(config)
        seed = train_step.seed_of(config)
        make = train_step.make_train_step(config, graphdef, transformation, mesh)
        with contextlib.closing(pipeline.batches_of_run(config, first)) as stream:
            for _ in range(first, step - 1):
                state, _ = make(state, placement.to_global(mesh, next(stream), config.train.accumulate), seed)
    return state


def replay(config: ConfigDict, workdir: pathlib.Path, path: pathlib.Path | str | None = None) -> list[str]:
    """Makes a bad step of the workdir's run again, and tells which figures and gradients are no numbers.

    Args:
      path: of a bad step that `save` wrote; default: the newest.

    Returns:
      The report's lines.
    """
    run_identity.check_workdir(workdir, config)
    config = class_weights.of_workdir(length.of_workdir(config, workdir), workdir)
    path = path or newest(workdir)
    step, metrics, batch = load(path, config)
    print(f"Step {step}, saved in {path}.", flush=True)
    mesh = train_state.mesh_of_run(config)
    graphdef, params, _ = train_state.describe(config)
    transformation = optimizers.build(config, params)
    checkpoints = checkpoint.Checkpoints(workdir, config.run.keep)
    if checkpoints.intact_step(at_most=step - 1) is None:
        beginning.check_begins_again(workdir, config)
    state = state_before(config, transformation, checkpoints, mesh, step)
    weights = {name: state[name] for name in ("params", "model_state")}
    count = jax.jit(functools.partial(jax.tree.map, count_bad), compiler_options=quick_compilation())
    bad_weights = count(weights)
    make = train_step.make_train_step(config, graphdef, recording(), mesh, guarded=False)
    del state["bad_steps"]  # The guard's: this step has none.
    batch_there = placement.to_global(mesh, batch, config.train.accumulate)
    print("Looking for the operation that made the first NaN.", flush=True)
    origin = nan_origin.describe(config, graphdef, mesh, state, batch_there)  # First: the step takes the state away.
    state["opt_state"] = recording().init(state["params"])
    after, again = make(state, batch_there, train_step.seed_of(config))
    return [
        *_describe_batch(batch),
        *_describe_bad("Weights before the step", bad_weights),
        "",
        *_describe_metrics(metrics, again),
        origin,
        "",
        *_describe_bad("Gradients", after["opt_state"]),
    ]


def _describe_batch(batch: Batch) -> Iterator[str]:
    image, label = batch["image_BTHWC"], batch["label_BTHW"]
    bad = int(np.sum(~np.isfinite(image)))
    values = f"from {image.min():.2f} to {image.max():.2f}" if not bad else f"{bad} of {image.size} not finite"
    yield f"Batch: {len(image)} clips, image values {values}, labels {', '.join(map(str, np.unique(label)))}"


def _describe_metrics(then: Mapping[str, float], now: Mapping[str, Array]) -> Iterator[str]:
    """A line for each: loss, its terms, the gradient's norm."""
    yield f"{'':<16}{'then':>14}{'again':>14}"
    for name, value in now.items():
        again = float(value)
        mark = "" if math.isfinite(again) else "   <- not finite"
        yield f"{name:<16}{then.get(name, math.nan):>14.6g}{again:>14.6g}{mark}"


def _describe_bad(title: str, counts: PyTree) -> Iterator[str]:
    """Lines on the arrays of a tree that have NaN or infinite entries; `counts` has the numbers of these."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(counts))
    named = [(jax.tree_util.keystr(path, simple=True, separator="/"), int(count)) for path, count in leaves]
    bad = [(name, count) for name, count in named if count]
    parts = collections.Counter(name.split("/")[0] for name, _ in bad)
    of_parts = f" ({', '.join(f'{part} {count}' for part, count in parts.items())}):" if bad else "."
    yield f"{title}: {len(bad)} of {len(named)} arrays hold NaN or infinity{of_parts}"
    for name, count in bad[:SHOWN]:
        yield f"  {name}: {count} entries"
    if len(bad) > SHOWN:
        yield f"  and {len(bad) - SHOWN} more"
