"""Multi-scale deformable sampling against loops in float64, at borders and beyond."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vspw_jax.models import deformable_attention
from vspw_jax.models.deformable_attention import DeformableAttention, cell_centres, sample_every_head
from vspw_jax.sampling import deformable_kernel

on_each_platform = pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"], indirect=True)
SHAPES = ((2, 3), (4, 6), (11, 1))
TOKENS = sum(height * width for height, width in SHAPES)
QUERIES, HEADS, POINTS, DIM = 5, 2, 3, 4


def reference(value, locations, weights):
    """Every corner of every point by itself; what lies outside a map counts as zero."""
    output = np.zeros((QUERIES, HEADS, DIM))
    for q, head, level, point in np.ndindex(weights.shape):
        height, width = SHAPES[level]
        start = sum(h * w for h, w in SHAPES[:level])
        x, y = locations[q, head, level, point].astype(np.float64) * (width, height) - 0.5
        for row in (np.floor(y), np.floor(y) + 1):
            for column in (np.floor(x), np.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(x - column)) * (1 - abs(y - row))
                    token = start + int(row) * width + int(column)
                    output[q, head] += weights[q, head, level, point] * share * value[token, head]
    return output


def inputs(low, high, seed=0, queries=QUERIES):
    rng = np.random.default_rng(seed)
    value = rng.normal(size=(TOKENS, HEADS, DIM)).astype(np.float32)
    locations = rng.uniform(low, high, (queries, HEADS, len(SHAPES), POINTS, 2)).astype(np.float32)
    weights = rng.uniform(size=locations.shape[:-1]).astype(np.float32)
    return value, locations, weights


def run(value, locations, weights):
    value, locations, weights = (jnp.asarray(x)[None] for x in (value, locations, weights))
    return sample_every_head(value, SHAPES, locations, weights)[0]


@on_each_platform
@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-0.1, 0.05), (0.95, 1.1), (-3, 4)], ids=["inside", "top left", "bottom right", "far"]
)
def test_equals_loops(low, high, platform):
    value, locations, weights = inputs(low, high)
    np.testing.assert_allclose(run(value, locations, weights), reference(value, locations, weights), atol=1e-5)


@on_each_platform
def test_locations_off_every_map_give_zero(platform):
    value, locations, weights = inputs(0, 1)
    for far in (1e3, -1e3, 1e30, -1e30):
        np.testing.assert_array_equal(run(value, np.full_like(locations, far), weights), 0)


@on_each_platform
def test_gradients_equal_finite_differences(platform):
    value, locations, weights = inputs(-0.1, 1.1, seed=1)

    def loss(*args):
        return (run(*args) ** 2).sum()

    gradients = jax.grad(loss, argnums=(0, 1, 2))(value, locations, weights)
    rng = np.random.default_rng(2)
    for number, (argument, gradient) in enumerate(zip((value, locations, weights), gradients, strict=True)):
        for flat in rng.choice(argument.size, 6, replace=False):
            index = np.unravel_index(flat, argument.shape)
            ends = []
            for step in (1e-4, -1e-4):
                moved = [value.astype(np.float64), locations.astype(np.float64), weights.astype(np.float64)]
                moved[number][index] += step
                ends.append((reference(*moved) ** 2).sum())
            slope = (ends[0] - ends[1]) / 2e-4
            assert float(gradient[index]) == pytest.approx(slope, rel=2e-2, abs=2e-2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_kernel_has_the_gradient_of_gathers_on_lines_between_cells_too(dtype):
    """At the start samples lie at cells' centres, where the bilinear form has a corner: there it has one slope too."""
    queries = deformable_kernel.LANES + 3
    value, locations, weights = inputs(-0.1, 1.1, queries=queries)
    grid = np.array([(width, height) for height, width in SHAPES], np.float32)[:, None]
    locations[: queries // 2] = (np.floor(locations[: queries // 2] * grid) + 0.5) / grid
    direction = np.random.default_rng(3).normal(size=(HEADS, queries, DIM))
    value_GSD, *points = (jnp.moveaxis(jnp.asarray(x), 1, 0) for x in (value, locations, weights))

    def loss(sample, value_GSD, *points):
        output = sample(value_GSD, SHAPES, *points)
        return (output * direction).sum(), output

    every_head = lambda value, shapes, *points: jax.vmap(
        lambda *one: deformable_attention.sample_and_sum(one[0], shapes, *one[1:])
    )(value, *points)
    by = [
        jax.grad(functools.partial(loss, sample), (0, 1, 2), has_aux=True)(value_GSD.astype(dtype), *points)
        for sample in (every_head, functools.partial(deformable_kernel.sample_and_sum, interpret=True))
    ]
    rounding = 0.05 if dtype == jnp.bfloat16 else 1e-5
    for pair in zip(*map(jax.tree.leaves, by), strict=True):
        gathered, sampled = (np.asarray(x, np.float32) for x in pair)
        np.testing.assert_allclose(sampled, gathered, rtol=rounding, atol=rounding)


def test_cell_centres_are_x_then_y_row_by_row():
    np.testing.assert_allclose(cell_centres([(1, 2), (2, 1)]), [[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]])


def test_initial_offsets_point_in_one_direction_a_head():
    """Four heads look right, down, left, up, 1, 2, ... cells far (Deformable DETR's initialisation)."""
    bias = deformable_attention.offset_bias(4, 1, 2).reshape(4, 2, 2)
    np.testing.assert_allclose(bias[:, 0], [[1, 0], [0, 1], [-1, 0], [0, -1]], atol=1e-6)
    np.testing.assert_allclose(bias[:, 1], 2 * bias[:, 0], atol=1e-6)


def test_uniform_weights_at_the_start():
    """New modules weigh all their samples alike, so a constant map gives the same at every query."""
    module = DeformableAttention(8, 2, 3, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    shapes = ((8, 8), (4, 4), (2, 2))
    feature = jnp.ones((1, 84, 8))
    middle = np.full((1, 2), 0.5, np.float32)
    query = jax.random.normal(jax.random.key(0), (1, 1, 8))
    wide = module(query, middle, feature, shapes)
    np.testing.assert_allclose(wide, module(2 * query, middle, feature, shapes), rtol=1e-6)
