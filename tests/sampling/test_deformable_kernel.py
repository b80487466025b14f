"""Blocks that the kernel of deformable attention skips, where samples lie at awkward places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vspw_jax.models import deformable_attention
from vspw_jax.sampling import deformable_kernel
from vspw_jax.sampling.cell_blocks import Level

SHAPES = ((20, 3), (9, 40))  # Three blocks of eight rows, and five of two.
LEVELS = tuple(Level(*shape) for shape in SHAPES)
HEADS, POINTS, DIM, QUERIES = 2, 2, 4, deformable_kernel.LANES + 3
OFF = 5.0


def locations(kind):
    """Of each head, query, level and point."""
    rng = np.random.default_rng(0)
    shape = (HEADS, QUERIES, len(SHAPES), POINTS, 2)
    result = rng.uniform(-0.2, 1.2, shape)
    height_V1 = np.array(SHAPES)[:, :1]
    if kind == "off the map":
        result[:] = OFF
    elif kind == "one in the last block":
        result[..., 1] = rng.choice([OFF, -OFF], shape[:-1])
        result[:, -1] = 1 - 0.5 / height_V1[..., None]
    elif kind == "at borders":  # The outer edges, and a cell or half a cell beside them.
        result[..., 1] = rng.choice([0.0, 1.0], shape[:-1]) + rng.integers(-2, 3, shape[:-1]) / 2 / height_V1
    elif kind == "near each other":
        result[..., 1] = 0.3 + 0.02 * rng.normal(size=shape[:-1])
        result[:, -3:, ..., 1] += 0.5
    return result.astype(np.float32)


KINDS = ("all over the map", "off the map", "one in the last block", "at borders", "near each other")


def drawn():
    """Values and weights."""
    rng = np.random.default_rng(1)
    tokens = sum(height * width for height, width in SHAPES)
    weight_GQVP = rng.uniform(size=(HEADS, QUERIES, len(SHAPES), POINTS)).astype(np.float32)
    return rng.normal(size=(HEADS, tokens, DIM)).astype(np.float32), weight_GQVP


def by_gathers(value_GSD, *points):
    return jax.vmap(lambda value, *one: deformable_attention.sample_and_sum(value, SHAPES, *one))(value_GSD, *points)


@jax.jit
def by_kernel(value_GSD, *points):
    return deformable_kernel.sample_and_sum(value_GSD, SHAPES, *points, interpret=True)


def rows_of(place_GQVP2):
    """The rows of cells around points, as (level, head, group of queries, rows)."""
    for level, (height, _) in enumerate(SHAPES):
        top_GQP = np.floor(place_GQVP2[:, :, level, :, 1] * np.float32(height) - np.float32(0.5))
        for head in range(HEADS):
            for group, start in enumerate(range(0, QUERIES, deformable_kernel.LANES)):
                top = top_GQP[head, start : start + deformable_kernel.LANES]
                yield level, head, group, [row for row in {*top.flat, *(top + 1).flat} if 0 <= row < height]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_and_gradients_are_those_of_gathers(kind):
    value_GSD, weight_GQVP = drawn()
    direction = np.random.default_rng(2).normal(size=(HEADS, QUERIES, DIM))

    def found(sample):
        output, backward = jax.vjp(sample, value_GSD, locations(kind), weight_GQVP)
        return output, *backward(jnp.asarray(direction, jnp.float32))

    for gathered, sampled in zip(found(by_gathers), found(by_kernel), strict=True):
        np.testing.assert_allclose(sampled, gathered, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_touched_are_the_blocks_from_the_first_row_of_the_points_to_the_last(kind):
    place_GQVP2 = locations(kind)
    y_GQVP = place_GQVP2[..., 1] * np.array(SHAPES, np.float32)[:, :1] - np.float32(0.5)
    y_GKQ = np.moveaxis(y_GQVP.reshape(HEADS, QUERIES, -1), 1, 2)
    y_GKQ = np.pad(y_GKQ, ((0, 0), (0, 0), (0, -QUERIES % deformable_kernel.LANES)), constant_values=-2)
    first_GVT, end_GVT = deformable_kernel.touched_blocks(LEVELS, y_GKQ)
    for level, head, group, rows in rows_of(place_GQVP2):
        at = head, level, group
        blocks = {int(row) // LEVELS[level].rows for row in rows}
        assert range(first_GVT[at], end_GVT[at]) == (range(min(blocks), max(blocks) + 1) if blocks else range(0))


@pytest.mark.parametrize(("kind", "last_blocks"), [("off the map", 0), ("one in the last block", 1)])
def test_blocks_that_no_sample_touches_are_not_read(kind, last_blocks):
    value_GSD, weight_GQVP = drawn()
    is_read_S = np.concatenate(
        [
            np.arange(level.height * level.width) // level.width // level.rows >= level.blocks - last_blocks
            for level in LEVELS
        ]
    )
    rest_is_nan_GSD = np.where(is_read_S[:, None], value_GSD, np.nan)

    def found(value_GSD):
        output, backward = jax.vjp(by_kernel, value_GSD, locations(kind), weight_GQVP)
        return output, *backward(jnp.ones_like(output))

    for whole, part in zip(found(value_GSD), found(rest_is_nan_GSD), strict=True):
        np.testing.assert_array_equal(part, whole)
