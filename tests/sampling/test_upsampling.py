"""Upsampling by whole factors against JAX's resize."""

import jax
import numpy as np
import pytest

from vspw_jax.sampling import upsampling

CELLS, CHANNELS = 5, 3


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_equals_a_resize_of_a_map_with_its_border_repeated(factor):
    map_HWC = np.random.default_rng(0).normal(size=(CELLS, CELLS, CHANNELS)).astype(np.float32)
    side = factor * CELLS
    wanted = jax.image.resize(map_HWC, (side, side, CHANNELS), "bilinear", antialias=False)
    padded = np.pad(map_HWC, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = np.einsum("hr,rwc->hwc", upsampling.matrix(CELLS, factor), padded)
    np.testing.assert_allclose(upsampling.upsample_columns(rows, factor), wanted, atol=1e-6)


def test_a_part_of_a_map_reads_the_cells_around_it():
    column = np.arange(7.0)
    whole, part = upsampling.matrix(5, 4) @ column, upsampling.matrix(3, 4) @ column[1:-1]
    np.testing.assert_allclose(part, whole[4:-4])
