"""Windows are cut and joined by reshapes and slices: no pass gathers or scatters single rows of a map, which is slow.

The passes are traced at published sizes, and not run. Tables of position biases may be gathered from.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs.parts import models
from vspw_jax.inspection import step_cost
from vspw_jax.models.encoders.swin import Swin
from vspw_jax.models.temporal.spatiotemporal_transformer import SpatiotemporalTransformer

SSLTM = models.ssltm()
SIDES = ((480, 480), (475, 853))
"""Of an image: a crop, and a frame whose maps neither patches, windows nor mergings divide."""


def rows_moved(jaxpr):
    """Numbers in the largest operand or result of each gather and scatter of a jaxpr, those of inner ones included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith(("gather", "scatter")):
            yield max(np.prod(x.aval.shape, dtype=int) for x in (*equation.invars, *equation.outvars))
        for inner in step_cost.inner_jaxprs(equation.params):
            yield from rows_moved(inner)


def moved_by(call, *inputs):
    """`rows_moved` of call(*inputs) and of its gradient by all inputs."""
    total = lambda *inputs: sum(jnp.square(x).sum() for x in jax.tree.leaves(call(*inputs)))
    gradient = jax.value_and_grad(total, tuple(range(len(inputs))))
    return list(rows_moved(jax.make_jaxpr(gradient)(*inputs).jaxpr))


def moved_by_module(make, x):
    """(`moved_by` of the module that make() gives, numbers in its largest table of position biases)."""
    graphdef, params = nnx.split(nnx.eval_shape(make), nnx.Param)
    paths = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(params))
    tables = [leaf.size for path, leaf in paths if "bias_table" in jax.tree_util.keystr(path)]
    return moved_by(lambda params, x: nnx.merge(graphdef, params)(x), params, x), max(tables)


def shapes(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def options():
    return dict(dtype=jnp.float32, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("size", SIDES)
def test_swins_windows(size):
    config = models.swin_small()
    moved, table = moved_by_module(lambda: Swin(config, size, "none", **options()), shapes(2, *size, 3))
    assert max(moved, default=0) <= table


@pytest.mark.parametrize("size", SIDES)
def test_ssltms_windows_over_time(size):
    """Of the published decoder, on maps at 1/8; of two blocks, the second of which shifts its windows."""
    cells = (SSLTM.short_term, size[0] // 8, size[1] // 8)
    arguments = (SSLTM.dim, SSLTM.heads, tuple(SSLTM.window), 2, True, SSLTM.mlp_ratio, "none")
    make = lambda: SpatiotemporalTransformer(*arguments, **options())
    moved, table = moved_by_module(make, shapes(2, *cells, SSLTM.dim))
    assert max(moved, default=0) <= table


@pytest.mark.parametrize("jitted", [False, True])
def test_a_cut_by_indices_would_be_found(jitted):
    """In the pass or in its gradient, whose scatter has the map's size."""
    cut = lambda x: x[np.arange(60)[::-1]]
    assert moved_by(jax.jit(cut) if jitted else cut, shapes(60, 8)) == [480, 480]
