"""What a recipe amounts to: its fields, its parameters, the cost of a step. Trains nothing and needs no data."""

import collections
import pathlib
import re

import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.inspection import step_cost
from vspw_jax.interop import checkpoint_file, loading, recipe_of_file
from vspw_jax.interop.exported_tensors import leaves_by_path
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import optimizers, rematerialisation, train_state


def describe_memory(config: ConfigDict) -> list[str]:
    """What a training step needs on each device beside weights and state, as compiled here; a line for each remat."""
    try:
        mesh = train_state.mesh_of_run(config)
    except UserError:
        mesh = make_mesh(devices=jax.devices()[:1])
    here = f"{mesh.size} x {jax.devices()[0].device_kind}, {config.train.batch / mesh.size:g} clips each"
    lines = [f"Compiled for {here}, a step needs on each beside weights and state:"]
    own = config.model.remat
    policies = rematerialisation.FROM_LEAST if own == rematerialisation.AUTO else dict.fromkeys((own, "full", "none"))
    for remat in policies:
        mark = " (this recipe)" if remat == own else ""
        lines.append(f"  {step_cost.step_memory(config, mesh, remat) / 2**30:7.2f} GiB with model.remat={remat}{mark}")
    if own == rematerialisation.AUTO:
        lines.append(
            "model.remat=auto takes the first that fits into memory; on devices that do not tell theirs, full."
        )
    return lines


def on_a_tpu(config: ConfigDict, recipe: str) -> str:
    """A line with the command that tells what a step costs on a TPU. It takes recipes of configs/ alone: else ""."""
    name, _, size = recipe.partition(":")
    path = pathlib.Path(name).resolve()
    if path.parent != recipe_of_file.RECIPE.resolve().parent or recipe_of_file.is_named(recipe):
        return ""
    sized = f"--recipe={path.stem}{f' --size={size}' if size else ''}"
    fields = f"{sized} --crop={max(config.model.image_size)} --frames={config.data.frames}"
    return f"\nWhat it costs on a TPU: python -m benchmarks.tpu_cost {fields} (docs/devices.md)."


def describe(config: ConfigDict, recipe: str = "") -> str:
    """The report as text; `recipe` is what --config names."""
    _, params, _ = train_state.describe(config)
    state = jax.eval_shape(
        lambda key: train_state.init_state(config, optimizers.build(config, params), key), jax.random.key(0)
    )
    total = sum(np.prod(leaf.shape, dtype=np.int64) for leaf in jax.tree.leaves(params))
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    flops = step_cost.step_flops(config)
    counted = " (model.remat=auto: as full)" if config.model.remat == rematerialisation.AUTO else ""
    overview = parameter_overview.get_parameter_overview(params, include_stats=False)
    return (
        f"{config}\n{overview}\n"
        f"Parameters: {total:,} ({total / 1e6:.2f} M). Weights and optimizer state: {state_bytes / 2**30:.2f} GiB.\n"
        f"A step of {config.train.batch} clips of {config.data.frames} frames: {flops / 1e12:.2f} TFLOP{counted}."
        f"{on_a_tpu(config, recipe)}"
    )


def describe_checkpoint(config: ConfigDict) -> list[str]:
    """What is in `config.init_from`, and what of it the config's model would take; nothing where it is empty."""
    if not config.init_from:
        return []
    file = checkpoint_file.read(config.init_from, config.init_from_key)
    kinds = collections.Counter(
        (re.sub(r"\d+", "*", name), tensor.shape, tensor.dtype.name) for name, tensor in file.tensors.items()
    )
    beside = f", beside {', '.join(file.others)}" if file.others else ""
    lines = [
        f"\n{file.path}: {len(file.tensors)} tensors, {file.nbytes / 2**30:.2f} GiB, "
        f"{f'under {file.wrapper!r}' if file.wrapper else 'at the top'}{beside}"
    ]
    lines += [f"  {count:4d} x {name} {shape} {dtype}" for (name, shape, dtype), count in kinds.items()]
    _, *weights = train_state.describe(config)
    try:
        plan = loading.plan(config.model, leaves_by_path(*weights), file)
        lines.append(f"\nInto this config's model would go:\n{plan.report()}")
    except UserError as error:
        lines.append(f"\nTraining would refuse it:\n{error}")
    return lines
