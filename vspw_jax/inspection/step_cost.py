"""What a training step costs, from its trace and its compiled program: operations and memory; nothing is run."""

import math
from collections.abc import Collection, Iterator
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vspw_jax.data import views
from vspw_jax.models import attention, attention_kernel, convolution
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh, quick_compilation
from vspw_jax.training import optimizers, rematerialisation, train_state, train_step
from vspw_jax.training.train_state import State


def abstract_batch(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a training batch, as `placement.to_global` gives it."""
    parts = config.train.accumulate
    clips = (config.train.batch,) if parts == 1 else (parts, config.train.batch // parts)
    return views.shapes(config.data, tuple(config.model.image_size), *clips)


def inner_jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters."""
    for value in jax.tree.leaves(params, is_leaf=lambda value: hasattr(value, "eqns") or hasattr(value, "jaxpr")):
        if hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr"):
            yield value.jaxpr


FUSED_PRODUCTS = {attention.FORWARD: 2, attention.BACKWARD: 4}
"""Matrix products in cuDNN's attention, which is one operation to JAX. Its backward pass makes the logits again, which
is not counted."""
KERNELS_PRODUCTS = {attention_kernel.FORWARD: 2, attention_kernel.BACKWARD: 4}
"""The same in attention by a kernel for TPUs. Products in other kernels stand for gathers and do not count."""


def matrix_flops(jaxpr: Any, leave_out: Collection[str] = ()) -> int:
    """Floating point operations of a jaxpr's matrix products and convolutions, those in scans times their length.

    XLA's own count takes the body of a scan once. What is recomputed in the backward pass counts; a while loop
    (the assignment's) counts once. Functions that were traced under a name in `leave_out` do not count.
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
        elif equation.primitive.name in FUSED_PRODUCTS:
            (images, queries, heads, channels), (_, keys, *_) = shapes[0], shapes[1]
            product = 2 * images * heads * queries * keys * channels
            total += FUSED_PRODUCTS[equation.primitive.name] * product
        elif equation.primitive.name == "pallas_call":
            if products := KERNELS_PRODUCTS.get(equation.params["name"]):
                (images, queries, channels), (_, keys, _) = shapes[:2]
                total += products * 2 * images * queries * keys * channels
        elif equation.params.get("name") not in leave_out:
            times = equation.params["length"] if equation.primitive.name == "scan" else 1
            total += times * sum(matrix_flops(inner, leave_out) for inner in inner_jaxprs(equation.params))
    return total


def abstract_step(config: ConfigDict, mesh: Mesh) -> tuple[Any, tuple[State, dict[str, jax.ShapeDtypeStruct], Any]]:
    """(the training step of `config` on a mesh, shapes of the state, the batch and the seed that it takes)."""
    graphdef, params, _ = train_state.describe(config)
    optimizer = optimizers.build(config, params)
    state = jax.eval_shape(lambda key: train_state.init_state(config, optimizer, key), jax.random.key(0))
    step = train_step.make_train_step(config, graphdef, optimizer, mesh)
    return step, (state, abstract_batch(config), train_step.seed_of(config))


def step_flops(config: ConfigDict) -> int:
    """Floating point operations of a training step, all devices together; see `matrix_flops`."""
    # On one device, which need not be one that could hold it: the batch may not divide among those that are here.
    step, shapes = abstract_step(config, make_mesh(devices=jax.devices()[:1]))
    with convolution.with_padding():
        return matrix_flops(step.trace(*shapes).jaxpr.jaxpr)


def placed_shapes(config: ConfigDict, mesh: Mesh, state: State, batch: dict, seed: Any) -> tuple[State, dict, Any]:
    """Shapes of what a step takes with where on a mesh they lie."""
    by_clip = jax.tree.map(lambda _: placement.by_clip(mesh, config.train.accumulate), batch)
    return train_state.layout(config, mesh).placed_shapes(state), placement.placed_shapes(batch, by_clip), seed


def step_memory(config: ConfigDict, mesh: Mesh, remat: str) -> int:
    """Temporary bytes of the compiled training step on each device of a mesh, beside weights, state and batch."""
    config = rematerialisation.with_policy(config, remat)
    step, shapes = abstract_step(config, mesh)
    # Only the buffers matter, which the code's level of optimisation does not change.
    compiled = step.lower(*placed_shapes(config, mesh, *shapes)).compile(compiler_options=quick_compilation())
    return compiled.memory_analysis().temp_size_in_bytes
