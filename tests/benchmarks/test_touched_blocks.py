"""Blocks that deformable attention touches at the start, counted."""

import pytest

from benchmarks import touched_blocks


def test_a_row_of_queries_touches_its_row_and_those_of_its_points():
    """128 queries a row, 128 columns: a block is a row. Heads look right, down, left and up, 1 to 4 rows far."""
    [(blocks, mean)] = touched_blocks.mean_touched([(128, 128)], [(128, 128)], heads=4)
    assert blocks == 128
    # Samples on a row touch the next one too; beyond the map there are none.
    sideways, down = 2 - 1 / 128, (5 * 123 + 4 + 3 + 2 + 1) / 128
    up = (5 * 124 + 4 + 3 + 2 + 1) / 128
    assert mean == pytest.approx((2 * sideways + down + up) / 4, abs=1e-6)


def test_the_main_systems_attentions_have_maps_of_the_crop():
    assert touched_blocks.attentions(64)["injector"] == ([(4, 4)], ((8, 8), (4, 4), (2, 2)), 16)
