"""What a recipe amounts to: its fields, its parameters, the cost of a step. Trains nothing and needs no data."""

import collections
import copy
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview

from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert
from vspw_jax.parallel import sharding
from vspw_jax.training import optimizers, train_step


def abstract_batch(config):
    """Shapes of a training batch, as `sharding.to_global` gives it."""
    parts = config.train.accumulate
    clips = (config.train.batch,) if parts == 1 else (parts, config.train.batch // parts)
    shape = (*clips, config.data.frames, *config.model.image_size)
    return {
        "image_BTHWC": jax.ShapeDtypeStruct((*shape, 3), jnp.float32),
        "label_BTHW": jax.ShapeDtypeStruct(shape, jnp.int32),
        "is_clip_B": jax.ShapeDtypeStruct(clips, jnp.bool_),
    }


def inner_jaxprs(params):
    """The jaxprs among an equation's parameters."""
    for value in jax.tree.leaves(params, is_leaf=lambda value: hasattr(value, "eqns") or hasattr(value, "jaxpr")):
        if hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr"):
            yield value.jaxpr


def matrix_flops(jaxpr):
    """Floating point operations of a jaxpr's matrix products and convolutions, those in scans times their length.

    XLA's own count takes the body of a scan once. What is recomputed in the backward pass counts; a while loop
    (the assignment's) counts once.
    """
    total = 0
    for equation in jaxpr.eqns:
        shapes = [variable.aval.shape for variable in (*equation.invars, *equation.outvars)]
        if equation.primitive.name == "dot_general":
            contracted = equation.params["dimension_numbers"][0][0]
            total += 2 * math.prod(shapes[-1]) * math.prod(shapes[0][axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            out_channels = shapes[1][equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * math.prod(shapes[-1]) * math.prod(shapes[1]) // out_channels
        else:
            times = equation.params["length"] if equation.primitive.name == "scan" else 1
            total += times * sum(matrix_flops(inner) for inner in inner_jaxprs(equation.params))
    return total


def abstract_step(config, mesh):
    """(the training step of `config` on a mesh, shapes of the state and the batch that it takes)."""
    graphdef, params, _ = train_step.describe(config)
    transformation = optimizers.build(config.optimizer, params, config.model.encoder.depth, config.train.steps)
    state = jax.eval_shape(lambda key: train_step.init_state(config, transformation, key), jax.random.key(0))
    return train_step.make_train_step(config, graphdef, transformation, mesh), (state, abstract_batch(config))


def step_cost(config):
    """Floating point operations of a training step, all devices together; see `matrix_flops`."""
    # On one device, which need not be one that could hold it: the batch may not divide among those that are here.
    step, shapes = abstract_step(config, sharding.make_mesh(devices=jax.devices()[:1]))
    return matrix_flops(step.trace(*shapes).jaxpr.jaxpr)


def placed_shapes(config, mesh, state, batch):
    """Shapes of a state and a batch with where on a mesh they lie."""
    by_clip = jax.tree.map(lambda _: sharding.by_clip(mesh, config.train.accumulate), batch)
    of_state = sharding.state_shardings(mesh, state, config.sharding)
    return sharding.placed_shapes(state, of_state), sharding.placed_shapes(batch, by_clip)


def step_memory(config, mesh, remat):
    """Temporary bytes of the compiled training step on each device of a mesh, beside weights, state and batch."""
    config = copy.deepcopy(config).unlock()
    config.model.remat = remat
    step, (state, batch) = abstract_step(config, mesh)
    # Only the buffers matter, which the code's level of optimisation does not change.
    shapes = placed_shapes(config, mesh, state, batch)
    compiled = step.lower(*shapes).compile(compiler_options=sharding.quick_compilation())
    return compiled.memory_analysis().temp_size_in_bytes


def describe_memory(config):
    """What a training step needs on each device beside weights and state, as compiled here; a line for each remat."""
    try:
        mesh = train_step.make_mesh(config)
    except UserError:
        mesh = sharding.make_mesh(devices=jax.devices()[:1])
    here = f"{mesh.size} x {jax.devices()[0].device_kind}, {config.train.batch / mesh.size:g} clips each"
    lines = [f"Compiled for {here}, a step needs on each beside weights and state:"]
    for remat in dict.fromkeys((config.model.remat, "full", "none")):
        own = " (this recipe)" if remat == config.model.remat else ""
        lines.append(f"  {step_memory(config, mesh, remat) / 2**30:7.2f} GiB with model.remat={remat}{own}")
    return lines


def describe(config):
    """The report as text."""
    _, params, model_state = train_step.describe(config)
    total = sum(np.prod(leaf.shape, dtype=np.int64) for leaf in jax.tree.leaves(params))
    state_bytes = 4 * (3 * total + sum(np.prod(leaf.shape, dtype=np.int64) for leaf in jax.tree.leaves(model_state)))
    overview = parameter_overview.get_parameter_overview(params, include_stats=False)
    return (
        f"{config}\n{overview}\n"
        f"Parameters: {total:,} ({total / 1e6:.2f} M). Weights and optimizer state: {state_bytes / 2**30:.2f} GiB.\n"
        f"A step of {config.train.batch} clips of {config.data.frames} frames: {step_cost(config) / 1e12:.2f} TFLOP."
    )


def describe_checkpoint(config):
    """What is in `config.init_from`, and what of it the config's model would take; nothing where it is empty."""
    if not config.init_from:
        return []
    file = checkpoint_file.read(config.init_from)
    kinds = collections.Counter(
        (re.sub(r"\d+", "*", name), tensor.shape, tensor.dtype.name) for name, tensor in file.tensors.items()
    )
    beside = f", beside {', '.join(file.others)}" if file.others else ""
    lines = [
        f"\n{file.path}: {len(file.tensors)} tensors, {file.nbytes / 2**30:.2f} GiB, "
        f"{f'under {file.wrapper!r}' if file.wrapper else 'at the top'}{beside}"
    ]
    lines += [f"  {count:4d} x {name} {shape} {dtype}" for (name, shape, dtype), count in kinds.items()]
    _, *weights = train_step.describe(config)
    try:
        lines.append(f"\nInto this config's model would go:\n{convert.plan(config.model, weights, file.path).report()}")
    except UserError as error:
        lines.append(f"\nTraining would refuse it:\n{error}")
    return lines
